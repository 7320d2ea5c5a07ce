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

// tarContent is the tar stream of a tree. It is written anew whenever it is read:
// a layer with programs of hundreds of megabytes is neither held in memory nor
// stored a second time.
type tarContent struct {
	tree  *tree.Tree
	mtime time.Time
	size  int64
}

// Open implements tree.Content. Closing the reader early ends the writer.
func (c tarContent) Open() (io.ReadCloser, error) {
	r, w := io.Pipe()
	go func() {
		// A pipe hands over one write at a time: small ones are collected.
		b := bufio.NewWriterSize(w, 256<<10)
		err := c.tree.WriteTar(b, c.mtime)
		if err == nil {
			err = b.Flush()
		}
		w.CloseWithError(err) // nil is the end of the file
	}()
	return r, nil
}

// Size implements tree.Content.
func (c tarContent) Size() int64 { return c.size }

// layer is a v1.Layer whose stored form is its tar stream: digest and diff id are
// the same.
type layer struct {
	content tarContent
	hash    v1.Hash
}

// newLayer reads the tree once, for its digest and size.
func newLayer(t *tree.Tree, mtime time.Time) (*layer, error) {
	h := sha256.New()
	count := &counter{w: h}
	if err := t.WriteTar(count, mtime); err != nil {
		return nil, err
	}
	return &layer{
		content: tarContent{tree: t, mtime: mtime, size: count.n},
		hash:    v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))},
	}, nil
}

// The methods of v1.Layer.
func (l *layer) Digest() (v1.Hash, error)             { return l.hash, nil }
func (l *layer) DiffID() (v1.Hash, error)             { return l.hash, nil }
func (l *layer) Compressed() (io.ReadCloser, error)   { return l.content.Open() }
func (l *layer) Uncompressed() (io.ReadCloser, error) { return l.content.Open() }
func (l *layer) Size() (int64, error)                 { return l.content.size, nil }
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
