package deb

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/xi2/xz"

	"github.com/kiln-os/kiln/images/tree"
)

// dataTar finds the data member of a .deb, which is an ar archive (deb(5)), and
// returns it decompressed.
func dataTar(r io.Reader) (io.Reader, error) {
	magic := make([]byte, 8)
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != "!<arch>\n" {
		return nil, errors.New("not a Debian package: no ar archive")
	}
	for {
		h := make([]byte, 60)
		if _, err := io.ReadFull(r, h); err != nil {
			return nil, fmt.Errorf("no data.tar in the package: %w", err)
		}
		name := strings.TrimRight(strings.TrimSpace(string(h[:16])), "/")
		size, err := strconv.ParseInt(strings.TrimSpace(string(h[48:58])), 10, 64)
		if err != nil || size < 0 || !bytes.Equal(h[58:], []byte("`\n")) {
			return nil, fmt.Errorf("damaged ar header %q", h)
		}
		if comp, ok := strings.CutPrefix(name, "data.tar"); ok {
			return decompress(io.LimitReader(r, size), comp)
		}
		if _, err := io.CopyN(io.Discard, r, size+size%2); err != nil {
			return nil, fmt.Errorf("member %s ends early: %w", name, err)
		}
	}
}

func decompress(r io.Reader, suffix string) (io.Reader, error) {
	switch suffix {
	case "":
		return r, nil
	case ".gz":
		return gzip.NewReader(r)
	case ".xz":
		return xz.NewReader(r, 0)
	case ".zst":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return nil, fmt.Errorf("data.tar%s: unknown compression", suffix)
}

var tarTypes = map[byte]tree.Type{
	tar.TypeReg: tree.File, tar.TypeDir: tree.Dir, tar.TypeSymlink: tree.Symlink, tar.TypeLink: tree.Hardlink,
	tar.TypeChar: tree.CharDev, tar.TypeBlock: tree.BlockDev, tar.TypeFifo: tree.Fifo,
}

// readTar calls f for every entry but the root.
func readTar(r io.Reader, f func(member, io.Reader) error) error {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		kind, ok := tarTypes[h.Typeflag]
		if !ok {
			return fmt.Errorf("%s: entry of unknown type %q", h.Name, h.Typeflag)
		}
		p := mergeUsr(tree.Clean(h.Name))
		if p == "" {
			continue
		}
		m := member{
			Path: p, Type: kind, Mode: uint32(h.Mode) & 0o7777, UID: h.Uid, GID: h.Gid,
			Major: uint32(h.Devmajor), Minor: uint32(h.Devminor), Size: h.Size,
		}
		switch kind {
		case tree.Symlink:
			m.Link = h.Linkname
			if mergedDir(p) {
				continue // base-files' own /bin -> usr/bin
			}
		case tree.Hardlink:
			m.Link = mergeUsr(tree.Clean(h.Linkname))
		case tree.Dir:
			if mergedDir(p) {
				continue
			}
		}
		for k, v := range h.PAXRecords {
			if name, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
				if m.Xattrs == nil {
					m.Xattrs = map[string]string{}
				}
				m.Xattrs[name] = v
			}
		}
		if err := f(m, tr); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

// mergedDirs are links into /usr on a system with merged /usr.
var mergedDirs = []string{"bin", "lib", "lib32", "lib64", "sbin"}

func mergedDir(p string) bool { return slices.Contains(mergedDirs, p) }

// mergeUsr moves what lies in the folders that are links on a merged-/usr system.
func mergeUsr(p string) string {
	top, rest, ok := strings.Cut(p, "/")
	if ok && mergedDir(top) {
		return path.Join("usr", top, rest)
	}
	return p
}
