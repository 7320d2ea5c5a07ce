package oci

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kiln-os/kiln/images/tree"
)

// layer is a v1.Layer whose stored form would be its tar stream: digest and diff
// id are the same.
type layer struct {
	tree  *tree.Tree
	mtime time.Time
	hash  v1.Hash
	size  int64
}

// newLayer reads the tree once, for its digest and size.
func newLayer(t *tree.Tree, mtime time.Time) (*layer, error) {
	h := sha256.New()
	count := &counter{w: h}
	if err := t.WriteTar(count, mtime); err != nil {
		return nil, err
	}
	return &layer{tree: t, mtime: mtime, size: count.n, hash: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}}, nil
}

// tar is the layer's tar stream. Closing the reader early ends the writer.
func (l *layer) tar() (io.ReadCloser, error) {
	r, w := io.Pipe()
	go func() {
		// A pipe hands over one write at a time: small ones are collected.
		b := bufio.NewWriterSize(w, 256<<10)
		err := l.tree.WriteTar(b, l.mtime)
		if err == nil {
			err = b.Flush()
		}
		w.CloseWithError(err) // nil is the end of the file
	}()
	return r, nil
}

// The methods of v1.Layer.
func (l *layer) Digest() (v1.Hash, error)             { return l.hash, nil }
func (l *layer) DiffID() (v1.Hash, error)             { return l.hash, nil }
func (l *layer) Compressed() (io.ReadCloser, error)   { return l.tar() }
func (l *layer) Uncompressed() (io.ReadCloser, error) { return l.tar() }
func (l *layer) Size() (int64, error)                 { return l.size, nil }
func (l *layer) MediaType() (types.MediaType, error)  { return types.OCIUncompressedLayer, nil }

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}
