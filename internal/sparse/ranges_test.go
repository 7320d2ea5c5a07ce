package sparse

import (
	"encoding/binary"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func ranges(all ...extent) (b []byte) {
	for _, e := range all {
		b = append(b, rangeQuery(e.at, e.len)...)
	}
	return b
}

func TestParseRanges(t *testing.T) {
	const size = 1 << 20
	for name, c := range map[string]struct {
		b    []byte
		from int64
		want []extent
		err  string
	}{
		"none":                       {nil, 0, nil, ""},
		"some":                       {ranges(extent{0, 65536}, extent{131072, 65536}), 0, []extent{{0, 65536}, {131072, 65536}}, ""},
		"clusters at the end":        {ranges(extent{size - 10, 4096}), 0, []extent{{size - 10, 10}}, ""},
		"behind the end":             {ranges(extent{size, 4096}), 0, nil, ""},
		"half of one":                {ranges(extent{0, 1})[:8], 0, nil, "8 bytes"},
		"before what was asked":      {ranges(extent{0, 4096}), 4096, nil, "after byte 4096"},
		"backwards":                  {ranges(extent{65536, 65536}, extent{0, 65536}), 0, nil, "at byte 0, after byte 131072"},
		"overlapping":                {ranges(extent{0, 65536}, extent{65535, 1}), 0, nil, "at byte 65535"},
		"empty":                      {ranges(extent{0, 0}), 0, nil, "0 bytes at byte 0"},
		"negative":                   {ranges(extent{0, -1}), 0, nil, "-1 bytes"},
		"far behind the end":         {ranges(extent{size + 1, 1}), 0, nil, "at byte 1048577"},
		"longer than files can have": {ranges(extent{0, 1<<62 + 1}), 0, nil, "bytes at byte 0"},
	} {
		got, err := parseRanges(c.b, c.from, size)
		if c.err == "" && (err != nil || !reflect.DeepEqual(got, c.want)) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %v, %v, want %v %s", name, got, err, c.want, c.err)
		}
	}
}

// TestAskRanges asks what answers like Windows, with little room.
func TestAskRanges(t *testing.T) {
	const size = 100<<20 + 5
	all := []extent{{0, 65536}, {10 << 20, 1 << 20}, {11 << 20, 1 << 20}, {50 << 20, 65536}, {100 << 20, 65536}}
	want := []extent{{0, 65536}, {10 << 20, 2 << 20}, {50 << 20, 65536}, {100 << 20, 5}}
	for room := 1; room <= 6; room++ {
		asked := 0
		got, err := askRanges(size, func(query []byte) ([]byte, bool, error) {
			asked++
			from, n := int64(binary.LittleEndian.Uint64(query)), int64(binary.LittleEndian.Uint64(query[8:]))
			if from+n != size {
				t.Errorf("asked for %d bytes at %d", n, from)
			}
			left := slices.DeleteFunc(slices.Clone(all), func(e extent) bool { return e.at < from })
			return ranges(left[:min(room, len(left))]...), len(left) > room, nil
		})
		if err != nil || !reflect.DeepEqual(got, want) || asked != (len(all)+room-1)/room {
			t.Errorf("room for %d: %v, %v, asked %d times", room, got, err, asked)
		}
	}
	if got, err := askRanges(size, func([]byte) ([]byte, bool, error) { return nil, true, nil }); err == nil {
		t.Errorf("no end: %v", got)
	}
	if got, err := askRanges(size, func([]byte) ([]byte, bool, error) { return nil, false, nil }); err != nil || got != nil {
		t.Errorf("a hole: %v, %v", got, err)
	}
	odd := errors.New("odd")
	if got, err := askRanges(size, func([]byte) ([]byte, bool, error) { return nil, false, odd }); !errors.Is(err, odd) {
		t.Errorf("%v, %v", got, err)
	}
}

// FuzzRanges: parts are in order, do not overlap, and end with the file.
func FuzzRanges(f *testing.F) {
	f.Add(ranges(extent{0, 65536}, extent{131072, 65536}), int64(0), int64(1<<20))
	f.Add([]byte{1, 2, 3}, int64(5), int64(7))
	f.Fuzz(func(t *testing.T, b []byte, from, size int64) {
		if from < 0 || size < 0 {
			return
		}
		out, err := parseRanges(b, from, size)
		if err != nil {
			return
		}
		for _, e := range out {
			if e.at < from || e.len <= 0 || e.at+e.len > size {
				t.Errorf("%+v from %d of %d", e, from, size)
			}
			from = e.at + e.len
		}
	})
}
