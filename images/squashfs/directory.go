package squashfs

import (
	"fmt"
	"math"
)

// listing is a folder's part of the directory table.
type listing struct {
	start   ref
	size    int // in bytes, and 3 more
	indexes []index
}

// index is where a reader can begin that looks for a name not before this one.
type index struct {
	name   string
	offset int    // of the header, in the listing
	block  uint32 // of the header, in the directory table
}

// list writes a folder's entries: runs of up to 256 whose inodes lie in one
// metadata block and have numbers near each other, each run below a header.
func (t *tables) list(names []name) (listing, error) {
	d := &t.directories
	l := listing{start: d.ref()}
	begin := d.size()
	for len(names) > 0 {
		// A run ends with its metadata block, so that every block of a long listing
		// begins with a header soon, and the index leads there.
		n, block := run(names, metadataSize-d.size()%metadataSize), d.ref().block()
		if off := d.size() - begin; off > 0 && (len(l.indexes) == 0 && block != l.start.block() || len(l.indexes) > 0 && block != l.indexes[len(l.indexes)-1].block) {
			l.indexes = append(l.indexes, index{names[0].name, off, block})
		}
		first := names[0].inode
		d.write(encode(dirHeader{Count: uint32(n - 1), StartBlock: first.ref.block(), InodeNumber: first.number}))
		for _, e := range names[:n] {
			d.write(encode(dirEntry{
				Offset: e.inode.ref.offset(), InodeNumber: int16(int64(e.inode.number) - int64(first.number)),
				Type: typeOf(e.inode), NameSize: uint16(len(e.name) - 1),
			}))
			d.write([]byte(e.name))
		}
		names = names[n:]
	}
	l.size = d.size() - begin + 3
	if len(l.indexes) > maxIndex {
		return l, fmt.Errorf("a listing of %d bytes: the format's index of a folder covers %d", l.size, maxIndex*metadataSize)
	}
	return l, nil
}

// run returns how many of names one header can stand for: at least one, and no
// more than begin in the next room bytes.
func run(names []name, room int) int {
	const headerSize, entrySize = 12, 8
	first, size := names[0].inode, headerSize
	for i, e := range names {
		delta := int64(e.inode.number) - int64(first.number)
		if i == maxDirCount || e.inode.ref.block() != first.ref.block() || delta < math.MinInt16 || delta > math.MaxInt16 || i > 0 && size >= room {
			return i
		}
		size += entrySize + len(e.name)
	}
	return len(names)
}
