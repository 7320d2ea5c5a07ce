package build

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

// deviceTree is a header and the reservations, pairs of address and size.
func deviceTree(reservations ...uint64) []byte {
	b := make([]byte, fdtHeaderSize)
	binary.BigEndian.PutUint32(b, fdtMagic)
	binary.BigEndian.PutUint32(b[fdtReserved:], fdtHeaderSize)
	for _, v := range reservations {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b
}

func TestReserveLowMemory(t *testing.T) {
	for _, tc := range []struct {
		name string
		dtb  []byte
		want []byte
		err  string
	}{
		{"one", deviceTree(0, 0x1000, 0, 0), deviceTree(0, 4<<20, 0, 0), ""},
		{"second", deviceTree(1<<30, 0x1000, 0, 0x1000, 0, 0), deviceTree(1<<30, 0x1000, 0, 4<<20, 0, 0), ""},
		{"the same again", deviceTree(0, 4<<20, 0, 0), deviceTree(0, 4<<20, 0, 0), ""},
		{"none", deviceTree(0, 0), nil, "reserves no memory from address 0"},
		{"elsewhere", deviceTree(1<<30, 0x1000, 0, 0), nil, "reserves no memory from address 0"},
		{"more", deviceTree(0, 8<<20, 0, 0), nil, "reserves 8388608 bytes from address 0, more than 4194304"},
		{"no end", deviceTree(1<<30, 0x1000), nil, "has no end"},
		{"cut off", deviceTree()[:fdtHeaderSize-1], nil, "not a device tree"},
		{"a program", []byte(strings.Repeat("MZ", 40)), nil, "not a device tree"},
	} {
		before := bytes.Clone(tc.dtb)
		got, err := reserveLowMemory(tc.dtb, 4<<20)
		if tc.err == "" && (err != nil || !bytes.Equal(got, tc.want)) {
			t.Errorf("%s: %x, %v; want %x", tc.name, got, err, tc.want)
		}
		if tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
			t.Errorf("%s: %x, %v; want %q", tc.name, got, err, tc.err)
		}
		if !bytes.Equal(tc.dtb, before) {
			t.Errorf("%s: the device tree given was changed", tc.name)
		}
	}
}

func FuzzReserveLowMemory(f *testing.F) {
	f.Add(deviceTree(0, 0x1000, 0, 0))
	f.Add(deviceTree(1<<30, 0x1000))
	f.Fuzz(func(t *testing.T, dtb []byte) {
		if out, err := reserveLowMemory(dtb, 4<<20); err == nil && len(out) != len(dtb) {
			t.Errorf("%d bytes became %d", len(dtb), len(out))
		}
	})
}
