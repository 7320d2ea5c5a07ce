package deb

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/xi2/xz"

	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/cache"
)

// member is an entry of a package as it is kept in the cache.
type member struct {
	Path         string            `json:"p"`
	Type         tree.Type         `json:"t"`
	Mode         uint32            `json:"m"`
	UID          int               `json:"u,omitempty"`
	GID          int               `json:"g,omitempty"`
	Link         string            `json:"l,omitempty"`
	Major        uint32            `json:"a,omitempty"`
	Minor        uint32            `json:"i,omitempty"`
	Offset, Size int64             // of a file's bytes in the data file
	Xattrs       map[string]string `json:"x,omitempty"`
}

const (
	dataFile  = "data"
	indexFile = "index.json"
)

// unpackVersion changes when what is kept of a package changes.
const unpackVersion = "3"

// Unpack returns the tree of all packages of the lock, whose files Fetch
// returned. Folders merge; a file that two packages bring is an error, as without
// maintainer scripts nothing diverts it. /bin, /sbin, /lib and /lib64 are merged
// into /usr. File contents stay in the cache.
func Unpack(ctx context.Context, c *cache.Cache, l *Lock, files []string) (*tree.Tree, error) {
	lists := make([][]member, len(files))
	datas := make([]string, len(files))
	errs := make([]error, len(files))
	var wg sync.WaitGroup
	work := make(chan int)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := range work {
				lists[i], datas[i], errs[i] = unpacked(ctx, c, l.Packages[i], files[i])
			}
		})
	}
	for i := range files {
		work <- i
	}
	close(work)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	t, owner := tree.New(), map[string]string{}
	for i, list := range lists {
		for _, m := range list {
			e := &tree.Entry{
				Type: m.Type, Mode: m.Mode, UID: m.UID, GID: m.GID, Link: m.Link, Major: m.Major, Minor: m.Minor, Xattrs: m.Xattrs,
			}
			if m.Type == tree.File {
				e.Content = tree.HostFile{Path: datas[i], Offset: m.Offset, Len: m.Size}
			}
			name := l.Packages[i].Name
			if have := t.Get(m.Path); have != nil {
				if have.Type == tree.Dir && m.Type == tree.Dir {
					continue
				}
				if have.Type == tree.Symlink && m.Type == tree.Symlink && have.Link == m.Link {
					continue
				}
				if by := owner[m.Path]; by != "" {
					return nil, fmt.Errorf("/%s is in package %s and in package %s", m.Path, by, name)
				}
			}
			t.Set(m.Path, e)
			owner[m.Path] = name
		}
	}
	for _, d := range mergedDirs {
		if t.Get("usr/"+d) != nil {
			t.AddSymlink(d, "usr/"+d)
		}
	}
	return t, nil
}

// unpacked returns the members of a package and the file with their bytes.
func unpacked(ctx context.Context, c *cache.Cache, p LockedPackage, file string) ([]member, string, error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	key := cache.Key("deb", unpackVersion, p.SHA256)
	dir, err := c.Dir("unpacked", key, func(tmp string) error { return unpackTo(file, tmp) })
	if err != nil {
		return nil, "", fmt.Errorf("unpack package %s %s: %w", p.Name, p.Version, err)
	}
	b, err := os.ReadFile(filepath.Join(dir, indexFile))
	if err != nil {
		return nil, "", err
	}
	var list []member
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, "", fmt.Errorf("package %s: %s: %w", p.Name, dir, err)
	}
	return list, filepath.Join(dir, dataFile), nil
}

func unpackTo(file, dir string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := dataTar(bufio.NewReaderSize(f, 1<<20))
	if err != nil {
		return err
	}
	out, err := os.Create(filepath.Join(dir, dataFile))
	if err != nil {
		return err
	}
	defer out.Close()
	w := bufio.NewWriterSize(out, 1<<20)
	var (
		list []member
		size int64
	)
	err = readTar(r, func(m member, content io.Reader) error {
		if m.Type == tree.File {
			m.Offset = size
			n, err := io.Copy(w, content)
			if err != nil {
				return err
			}
			size += n
		}
		list = append(list, m)
		return nil
	})
	if err != nil {
		return err
	}
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	if err := errors.Join(w.Flush(), out.Sync(), out.Close()); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, indexFile), b, 0o600)
}

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
var mergedDirs = []string{"bin", "lib", "lib64", "sbin"}

func mergedDir(p string) bool { return slices.Contains(mergedDirs, p) }

// mergeUsr moves what lies in the folders that are links on a merged-/usr system.
func mergeUsr(p string) string {
	top, rest, ok := strings.Cut(p, "/")
	if ok && mergedDir(top) {
		return path.Join("usr", top, rest)
	}
	return p
}
