package deb

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"sync"

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
		name := l.Packages[i].Name
		for _, m := range list {
			if err := place(t, owner, name, m, datas[i]); err != nil {
				return nil, err
			}
		}
	}
	for _, d := range mergedDirs {
		if t.Get("usr/"+d) != nil {
			t.AddSymlink(d, "usr/"+d)
		}
	}
	return t, nil
}

// place adds a package's entry to the tree. owner says which package a path is from.
func place(t *tree.Tree, owner map[string]string, name string, m member, data string) error {
	// A folder of one package may be a link in another; dpkg would follow it or
	// refuse, depending on the order. No package of Debian's should rely on that.
	for dir := path.Dir(m.Path); dir != "."; dir = path.Dir(dir) {
		e := t.Get(dir)
		if e == nil {
			continue
		}
		if e.Type != tree.Dir {
			return fmt.Errorf("/%s of package %s lies below /%s, which is not a folder in package %s", m.Path, name, dir, owner[dir])
		}
		break
	}
	if have := t.Get(m.Path); have != nil {
		switch {
		case have.Type == tree.Dir && m.Type == tree.Dir && owner[m.Path] != "":
			return nil
		case have.Type == tree.Dir && m.Type == tree.Dir:
			// Made as a parent, without the mode that it has here.
		case have.Type == tree.Symlink && m.Type == tree.Symlink && have.Link == m.Link:
			return nil
		default:
			return fmt.Errorf("/%s is in package %s and in package %s", m.Path, owner[m.Path], name)
		}
	}
	e := &tree.Entry{
		Type: m.Type, Mode: m.Mode, UID: m.UID, GID: m.GID, Link: m.Link, Major: m.Major, Minor: m.Minor, Xattrs: m.Xattrs,
	}
	if m.Type == tree.File {
		e.Content = tree.HostFile{Path: data, Offset: m.Offset, Len: m.Size}
	}
	t.Set(m.Path, e)
	owner[m.Path] = name
	return nil
}

// unpacked returns the members of a package and the file with their bytes.
func unpacked(ctx context.Context, c *cache.Cache, p LockedPackage, file string) ([]member, string, error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	key := cache.Key("deb", unpackVersion, p.SHA256)
	dir, err := c.Dir(ctx, "unpacked", key, func(tmp string) error { return unpackTo(file, tmp) })
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
