package format

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"

	"github.com/klauspost/compress/flate"
)

// Google Cloud takes a gzip file of a tar archive in GNU's old format, which may be
// sparse, of one file disk.raw of whole GiB.
const gceName = "disk.raw"

// run is a part of the disk that is in the archive.
type run struct{ at, len int64 }

func writeGCE(ctx context.Context, dst, src *os.File, size int64, o Options) error {
	// The map of what is in the archive stands before it, so the image is read twice.
	runs, stored, err := dataRuns(ctx, src)
	if err != nil {
		return err
	}
	g := &gzipWriter{w: bufio.NewWriterSize(dst, mib), crc: crc32.NewIEEE()}
	if err := g.begin(o); err != nil {
		return err
	}
	if err := g.small(sparseHeader(runs, stored, divUp(size, gib)*gib, o)); err != nil {
		return err
	}
	written := int64(0)
	err = pipeline{src: src, size: mib, progress: o.Progress, worker: gceWorker, emit: func(p *piece) error {
		for _, u := range p.units {
			g.add(u.data)
			written += int64(len(u.data))
		}
		_, err := g.w.Write(p.packed)
		return err
	}}.run(ctx)
	if err != nil {
		return err
	}
	if written != stored {
		return fmt.Errorf("%s was changed while it was read", src.Name())
	}
	// Two blocks of zeros end the archive.
	if err := g.small(make([]byte, -stored&(sector-1)+2*sector)); err != nil {
		return err
	}
	return g.end()
}

// dataRuns lists what is not zeros, in units.
func dataRuns(ctx context.Context, src *os.File) (runs []run, stored int64, err error) {
	err = pipeline{src: src, size: mib, worker: splitter, emit: func(p *piece) error {
		for i, u := range p.units {
			n := int64(len(u.data))
			if n == 0 {
				continue
			}
			at := p.at + int64(i)*unitSize
			stored += n
			if k := len(runs) - 1; k >= 0 && runs[k].at+runs[k].len == at {
				runs[k].len += n
			} else {
				runs = append(runs, run{at, n})
			}
		}
		return nil
	}}.run(ctx)
	return runs, stored, err
}

// gceWorker packs the units that are not zeros.
func gceWorker() (func(*piece) error, error) {
	return deflater(func(z io.Writer, p *piece) error {
		for _, u := range p.units {
			if _, err := z.Write(u.data); err != nil {
				return err
			}
		}
		return nil
	})
}

// deflater packs what write gives of each piece that is not zeros alone. What it makes
// ends at a whole byte and refers to nothing before it, so the pieces behind each other
// are one stream.
func deflater(write func(z io.Writer, p *piece) error) (func(*piece) error, error) {
	var out bytes.Buffer
	z, err := flate.NewWriter(&out, flate.DefaultCompression)
	if err != nil {
		return nil, err
	}
	return func(p *piece) error {
		p.split()
		if p.isZero() {
			return nil
		}
		out.Reset()
		z.Reset(&out)
		if err := write(z, p); err != nil {
			return err
		}
		if err := z.Flush(); err != nil {
			return err
		}
		p.packed = append(p.packed, out.Bytes()...)
		return nil
	}, nil
}

// gzipWriter writes a gzip file (RFC 1952) of one member.
type gzipWriter struct {
	w    *bufio.Writer
	crc  hash.Hash32
	size uint32
}

func (g *gzipWriter) begin(o Options) error {
	head := []byte{0x1f, 0x8b, 8, 0}
	head = binary.LittleEndian.AppendUint32(head, uint32(o.time().Unix()))
	_, err := g.w.Write(append(head, 0, 255)) // of an unknown system
	return err
}

// add notes bytes that are written packed.
func (g *gzipWriter) add(b []byte) {
	g.crc.Write(b)
	g.size += uint32(len(b))
}

// small packs and writes bytes here and now.
func (g *gzipWriter) small(b []byte) error {
	g.add(b)
	z, err := flate.NewWriter(g.w, flate.DefaultCompression)
	if err != nil {
		return err
	}
	_, err = z.Write(b)
	return errors.Join(err, z.Flush())
}

func (g *gzipWriter) end() error {
	b := []byte{1, 0, 0, 0xff, 0xff} // the last block, which is empty
	b = binary.LittleEndian.AppendUint32(b, g.crc.Sum32())
	b = binary.LittleEndian.AppendUint32(b, g.size)
	if _, err := g.w.Write(b); err != nil {
		return err
	}
	return g.w.Flush()
}

// sparseHeader is the header of disk.raw in GNU's old format for sparse files ("Old
// GNU Format" in tar's manual), with all blocks of the map.
func sparseHeader(runs []run, stored, size int64, o Options) []byte {
	// A run of no bytes at the end says how long the file is.
	runs = append(runs, run{size, 0})
	b := make([]byte, sector)
	copy(b, gceName)
	copy(b[100:], "0000644\x000000000\x000000000\x00")
	tarNumber(b[124:136], stored)
	tarNumber(b[136:148], o.time().Unix())
	b[156] = 'S'
	copy(b[257:], "ustar  \x00root")
	copy(b[297:], "root")
	rest := putRuns(b[386:482], runs)
	b[482] = more(rest)
	tarNumber(b[483:495], size)
	copy(b[148:], "        ")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	for len(rest) > 0 {
		x := make([]byte, sector)
		rest = putRuns(x[:504], rest)
		x[504] = more(rest)
		b = append(b, x...)
	}
	return b
}

// putRuns fills b with as many runs as it has room for and returns the others.
func putRuns(b []byte, runs []run) []run {
	for ; len(b) > 0 && len(runs) > 0; b, runs = b[24:], runs[1:] {
		tarNumber(b[:12], runs[0].at)
		tarNumber(b[12:24], runs[0].len)
	}
	return runs
}

func more(rest []run) byte {
	if len(rest) > 0 {
		return 1
	}
	return 0
}

// tarNumber fills b, of 12 bytes, with an octal number or, from 8 GiB on, a binary one.
func tarNumber(b []byte, n int64) {
	if n < 8*gib {
		copy(b, fmt.Sprintf("%011o\x00", n))
		return
	}
	b[0] = 0x80
	binary.BigEndian.PutUint64(b[4:], uint64(n))
}
