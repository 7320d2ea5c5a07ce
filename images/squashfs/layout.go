package squashfs

import (
	"errors"
	"fmt"
	"math"
	"path"
	"strings"

	"github.com/kiln-os/kiln/images/tree"
)

// layout is a checked tree as inodes.
type layout struct {
	root   *inode
	inodes uint32
	files  []*file // in the order of their data, without those of the same inode
	ids    ids
	xattrs xattrs
}

// inode is what one or, for hard links, several names stand for.
type inode struct {
	*tree.Entry
	path     string
	number   uint32
	links    uint32
	uid, gid uint16 // in the id table
	xattr    uint32 // in the xattr id table
	parent   *inode // of a folder
	names    []name // of a folder, sorted
	file     *file  // of a file

	ref     ref // once it is written
	written bool
}

// name is an entry of a folder.
type name struct {
	name  string
	inode *inode
}

// plan makes inodes of t's entries, numbered in the order of their paths.
func plan(t *tree.Tree) (*layout, error) {
	l := &layout{}
	root, err := l.inode("", &tree.Entry{Type: tree.Dir, Mode: 0o755})
	if err != nil {
		return nil, err
	}
	l.root = root
	nodes := map[string]*inode{".": root}
	var hardlinks []string
	err = t.Walk(func(p string, e *tree.Entry) error {
		// Hard links have no inode of their own; the file's may come later.
		if e.Type == tree.Hardlink {
			hardlinks = append(hardlinks, p)
		} else {
			n, err := l.inode(p, e)
			if err != nil {
				return fmt.Errorf("%s: %w", p, err)
			}
			nodes[p] = n
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, p := range hardlinks {
		target := tree.Clean(t.Get(p).Link)
		n := nodes[target]
		if n == nil || n.Type != tree.File {
			return nil, fmt.Errorf("%s: hard link to %s: no regular file of the tree has this path", p, target)
		}
		nodes[p] = n
		n.links++
	}
	for _, p := range t.Paths() {
		if err := link(nodes, p); err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
	}
	return l, nil
}

// inode makes the inode of an entry.
func (l *layout) inode(p string, e *tree.Entry) (*inode, error) {
	if e.Mode > 0o7777 {
		return nil, fmt.Errorf("mode %#o: it has permission bits only, 07777 at most", e.Mode)
	}
	l.inodes++ // numbers begin with 1: 0 is none
	n := &inode{Entry: e, path: p, number: l.inodes, links: 1}
	var err error
	if n.uid, err = l.ids.index(e.UID); err != nil {
		return nil, err
	}
	if n.gid, err = l.ids.index(e.GID); err != nil {
		return nil, err
	}
	if n.xattr, err = l.xattrs.index(e.Xattrs); err != nil {
		return nil, err
	}
	switch e.Type {
	case tree.File:
		if e.Content == nil {
			return nil, errors.New("a regular file without content; an empty one has content of 0 bytes")
		}
		n.file = &file{path: p, content: e.Content, size: e.Content.Size(), fragment: invalidFragment}
		if n.file.size < 0 {
			return nil, fmt.Errorf("a size of %d bytes", n.file.size)
		}
		l.files = append(l.files, n.file)
	case tree.Dir:
		n.links = 2 // its name and "."
	case tree.Symlink:
		if e.Link == "" || len(e.Link) > maxTarget || strings.Contains(e.Link, "\x00") {
			return nil, fmt.Errorf("symbolic link to %.80q with %d bytes: a target has 1 to %d bytes, and no NUL", e.Link, len(e.Link), maxTarget)
		}
	case tree.CharDev, tree.BlockDev:
		if e.Major >= 1<<12 || e.Minor >= 1<<20 {
			return nil, fmt.Errorf("device %d,%d: Linux has 12 bits for the major and 20 for the minor number", e.Major, e.Minor)
		}
	case tree.Fifo:
	default:
		return nil, fmt.Errorf("unknown entry type %d", e.Type)
	}
	return n, nil
}

// link puts the path's last part into its folder. Paths are sorted, so names are.
func link(nodes map[string]*inode, p string) error {
	parent := nodes[path.Dir(p)]
	if parent == nil || parent.Type != tree.Dir {
		return fmt.Errorf("it lies in /%s, which is no folder of the tree", path.Dir(p))
	}
	base := path.Base(p)
	if len(base) > maxName || strings.Contains(base, "\x00") {
		return fmt.Errorf("a name of %d bytes: names have 1 to %d bytes, and no NUL", len(base), maxName)
	}
	n := nodes[p]
	if n.Type == tree.Dir {
		n.parent = parent
		parent.links++ // the folder's ".."
	}
	parent.names = append(parent.names, name{base, n})
	return nil
}

// ids is the table of owners and groups.
type ids struct {
	list    []uint32
	indexes map[int]uint16
}

func (t *ids) index(id int) (uint16, error) {
	if i, ok := t.indexes[id]; ok {
		return i, nil
	}
	if id < 0 || int64(id) > math.MaxUint32 {
		return 0, fmt.Errorf("owner or group %d: it must be a number of 32 bits", id)
	}
	if len(t.list) == maxIDs {
		return 0, fmt.Errorf("owner or group %d is the %dth different one: the format has room for %d", id, maxIDs+1, maxIDs)
	}
	if t.indexes == nil {
		t.indexes = map[int]uint16{}
	}
	i := uint16(len(t.list))
	t.list = append(t.list, uint32(id))
	t.indexes[id] = i
	return i, nil
}
