package kmod

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

type entry struct {
	key, text string
	priority  uint32
}

func encode(t testing.TB, entries []entry) []byte {
	t.Helper()
	x := &trie{}
	for _, e := range entries {
		if err := x.insert(e.key, e.text, e.priority); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := x.write(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestTrieBytes(t *testing.T) {
	const header = "b007f457 00020001 "
	for _, c := range []struct {
		name    string
		entries []entry
		want    string
	}{
		{"empty", nil, header + "0000000c"},
		// "a" leads to a node with the prefix "b" and a value.
		{"one key", []entry{{"ab", "v", 7}}, header + "2000000c" + "6161 c0000012" + "6200 00000001 00000007 7600"},
		{"values by priority, the newest of equals first", []entry{{"a", "x", 2}, {"a", "y", 1}, {"a", "z", 2}}, header + "2000000c" +
			"6161 40000012" + "00000003 00000001 7900 00000002 7a00 00000002 7800"},
		{"a key that ends where another goes on", []entry{{"abc", "v", 0}, {"a", "w", 0}}, header + "2000000c" +
			"6161 60000012" + "6262 c0000022 00000001 00000000 7700" + "6300 00000001 00000000 7600"},
		{"a split prefix", []entry{{"abcd", "v", 0}, {"abef", "w", 0}}, header + "2000000c" +
			"6161 a0000012" + "6200 6365 c0000022 00000000 c000002e" + "6400 00000001 00000000 7600" + "6600 00000001 00000000 7700"},
		{"no text", []entry{{"a", "", 0}}, header + "2000000c" + "6161 40000012" + "00000001 00000000 00"},
	} {
		want, err := hex.DecodeString(strings.ReplaceAll(c.want, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if got := encode(t, c.entries); !bytes.Equal(got, want) {
			t.Errorf("%s\n got %x\nwant %x", c.name, got, want)
		}
	}
}

func TestTrieRefuses(t *testing.T) {
	for _, e := range []entry{{"caf\u00e9", "v", 0}, {"k", "v\x80", 0}, {"k\x00", "v", 0}} {
		if err := new(trie).insert(e.key, e.text, 0); err == nil || !strings.Contains(err.Error(), "7-bit ASCII") {
			t.Errorf("%q: error %v", e.key+e.text, err)
		}
	}
}

// TestTrieHoldsWhatWasInserted decodes tries of random keys, inserted in any order.
func TestTrieHoldsWhatWasInserted(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var entries []entry
		for i := range r.IntN(60) {
			key := make([]byte, 1+r.IntN(8))
			for j := range key {
				key[j] = "ab:\x7f"[r.IntN(4)]
			}
			entries = append(entries, entry{string(key), fmt.Sprint("v", i), uint32(i)})
		}
		b := encode(t, entries)
		r.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
		if !bytes.Equal(encode(t, entries), b) {
			t.Fatalf("the order of insertion shows in the index of %v", entries)
		}
		var got []entry
		decode(t, b, binary.BigEndian.Uint32(b[8:]), "", &got)
		sort := func(l []entry) {
			slices.SortFunc(l, func(a, b entry) int { return int(a.priority) - int(b.priority) })
		}
		sort(got)
		sort(entries)
		if !slices.Equal(got, entries) {
			t.Fatalf("got %v\nwant %v", got, entries)
		}
	}
}

// decode collects the values of the node that ref stands for, and of those below.
func decode(t *testing.T, b []byte, ref uint32, key string, to *[]entry) {
	t.Helper()
	at := ref & offsetMask
	text := func() string {
		n := bytes.IndexByte(b[at:], 0)
		s := string(b[at : at+uint32(n)])
		at += uint32(n) + 1
		return s
	}
	word := func() uint32 { at += 4; return binary.BigEndian.Uint32(b[at-4:]) }
	if ref&nodePrefix != 0 {
		key += text()
	}
	if ref&nodeChildren != 0 {
		first, last := b[at], b[at+1]
		at += 2
		for c := int(first); c <= int(last); c++ {
			if child := word(); child != 0 {
				decode(t, b, child, key+string(rune(c)), to)
			}
		}
	}
	if ref&nodeValues != 0 {
		for n := word(); n > 0; n-- {
			priority := word()
			*to = append(*to, entry{key, text(), priority})
		}
	}
}

func TestNormalizeAlias(t *testing.T) {
	for _, c := range []struct {
		in, want string
		ok       bool
	}{
		{"crypto-aes", "crypto_aes", true},
		{"virtio:d0000000[0-9]v-*", "virtio:d0000000[0-9]v_*", true},
		{"a[", "", false},
		{"a]", "", false},
		{"", "", true},
	} {
		if got, ok := normalizeAlias(c.in); got != c.want || ok != c.ok {
			t.Errorf("%q: %q, %v", c.in, got, ok)
		}
	}
}
