package registry

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/kiln-os/kiln/images/tree"
)

// maxLayer is the most that a layer may grow to when it is unpacked, in bytes: larger
// than a disk's /usr could ever hold.
const maxLayer = 4 << 30

// uncompressed returns the file with a layer's tar stream, whose digest is its diff id.
func (c Client) uncompressed(ctx context.Context, file string, t types.MediaType, diffID v1.Hash) (string, error) {
	if diffID.Algorithm != "sha256" {
		return "", fmt.Errorf("diff id %s: only SHA-256 is read", diffID)
	}
	out, err := c.Cache.Fetch(ctx, diffID.Hex, -1, func(context.Context) (io.ReadCloser, error) {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		r, err := decompress(bufio.NewReaderSize(f, 1<<20), t)
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return struct {
			io.Reader
			io.Closer
		}{&limited{r, maxLayer}, f}, nil
	})
	if err != nil {
		return "", fmt.Errorf("unpack: %w", err)
	}
	return out, nil
}

// limited fails after n bytes: a layer that was made to fill disks ends there.
type limited struct {
	r io.Reader
	n int64
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if l.n -= int64(n); l.n < 0 {
		return 0, fmt.Errorf("it has more than %d bytes", int64(maxLayer))
	}
	return n, err
}

func decompress(r io.Reader, t types.MediaType) (io.Reader, error) {
	switch t {
	case types.OCIUncompressedLayer, types.DockerUncompressedLayer:
		return r, nil
	case types.OCILayer, types.DockerLayer:
		return gzip.NewReader(r)
	case types.OCILayerZStd:
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return nil, fmt.Errorf("media type %q is not one of a layer that registries hand out", t)
}

// Prefixes of names with a meaning (OCI image layer specification, "whiteouts").
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// apply lays a layer over t. The files' content stays in file.
func apply(t *tree.Tree, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	return applyTar(t, f, func(offset, size int64) tree.Content { return tree.HostFile{Path: file, Offset: offset, Len: size} })
}

// applyTar is apply for a tar stream from its start, of which content makes a section.
func applyTar(t *tree.Tree, f io.ReadSeeker, content func(offset, size int64) tree.Content) error {
	// A whiteout hides what is below, never what is in the same layer.
	layer, given := tree.New(), map[string]bool{}
	var hidden, emptied []string
	tr := tar.NewReader(f)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		p := tree.Clean(h.Name)
		if p == "" {
			continue
		}
		dir, base := path.Split(p)
		switch {
		case base == opaque:
			emptied = append(emptied, dir)
			continue
		case strings.HasPrefix(base, whiteout):
			hidden = append(hidden, dir+strings.TrimPrefix(base, whiteout))
			continue
		}
		e, err := entry(h)
		if err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
		switch e.Type {
		case tree.File:
			at, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				return err
			}
			e.Content = content(at, h.Size)
		case tree.Hardlink:
			// A file of its own: what it links to may be hidden by a later layer. Files
			// with the same content are stored once in any case.
			if e = layer.Get(h.Linkname); e == nil {
				e = t.Get(h.Linkname)
			}
			if e == nil || e.Type != tree.File {
				return fmt.Errorf("%s is a hard link to %s, which is no file", h.Name, h.Linkname)
			}
		}
		layer.Set(p, e)
		given[p] = true
	}
	for _, p := range hidden {
		t.Delete(p)
	}
	for _, dir := range emptied {
		for _, p := range t.Paths() {
			if strings.HasPrefix(p, dir) {
				t.Delete(p)
			}
		}
	}
	return merge(t, layer, given)
}

// merge lays the given entries of a layer over t. Folders that the layer does not
// list itself stay as they are.
func merge(t, layer *tree.Tree, given map[string]bool) error {
	return layer.Walk(func(p string, e *tree.Entry) error {
		if !given[p] {
			return nil
		}
		for d := path.Dir(p); d != "."; d = path.Dir(d) {
			if up := t.Get(d); up != nil && up.Type != tree.Dir {
				return fmt.Errorf("%s lies below %s, which is no folder", p, d)
			}
		}
		if have := t.Get(p); have != nil && (have.Type != tree.Dir || e.Type != tree.Dir) {
			t.Delete(p)
		}
		own := *e
		t.Set(p, &own)
		return nil
	})
}

var tarTypes = map[byte]tree.Type{
	tar.TypeReg: tree.File, tar.TypeDir: tree.Dir, tar.TypeSymlink: tree.Symlink, tar.TypeLink: tree.Hardlink,
	tar.TypeChar: tree.CharDev, tar.TypeBlock: tree.BlockDev, tar.TypeFifo: tree.Fifo,
}

func entry(h *tar.Header) (*tree.Entry, error) {
	kind, ok := tarTypes[h.Typeflag]
	if !ok {
		return nil, fmt.Errorf("entry of unknown type %q", h.Typeflag)
	}
	e := &tree.Entry{Type: kind, Mode: uint32(h.Mode) & 0o7777, UID: h.Uid, GID: h.Gid}
	switch kind {
	case tree.Symlink:
		e.Link, e.Mode = h.Linkname, 0o777
	case tree.CharDev, tree.BlockDev:
		e.Major, e.Minor = uint32(h.Devmajor), uint32(h.Devminor)
	}
	for k, v := range h.PAXRecords {
		if name, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
			if e.Xattrs == nil {
				e.Xattrs = map[string]string{}
			}
			e.Xattrs[name] = v
		}
		if strings.HasPrefix(k, "GNU.sparse.") {
			return nil, errors.New("sparse files are not read")
		}
	}
	return e, nil
}
