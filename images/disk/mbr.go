package disk

import (
	"encoding/binary"

	"github.com/diskfs/go-diskfs/partition/gpt"
)

// Types of partitions in a master boot record.
const (
	mbrFAT32      = 0x0c // with logical block addresses
	mbrProtective = 0xee
)

// hybridMBR is the first sector of a disk of size bytes that lists a FAT32 partition
// and protects the rest. The first entry is the partition, since the boot ROM of a
// Raspberry Pi 3 looks there. Linux and U-Boot take the disk for one with a GUID
// partition table if a protective entry begins at sector 1, at the table's header.
//
// What rewrites the table leaves such a record alone: systemd-repart and sfdisk
// (libfdisk), sgdisk, and Table.Remove.
func hybridMBR(fat *gpt.Partition, size int64) []byte {
	b := make([]byte, sector)
	end := size / sector
	for i, e := range []struct {
		status, kind byte
		first, count int64
	}{
		{0x80, mbrFAT32, int64(fat.Start), int64(fat.End - fat.Start + 1)},
		{0, mbrProtective, 1, int64(fat.Start) - 1},
		{0, mbrProtective, int64(fat.End) + 1, end - int64(fat.End) - 1},
	} {
		r := b[446+16*i:]
		r[0], r[4] = e.status, e.kind
		copy(r[1:4], chs(e.first))
		copy(r[5:8], chs(e.first+e.count-1))
		binary.LittleEndian.PutUint32(r[8:], uint32(min(e.first, 1<<32-1)))
		binary.LittleEndian.PutUint32(r[12:], uint32(min(e.count, 1<<32-1)))
	}
	b[510], b[511] = 0x55, 0xaa
	return b
}

// chs is a sector's number as cylinder, head and sector of a disk with 255 heads and
// 63 sectors, the last one there is for what lies behind.
func chs(lba int64) []byte {
	const heads, sectors, cylinders = 255, 63, 1024
	c, h, s := lba/(heads*sectors), lba/sectors%heads, lba%sectors+1
	if c >= cylinders {
		c, h, s = cylinders-1, heads-1, sectors
	}
	return []byte{byte(h), byte(s) | byte(c>>8)<<6, byte(c)}
}
