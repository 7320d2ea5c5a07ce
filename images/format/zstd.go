package format

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"
)

// framePiece is the part of the disk in one zstd frame. A file of several frames is
// one that every reader takes (RFC 8878, section 3), and each is packed alone.
const framePiece = 4 * mib

func writeZstd(ctx context.Context, dst, src *os.File, size int64, o Options) error {
	z, err := zstdEncoder()
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(dst, mib)
	gaps := gaps{piece: framePiece, size: size, out: out, pack: func(b []byte) ([]byte, error) { return z.EncodeAll(b, nil), nil }}
	err = pipeline{src: src, size: framePiece, progress: o.Progress, emit: gaps.emit, worker: func() (func(*piece) error, error) {
		z, err := zstdEncoder()
		return func(p *piece) error {
			if p.split(); !p.isZero() {
				p.packed = z.EncodeAll(p.data, p.packed)
			}
			return nil
		}, err
	}}.run(ctx)
	if err != nil {
		return err
	}
	if err := gaps.fill(ctx, size); err != nil {
		return err
	}
	return out.Flush()
}

func zstdEncoder() (*zstd.Encoder, error) {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return z, nil
}

// gaps writes packed pieces and, for those that are in holes or were not packed
// because they are zeros, zeros that were packed once.
type gaps struct {
	piece, size int64
	out         io.Writer
	pack        func([]byte) ([]byte, error)
	// wrote, if not nil, is told of each piece that was written.
	wrote func(packed []byte, length int64)

	at   int64
	zero []byte // a whole piece of zeros, packed
}

func (g *gaps) emit(p *piece) error {
	if len(p.packed) == 0 {
		return nil
	}
	if err := g.fill(context.Background(), p.at); err != nil {
		return err
	}
	return g.put(p.packed, int64(len(p.data)))
}

func (g *gaps) put(packed []byte, length int64) error {
	if _, err := g.out.Write(packed); err != nil {
		return err
	}
	if g.wrote != nil {
		g.wrote(packed, length)
	}
	g.at += length
	return nil
}

// fill writes zeros up to the piece at to.
func (g *gaps) fill(ctx context.Context, to int64) (err error) {
	for g.at < to && err == nil {
		n := min(g.piece, g.size-g.at)
		packed := g.zero
		if packed == nil || n != g.piece {
			if packed, err = g.pack(make([]byte, n)); err != nil {
				return err
			}
			if n == g.piece {
				g.zero = packed
			}
		}
		if err = g.put(packed, n); err == nil {
			err = ctx.Err()
		}
	}
	return err
}
