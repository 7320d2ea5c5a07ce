package squashfs

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// xattrPrefixes are the name spaces that the format knows, at their numbers.
// There is none for POSIX ACLs (system.).
var xattrPrefixes = []string{"user.", "trusted.", "security."}

// xattrs collects the sets of extended attributes. Entries with the same set share it.
type xattrs struct {
	sets    []xattrSet
	indexes map[string]uint32 // by the set's bytes
}

type xattrSet struct {
	bytes []byte
	count uint32
}

// index returns the number of a set in the xattr id table.
func (x *xattrs) index(attrs map[string]string) (uint32, error) {
	if len(attrs) == 0 {
		return invalidXattr, nil
	}
	s := xattrSet{count: uint32(len(attrs))}
	for _, k := range slices.Sorted(maps.Keys(attrs)) {
		prefix := slices.IndexFunc(xattrPrefixes, func(p string) bool { return strings.HasPrefix(k, p) })
		if prefix < 0 {
			return 0, fmt.Errorf("extended attribute %q: squashfs stores %s only", k, strings.Join(xattrPrefixes, " "))
		}
		// The limits of xattr(7): XATTR_NAME_MAX and XATTR_SIZE_MAX.
		name, value := strings.TrimPrefix(k, xattrPrefixes[prefix]), attrs[k]
		if name == "" || len(k) > 255 || strings.Contains(k, "\x00") {
			return 0, fmt.Errorf("extended attribute %.80q: a name has up to 255 bytes, some of them after the prefix, and no NUL", k)
		}
		if len(value) > 1<<16 {
			return 0, fmt.Errorf("extended attribute %s of %d bytes: Linux allows 65536", k, len(value))
		}
		s.bytes = appendTo(s.bytes, xattrEntry{Type: uint16(prefix), NameSize: uint16(len(name))})
		s.bytes = append(s.bytes, name...)
		s.bytes = appendTo(s.bytes, uint32(len(value)))
		s.bytes = append(s.bytes, value...)
	}
	i, ok := x.indexes[string(s.bytes)]
	if !ok {
		if x.indexes == nil {
			x.indexes = map[string]uint32{}
		}
		i = uint32(len(x.sets))
		x.indexes[string(s.bytes)] = i
		x.sets = append(x.sets, s)
	}
	return i, nil
}

// write writes the sets and the xattr id table and returns where the latter lies.
func (x *xattrs) write(w *output, enc *zstd.Encoder) (uint64, error) {
	if len(x.sets) == 0 {
		return invalidTable, nil
	}
	m := metadata{enc: enc}
	var entries []byte
	for _, s := range x.sets {
		entries = appendTo(entries, xattrID{Xattr: uint64(m.ref()), Count: s.count, Size: uint32(len(s.bytes))})
		m.write(s.bytes)
	}
	head := encode(xattrIDTable{TableStart: w.pos, IDs: uint32(len(x.sets))})
	if err := w.write(m.finish()); err != nil {
		return 0, err
	}
	return writeLookupTable(w, enc, entries, head)
}
