// Package tree is the in-memory model of a file tree with owners, modes, device
// nodes and extended attributes. Every image Kiln writes (the /usr filesystem,
// the initramfs, container layers) is made from a Tree, so nothing needs root:
// no owner or device node ever touches the build host's filesystem.
package tree

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"sort"
	"strings"
	"time"
)

// Type is the kind of an entry.
type Type byte

// The kinds of entries.
const (
	File Type = iota
	Dir
	Symlink
	Hardlink // Link names another path of the same tree, which is a File
	CharDev
	BlockDev
	Fifo
)

// Content yields a file's bytes as often as it is asked to. Size is in bytes.
type Content interface {
	Open() (io.ReadCloser, error)
	Size() int64
}

// Entry is one path of a Tree.
type Entry struct {
	Type Type
	// Mode holds permission, setuid, setgid and sticky bits as in POSIX: 0o7777 at most.
	Mode     uint32
	UID, GID int
	// Link is a symlink's target (any text) or a hard link's path in the tree.
	Link         string
	Major, Minor uint32
	Xattrs       map[string]string
	Content      Content // files only
}

// Tree maps clean paths without a leading slash ("usr/bin/mount") to entries. The
// root has no entry of its own. Paths are kept as they are given: the caller
// resolves usr-merge links.
type Tree struct {
	entries map[string]*Entry
}

// New returns an empty Tree.
func New() *Tree { return &Tree{entries: map[string]*Entry{}} }

// Clean brings a path into the form the Tree uses; "" is the root.
func Clean(p string) string {
	p = path.Clean("/" + p)
	return strings.TrimPrefix(p, "/")
}

// Set puts e at p and makes missing parent folders (root:root 0755).
func (t *Tree) Set(p string, e *Entry) {
	p = Clean(p)
	if p == "" {
		return
	}
	for d := path.Dir(p); d != "."; d = path.Dir(d) {
		if t.entries[d] != nil {
			break
		}
		t.entries[d] = &Entry{Type: Dir, Mode: 0o755}
	}
	t.entries[p] = e
}

// Get returns the entry at p without following links, or nil.
func (t *Tree) Get(p string) *Entry { return t.entries[Clean(p)] }

// Delete removes p and everything below it. It does nothing if p is absent.
func (t *Tree) Delete(p string) {
	p = Clean(p)
	delete(t.entries, p)
	for k := range t.entries {
		if strings.HasPrefix(k, p+"/") {
			delete(t.entries, k)
		}
	}
}

// Paths returns all paths, sorted bytewise by component, so that a folder comes
// before what is in it.
func (t *Tree) Paths() []string {
	ps := make([]string, 0, len(t.entries))
	for p := range t.entries {
		ps = append(ps, p)
	}
	sort.Slice(ps, func(i, j int) bool { return sortKey(ps[i]) < sortKey(ps[j]) })
	return ps
}

// sortKey makes '/' sort below every other byte.
func sortKey(p string) string { return strings.ReplaceAll(p, "/", "\x00") }

// Walk calls f for every entry in the order of Paths.
func (t *Tree) Walk(f func(p string, e *Entry) error) error {
	for _, p := range t.Paths() {
		if err := f(p, t.entries[p]); err != nil {
			return err
		}
	}
	return nil
}

// Len returns the number of entries.
func (t *Tree) Len() int { return len(t.entries) }

// AddFile puts a regular file with the given bytes at p, owned by root.
func (t *Tree) AddFile(p string, mode uint32, data []byte) {
	t.Set(p, &Entry{Type: File, Mode: mode, Content: Bytes(data)})
}

// AddDir puts a folder at p, owned by root.
func (t *Tree) AddDir(p string, mode uint32) { t.Set(p, &Entry{Type: Dir, Mode: mode}) }

// AddSymlink puts a symbolic link at p.
func (t *Tree) AddSymlink(p, target string) {
	t.Set(p, &Entry{Type: Symlink, Mode: 0o777, Link: target})
}

// Resolve follows symbolic links in every component of p, within the tree, and
// returns the path that they lead to. It fails on a loop; a missing path is not
// an error: the rest is returned as it is.
func (t *Tree) Resolve(p string) (string, error) {
	rest := strings.Split(Clean(p), "/")
	cur := ""
	for hops := 0; len(rest) > 0; {
		c := rest[0]
		rest = rest[1:]
		switch c {
		case "", ".":
			continue
		case "..":
			cur = Clean(path.Dir("/" + cur))
			continue
		}
		next := Clean(cur + "/" + c)
		e := t.entries[next]
		if e == nil || e.Type != Symlink {
			cur = next
			continue
		}
		if hops++; hops > 40 {
			return "", fmt.Errorf("%s: too many levels of symbolic links", p)
		}
		if strings.HasPrefix(e.Link, "/") {
			cur = ""
		}
		rest = append(strings.Split(e.Link, "/"), rest...)
	}
	return cur, nil
}

// Lookup follows links and returns the resolved path and its entry, or an error
// that names p if nothing is there. A hard link yields the file it names.
func (t *Tree) Lookup(p string) (string, *Entry, error) {
	r, err := t.Resolve(p)
	if err != nil {
		return "", nil, err
	}
	e := t.entries[r]
	if e != nil && e.Type == Hardlink {
		r = Clean(e.Link)
		e = t.entries[r]
	}
	if e == nil {
		return "", nil, fmt.Errorf("no %s in the tree", p)
	}
	return r, e, nil
}

// ReadFile returns the bytes of the regular file at p, following links.
func (t *Tree) ReadFile(p string) ([]byte, error) {
	r, e, err := t.Lookup(p)
	if err != nil {
		return nil, err
	}
	if e.Type != File {
		return nil, fmt.Errorf("%s is not a regular file", r)
	}
	f, err := e.Content.Open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// Bytes is Content held in memory.
type Bytes []byte

// Open implements Content.
func (b Bytes) Open() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }

// Size implements Content.
func (b Bytes) Size() int64 { return int64(len(b)) }

// HostFile is Content in a file of the build host, or a section of one.
type HostFile struct {
	Path        string
	Offset, Len int64
}

// NewHostFile returns the whole file at path as Content.
func NewHostFile(path string) (HostFile, error) {
	st, err := os.Stat(path)
	if err != nil {
		return HostFile{}, err
	}
	return HostFile{Path: path, Len: st.Size()}, nil
}

type sectionCloser struct {
	*io.SectionReader
	io.Closer
}

// Open implements Content.
func (h HostFile) Open() (io.ReadCloser, error) {
	f, err := os.Open(h.Path)
	if err != nil {
		return nil, err
	}
	return sectionCloser{io.NewSectionReader(f, h.Offset, h.Len), f}, nil
}

// Size implements Content.
func (h HostFile) Size() int64 { return h.Len }

// WriteTar writes the tree as a PAX tar stream: every entry with the time mtime,
// numeric owners, and files before the hard links that name them. It does not
// close the stream's writer. Names carry no "./" prefix.
func (t *Tree) WriteTar(w io.Writer, mtime time.Time) error {
	tw := tar.NewWriter(w)
	var links []string
	for _, p := range t.Paths() {
		if t.entries[p].Type == Hardlink {
			links = append(links, p)
			continue
		}
		if err := t.writeTarEntry(tw, p, mtime); err != nil {
			return fmt.Errorf("tar %s: %w", p, err)
		}
	}
	for _, p := range links {
		if err := t.writeTarEntry(tw, p, mtime); err != nil {
			return fmt.Errorf("tar %s: %w", p, err)
		}
	}
	return tw.Close()
}

func (t *Tree) writeTarEntry(tw *tar.Writer, p string, mtime time.Time) error {
	e := t.entries[p]
	h := &tar.Header{
		Name: p, Mode: int64(e.Mode), Uid: e.UID, Gid: e.GID, ModTime: mtime.Truncate(time.Second),
		Linkname: e.Link, Devmajor: int64(e.Major), Devminor: int64(e.Minor), Format: tar.FormatPAX,
	}
	switch e.Type {
	case File:
		h.Typeflag, h.Linkname, h.Size = tar.TypeReg, "", e.Content.Size()
	case Dir:
		h.Typeflag, h.Name, h.Linkname = tar.TypeDir, p+"/", ""
	case Symlink:
		h.Typeflag = tar.TypeSymlink
	case Hardlink:
		h.Typeflag, h.Linkname = tar.TypeLink, Clean(e.Link)
	case CharDev:
		h.Typeflag = tar.TypeChar
	case BlockDev:
		h.Typeflag = tar.TypeBlock
	case Fifo:
		h.Typeflag = tar.TypeFifo
	default:
		return fmt.Errorf("unknown entry type %d", e.Type)
	}
	for k, v := range e.Xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+k] = v
	}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	if e.Type != File {
		return nil
	}
	r, err := e.Content.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	n, err := io.Copy(tw, r)
	if err == nil && n != e.Content.Size() {
		err = fmt.Errorf("file has %d bytes, expected %d", n, e.Content.Size())
	}
	return err
}
