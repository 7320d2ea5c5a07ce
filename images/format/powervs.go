package format

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strings"

	"github.com/klauspost/compress/flate"
)

// IBM Power Virtual Server imports what PowerVC exports: a tar archive, packed by gzip,
// of a machine's description, a summary of it and the disk as it is. It knows a few
// operating systems by name, and "rhel" stands for a Linux that it does nothing to.

//go:embed powervs.ovf
var powervsOVF string

const powervsMeta = "os-type = rhel\narchitecture = ppc64le\nvol1-file = {{.File}}\nvol1-type = boot\n"

// powervsCapacity is how large the volumes are that are made of an image, where the
// image itself is no larger: nobody is asked for it when it is imported.
const powervsCapacity = 20 * gib

func writePowerVS(ctx context.Context, dst, src *os.File, size int64, o Options) error {
	const disk = "disk.raw"
	whole := divUp(size, gib) * gib
	replace := strings.NewReplacer("{{.Name}}", o.Name, "{{.File}}", disk,
		"{{.FileSize}}", fmt.Sprint(whole), "{{.Capacity}}", fmt.Sprint(max(powervsCapacity, whole)))
	var front bytes.Buffer
	w := tar.NewWriter(&front)
	for _, f := range []struct{ name, text string }{{o.Name + ".ovf", powervsOVF}, {o.Name + ".meta", powervsMeta}} {
		text := replace.Replace(f.text)
		if err := w.WriteHeader(o.tarHeader(f.name, int64(len(text)))); err != nil {
			return err
		}
		if _, err := w.Write([]byte(text)); err != nil {
			return err
		}
	}
	if err := w.WriteHeader(o.tarHeader(disk, whole)); err != nil {
		return err
	}
	g := &gzipWriter{w: bufio.NewWriterSize(dst, mib), crc: crc32.NewIEEE()}
	if err := g.begin(o); err != nil {
		return err
	}
	if err := g.small(front.Bytes()); err != nil {
		return err
	}
	gaps, err := newGapWriter(g)
	if err != nil {
		return err
	}
	err = pipeline{src: src, size: mib, progress: o.Progress, worker: wholeWorker, emit: func(p *piece) error {
		if p.isZero() {
			return nil
		}
		if err := gaps.until(p.at); err != nil {
			return err
		}
		gaps.at += int64(len(p.data))
		g.add(p.data)
		_, err := g.w.Write(p.packed)
		return err
	}}.run(ctx)
	if err != nil {
		return err
	}
	if err := gaps.until(whole); err != nil {
		return err
	}
	// Two blocks of zeros end the archive.
	if err := g.small(make([]byte, 2*sector)); err != nil {
		return err
	}
	return g.end()
}

// wholeWorker packs a piece with its zeros.
func wholeWorker() (func(*piece) error, error) {
	return deflater(func(z io.Writer, p *piece) error {
		_, err := z.Write(p.data)
		return err
	})
}

// gapWriter writes what is zeros on the disk: whole pieces of it are packed once.
type gapWriter struct {
	g              *gzipWriter
	at             int64 // on the disk: all before it is written
	zeros, packing []byte
}

func newGapWriter(g *gzipWriter) (*gapWriter, error) {
	w := &gapWriter{g: g, zeros: make([]byte, mib)}
	var out bytes.Buffer
	z, err := flate.NewWriter(&out, flate.DefaultCompression)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(w.zeros); err != nil {
		return nil, err
	}
	if err := z.Flush(); err != nil {
		return nil, err
	}
	w.packing = out.Bytes()
	return w, nil
}

// until writes zeros up to a place on the disk.
func (w *gapWriter) until(at int64) error {
	for ; w.at+mib <= at; w.at += mib {
		w.g.add(w.zeros)
		if _, err := w.g.w.Write(w.packing); err != nil {
			return err
		}
	}
	if w.at == at {
		return nil
	}
	rest := w.zeros[:at-w.at]
	w.at = at
	return w.g.small(rest)
}
