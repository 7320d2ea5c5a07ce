package squashfs

import (
	"fmt"
	"math"

	"github.com/kiln-os/kiln/images/tree"
)

// tables are the inode table and the directory table. A folder's listing tells
// where its entries' inodes lie, so they are written first, its own inode after them.
type tables struct {
	mtime       uint32
	noParent    uint32 // the root's parent: a number that no inode has, and not 0, which readers take for damage
	inodes      metadata
	directories metadata
}

// add writes a folder and all below it.
func (t *tables) add(dir *inode) error {
	for _, e := range dir.names {
		if e.inode.Type == tree.Dir {
			if err := t.add(e.inode); err != nil {
				return err
			}
		}
	}
	// The folder's files side by side: entries whose inodes share a metadata block share a header.
	for _, e := range dir.names {
		if n := e.inode; n.Type != tree.Dir && !n.written {
			t.put(n, t.encode(n))
		}
	}
	list, err := t.list(dir.names)
	if err != nil {
		return fmt.Errorf("/%s: %w", dir.path, err)
	}
	t.put(dir, t.encodeDir(dir, list))
	return nil
}

func (t *tables) put(n *inode, b []byte) {
	n.ref, n.written = t.inodes.ref(), true
	t.inodes.write(b)
}

// base is the head of every inode. Only inodes with extended attributes, and
// those that need more room, are extended.
func (t *tables) base(n *inode, isExtended bool) baseInode {
	b := baseInode{Type: typeOf(n), Mode: uint16(n.Mode), UID: n.uid, GID: n.gid, Mtime: t.mtime, Number: n.number}
	if isExtended {
		b.Type += extended
	}
	return b
}

func typeOf(n *inode) uint16 {
	switch n.Type {
	case tree.Dir:
		return typeDir
	case tree.Symlink:
		return typeSymlink
	case tree.BlockDev:
		return typeBlockDev
	case tree.CharDev:
		return typeCharDev
	case tree.Fifo:
		return typeFifo
	default: // plan lets no other through
		return typeFile
	}
}

// encode returns the inode of anything but a folder.
func (t *tables) encode(n *inode) []byte {
	hasXattr := n.xattr != invalidXattr
	var b []byte
	switch n.Type {
	case tree.File:
		return t.encodeFile(n)
	case tree.Symlink:
		b = encode(symlinkInode{t.base(n, hasXattr), n.links, uint32(len(n.Link))})
		b = append(b, n.Link...)
	case tree.CharDev, tree.BlockDev:
		// The kernel's new_encode_dev: the minor number has its lower 8 and its upper 12 bits around the major's.
		device := n.Minor&0xff | n.Major<<8 | n.Minor&^0xff<<12
		b = encode(deviceInode{t.base(n, hasXattr), n.links, device})
	default:
		b = encode(fifoInode{t.base(n, hasXattr), n.links})
	}
	if hasXattr {
		b = appendTo(b, n.xattr)
	}
	return b
}

func (t *tables) encodeFile(n *inode) []byte {
	f := n.file.stored()
	var b []byte
	if n.xattr != invalidXattr || n.links > 1 || f.sparse > 0 || f.start > math.MaxUint32 || f.size > math.MaxUint32 {
		b = encode(extendedFileInode{
			baseInode: t.base(n, true), StartBlock: f.start, FileSize: uint64(f.size), Sparse: f.sparse, Links: n.links,
			Fragment: f.fragment, Offset: f.offset, Xattr: n.xattr,
		})
	} else {
		b = encode(fileInode{
			baseInode: t.base(n, false), StartBlock: uint32(f.start), Fragment: f.fragment, Offset: f.offset, FileSize: uint32(f.size),
		})
	}
	return appendTo(b, f.blocks)
}

func (t *tables) encodeDir(n *inode, l listing) []byte {
	parent := t.noParent
	if n.parent != nil {
		parent = n.parent.number
	}
	if n.xattr == invalidXattr && len(l.indexes) == 0 && l.size <= math.MaxUint16 {
		return encode(dirInode{
			baseInode: t.base(n, false), StartBlock: l.start.block(), Links: n.links,
			FileSize: uint16(l.size), Offset: l.start.offset(), Parent: parent,
		})
	}
	b := encode(extendedDirInode{
		baseInode: t.base(n, true), Links: n.links, FileSize: uint32(l.size), StartBlock: l.start.block(),
		Parent: parent, Indexes: uint16(len(l.indexes)), Offset: l.start.offset(), Xattr: n.xattr,
	})
	for _, i := range l.indexes {
		b = appendTo(b, dirIndex{Index: uint32(i.offset), StartBlock: i.block, NameSize: uint32(len(i.name) - 1)})
		b = append(b, i.name...)
	}
	return b
}
