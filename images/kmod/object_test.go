package kmod

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"reflect"
	"strings"
	"testing"
)

var (
	classes = []elf.Class{elf.ELFCLASS32, elf.ELFCLASS64}
	orders  = []binary.ByteOrder{binary.LittleEndian, binary.BigEndian}
)

// variants are small modules of every class and byte order.
func variants() []testModule {
	var list []testModule
	for _, class := range classes {
		for _, order := range orders {
			list = append(list, testModule{
				class: class, order: order,
				info:     []string{"license=GPL", "alias=a=b", "depends=x", "softdep=pre: c", "weakdep=d", "alias"},
				crcs:     []string{"one", "two"},
				strings:  []string{"ignored"},
				needs:    []string{"printk", "kmalloc"},
				weak:     []string{"maybe"},
				versions: []string{"module_layout", "kmalloc"},
			})
		}
	}
	return list
}

func TestParseObject(t *testing.T) {
	want := object{
		info:    []field{{"alias", "a=b"}, {"softdep", "pre: c"}, {"weakdep", "d"}},
		exports: []string{"one", "two"},
		needs:   []string{"printk", "kmalloc", "maybe", "module_layout"},
	}
	for _, m := range variants() {
		for _, ext := range []string{".ko", ".gz", ".xz", ".zst"} {
			var r reader
			b, err := r.decompress(bytes.NewReader(compress(t, ext, m.bytes())), ext)
			if err != nil {
				t.Fatal(err)
			}
			got, err := parseObject(b)
			if err != nil {
				t.Fatalf("%s, %s: %v", m.class, m.order, err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s, %s, %s:\n got %+v\nwant %+v", m.class, m.order, ext, got, want)
			}
			r.close()
		}
	}
}

// TestReaderIsReused reads good modules behind damaged ones, as readModules does.
func TestReaderIsReused(t *testing.T) {
	var r reader
	defer r.close()
	want := testModule{crcs: []string{"one"}}.bytes()
	for _, ext := range []string{".xz", ".zst", ".gz", ".ko"} {
		whole := compress(t, ext, want)
		for _, in := range [][]byte{whole, whole[:len(whole)/2], nil, whole} {
			got, err := r.decompress(bytes.NewReader(in), ext)
			if len(in) == len(whole) && (err != nil || !bytes.Equal(got, want)) {
				t.Errorf("%s: %d bytes, error %v", ext, len(got), err)
			}
			if len(in) != len(whole) && err == nil && ext != ".ko" && len(in) > 0 {
				t.Errorf("%s: no error for %d bytes of %d", ext, len(in), len(whole))
			}
		}
	}
}

// zeros never ends, as what a small compressed file stands for may not.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestModuleSizeIsBounded(t *testing.T) {
	var r reader
	if _, err := r.decompress(zeros{}, ".ko"); err == nil || !strings.Contains(err.Error(), "larger than 256 MiB") {
		t.Errorf("error %v", err)
	}
}

// FuzzReadModule wants any bytes to be a module or an error, and what a module has
// to be fit for indexes, in which zero bytes end strings.
func FuzzReadModule(f *testing.F) {
	exts := []string{".ko", ".xz", ".zst", ".gz"}
	for _, m := range variants() {
		f.Add(uint8(0), m.bytes())
	}
	for i, ext := range exts {
		f.Add(uint8(i), compress(f, ext, testModule{info: []string{"alias=x"}}.bytes()))
	}
	f.Fuzz(func(t *testing.T, ext uint8, b []byte) {
		var r reader
		defer r.close()
		b, err := r.decompress(bytes.NewReader(b), exts[int(ext)%len(exts)])
		if err != nil {
			return
		}
		o, err := parseObject(b)
		if err != nil {
			return
		}
		names := append(append([]string{}, o.exports...), o.needs...)
		for _, i := range o.info {
			names = append(names, i.key+"="+i.value)
		}
		for _, n := range names {
			if n == "" || strings.Contains(n, "\x00") {
				t.Errorf("name %q", n)
			}
		}
	})
}
