package kmod

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

// The binary indexes are libkmod's: a trie with compressed paths, in which modprobe
// finds a key without reading the whole file, and follows the wildcards of aliases.
// All integers are big-endian and have 32 bits:
//
//	magic     0xB007F457 ("boot fast")
//	version   major << 16 | minor
//	root      reference to the root node
//	nodes     each before its children, the children in the order of their bytes
//
// A reference is the offset of a node from the start of the file; its upper four
// bits say which of its parts the node has. A reference of 0 is no node. A node is:
//
//	prefix    if nodePrefix: bytes that all keys here go on with, and a zero byte
//	children  if nodeChildren: first byte, last byte, and a reference for each byte
//	          between them; the byte is a part of the key
//	values    if nodeValues: their number, then priority and zero-terminated text
//	          of each, in the order of their priorities
const (
	trieMagic   = 0xB007F457
	trieVersion = 2<<16 | 1

	nodePrefix   = 0x80000000
	nodeValues   = 0x40000000
	nodeChildren = 0x20000000
	offsetMask   = 0x0FFFFFFF

	headerSize = 12
)

// trie is a binary index that is being made.
type trie struct{ root node }

type node struct {
	prefix   string
	children []child // by key
	values   []value // by priority
	// own is the node's size in the file, total that of it and everything below.
	own, total uint32
}

type child struct {
	key byte
	*node
}

type value struct {
	priority uint32
	text     string
}

// insert adds a value to a key. Of values with the same priority the newest comes
// first, as in depmod(8).
func (t *trie) insert(key, text string, priority uint32) error {
	for _, s := range []string{key, text} {
		for i := range len(s) {
			if s[i] == 0 || s[i] > 0x7f {
				return fmt.Errorf("%q: an index holds 7-bit ASCII only", s)
			}
		}
	}
	n := &t.root
	for {
		shared := 0
		for shared < min(len(n.prefix), len(key)) && n.prefix[shared] == key[shared] {
			shared++
		}
		if shared < len(n.prefix) {
			n.split(shared)
		}
		key = key[shared:]
		if key == "" {
			break
		}
		i, ok := slices.BinarySearchFunc(n.children, key[0], func(c child, b byte) int { return cmp.Compare(c.key, b) })
		if !ok {
			n.children = slices.Insert(n.children, i, child{key[0], &node{prefix: key[1:]}})
		}
		n, key = n.children[i].node, key[1:]
	}
	i, _ := slices.BinarySearchFunc(n.values, priority, func(v value, p uint32) int { return cmp.Compare(v.priority, p) })
	n.values = slices.Insert(n.values, i, value{priority, text})
	return nil
}

// split leaves the first length bytes of the prefix in n and moves the rest of the
// node into a child.
func (n *node) split(length int) {
	lower := *n
	lower.prefix = n.prefix[length+1:]
	*n = node{prefix: n.prefix[:length], children: []child{{n.prefix[length], &lower}}}
}

// span is the number of references that n has room for.
func (n *node) span() int {
	if len(n.children) == 0 {
		return 0
	}
	return int(n.children[len(n.children)-1].key) - int(n.children[0].key) + 1
}

// measure sets the sizes of n and everything below. It counts in 64 bits, so that
// an index which is too large for references is noticed.
func (n *node) measure() (total uint64) {
	var own, below uint64
	if n.prefix != "" {
		own += uint64(len(n.prefix)) + 1
	}
	if len(n.children) > 0 {
		own += 2 + 4*uint64(n.span())
		for _, c := range n.children {
			below += c.measure()
		}
	}
	if len(n.values) > 0 {
		own += 4
		for _, v := range n.values {
			own += 4 + uint64(len(v.text)) + 1
		}
	}
	n.own, n.total = uint32(own), uint32(own+below)
	return own + below
}

// reference is what stands in a file for a node at an offset.
func (n *node) reference(offset uint32) uint32 {
	if n.prefix != "" {
		offset |= nodePrefix
	}
	if len(n.children) > 0 {
		offset |= nodeChildren
	}
	if len(n.values) > 0 {
		offset |= nodeValues
	}
	return offset
}

// write writes the index.
func (t *trie) write(w io.Writer) error {
	size := headerSize + t.root.measure()
	if size > offsetMask {
		return fmt.Errorf("%d bytes: an index has %d at most", size, offsetMask)
	}
	b := make([]byte, 0, size)
	b = binary.BigEndian.AppendUint32(b, trieMagic)
	b = binary.BigEndian.AppendUint32(b, trieVersion)
	b = binary.BigEndian.AppendUint32(b, t.root.reference(headerSize))
	_, err := w.Write(t.root.append(b))
	return err
}

// append appends n, whose offset is the length of b, and everything below.
func (n *node) append(b []byte) []byte {
	offset := uint32(len(b)) + n.own
	if n.prefix != "" {
		b = append(append(b, n.prefix...), 0)
	}
	if len(n.children) > 0 {
		first := n.children[0].key
		refs := make([]uint32, n.span())
		for _, c := range n.children {
			refs[c.key-first] = c.reference(offset)
			offset += c.total
		}
		b = append(b, first, n.children[len(n.children)-1].key)
		for _, r := range refs {
			b = binary.BigEndian.AppendUint32(b, r)
		}
	}
	if len(n.values) > 0 {
		b = binary.BigEndian.AppendUint32(b, uint32(len(n.values)))
		for _, v := range n.values {
			b = binary.BigEndian.AppendUint32(b, v.priority)
			b = append(append(b, v.text...), 0)
		}
	}
	for _, c := range n.children {
		b = c.append(b)
	}
	return b
}
