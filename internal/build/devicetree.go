package build

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Words of the header of a flattened device tree (the Devicetree Specification, 5.2) and
// of its memory reservation block (5.3).
const (
	fdtMagic      = 0xd00dfeed
	fdtHeaderSize = 40
	fdtReserved   = 16 // where the offset of the block stands
	fdtEntrySize  = 16 // address and size, of 64 bits each; two zeros end the block
)

// reserveLowMemory returns a copy of a device tree that reserves the memory up to size,
// instead of the part of it, from address 0, that it reserves so far.
func reserveLowMemory(dtb []byte, size uint64) ([]byte, error) {
	be := binary.BigEndian
	if len(dtb) < fdtHeaderSize || be.Uint32(dtb) != fdtMagic {
		return nil, errors.New("not a device tree")
	}
	for at := int64(be.Uint32(dtb[fdtReserved:])); at+fdtEntrySize <= int64(len(dtb)); at += fdtEntrySize {
		address, old := be.Uint64(dtb[at:]), be.Uint64(dtb[at+8:])
		switch {
		case old == 0:
			return nil, errors.New("the device tree reserves no memory from address 0, which would be extended")
		case address != 0:
			continue
		case old > size:
			return nil, fmt.Errorf("the device tree reserves %d bytes from address 0, more than %d", old, size)
		}
		out := append([]byte{}, dtb...)
		be.PutUint64(out[at+8:], size)
		return out, nil
	}
	return nil, errors.New("the device tree's list of reserved memory has no end")
}
