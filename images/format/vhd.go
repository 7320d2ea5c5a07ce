package format

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"

	"github.com/kiln-os/kiln/images/disk"
	"github.com/kiln-os/kiln/internal/sparse"
)

// maxVHD is the largest disk in a VHD ("Virtual Hard Disk Image Format
// Specification").
const maxVHD = 2040 * gib

// writeVHD writes a fixed VHD: the disk and a footer. Azure takes disks of whole MiB
// alone.
func writeVHD(ctx context.Context, dst, src *os.File, size int64, o Options) error {
	full := divUp(size, mib) * mib
	if full > maxVHD {
		return fmt.Errorf("%s has %d GiB, and a VHD holds at most %d", src.Name(), size/gib, maxVHD/gib)
	}
	if _, err := sparse.Copy(ctx, dst, src, o.Progress); err != nil {
		return err
	}
	_, err := dst.WriteAt(vhdFooter(full, o), full)
	return err
}

// vhdFooter describes a fixed disk of size bytes.
func vhdFooter(size int64, o Options) []byte {
	be := binary.BigEndian
	b := make([]byte, sector)
	copy(b, "conectix")
	be.PutUint32(b[8:], 2)                                     // features: this bit is always set
	be.PutUint32(b[12:], 0x00010000)                           // version 1.0
	be.PutUint64(b[16:], 1<<64-1)                              // no further header
	be.PutUint32(b[24:], uint32(o.time().Unix()-Epoch.Unix())) // seconds since 2000
	// Readers believe the size of a disk made by "win " and "Wi2k", and compute that
	// of others from the geometry, which is less.
	copy(b[28:], "win ")
	be.PutUint32(b[32:], 0x000a0000)
	copy(b[36:], "Wi2k")
	be.PutUint64(b[40:], uint64(size))
	be.PutUint64(b[48:], uint64(size))
	cylinders, heads, sectors := vhdGeometry(size / sector)
	be.PutUint16(b[56:], cylinders)
	b[58], b[59] = heads, sectors
	be.PutUint32(b[60:], 2) // fixed
	id := disk.DerivedUUID("vhd", o.Name)
	copy(b[68:], id[:])
	sum := uint32(0)
	for _, c := range b {
		sum += uint32(c)
	}
	be.PutUint32(b[64:], ^sum)
	return b
}

// vhdGeometry is the computation in the specification's appendix.
func vhdGeometry(total int64) (cylinders uint16, heads, sectors uint8) {
	total = min(total, 65535*16*255)
	var s, h, rest int64
	if total >= 65535*16*63 {
		s, h = 255, 16
		rest = total / s
	} else {
		s = 17
		rest = total / s
		h = max((rest+1023)/1024, 4)
		if rest >= h*1024 || h > 16 {
			s, h = 31, 16
			rest = total / s
		}
		if rest >= h*1024 {
			s, h = 63, 16
			rest = total / s
		}
	}
	return uint16(rest / h), uint8(h), uint8(s)
}
