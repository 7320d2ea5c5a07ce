package kmod

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"
)

// hashOrder returns the keys in the order in which libkmod's hash table of that
// many buckets (a power of two) lists them: by bucket, then by bytes. It is the
// order of modules.symbols, and of modules that modules.order does not have.
func hashOrder[V any](table map[string]V, buckets uint32) []string {
	bucket := make(map[string]uint32, len(table))
	for k := range table {
		bucket[k] = superFastHash(k) & (buckets - 1)
	}
	return slices.SortedFunc(maps.Keys(table), func(a, b string) int {
		if d := int(bucket[a]) - int(bucket[b]); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
}

// superFastHash is Paul Hsieh's hash function of that name, as libkmod has it on
// a little-endian machine.
func superFastHash(s string) uint32 {
	word := func(i int) uint32 { return uint32(binary.LittleEndian.Uint16([]byte(s[i : i+2]))) }
	h := uint32(len(s))
	for ; len(s) >= 4; s = s[4:] {
		h += word(0)
		h = h<<16 ^ word(2)<<11 ^ h
		h += h >> 11
	}
	switch len(s) {
	case 3:
		h += word(0)
		h ^= h << 16
		h ^= uint32(s[2]) << 18
		h += h >> 11
	case 2:
		h += word(0)
		h ^= h << 11
		h += h >> 17
	case 1:
		h += uint32(s[0])
		h ^= h << 10
		h += h >> 1
	}
	h ^= h << 3
	h += h >> 5
	h ^= h << 4
	h += h >> 17
	h ^= h << 25
	h += h >> 6
	return h
}
