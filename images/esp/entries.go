package esp

import (
	"encoding/binary"
	"time"
)

// Attributes of directory entries.
const (
	attrLabel   = 0x08
	attrDir     = 0x10
	attrArchive = 0x20
	attrLong    = 0x0f
)

// dirBytes is the content of a folder.
func (v *volume) dirBytes(n, parent, root *node) []byte {
	var b []byte
	if parent == nil {
		b = v.entry(b, pad11Label(v.o.Label), attrLabel, 0, 0)
	} else {
		up := parent.first
		if parent == root {
			up = 0 // the specification's word for the root folder
		}
		b = v.entry(b, pad11(".", ""), attrDir, n.first, 0)
		b = v.entry(b, pad11("..", ""), attrDir, up, 0)
	}
	for _, k := range n.kids {
		if k.long {
			b = appendLong(b, k)
		}
		if k.isDir() {
			b = v.entry(b, k.short, attrDir, k.first, 0)
		} else {
			b = v.entry(b, k.short, attrArchive, k.first, uint32(k.content.Size()))
		}
	}
	return b
}

func pad11Label(s string) (out [11]byte) {
	copy(out[:], s+"           ")
	return out
}

func (v *volume) entry(b []byte, name [11]byte, attr byte, cluster, size uint32) []byte {
	return appendEntry(b, v.o.Time, name, attr, cluster, size)
}

func appendEntry(b []byte, t time.Time, name [11]byte, attr byte, cluster, size uint32) []byte {
	e := make([]byte, 32)
	copy(e, name[:])
	e[11] = attr
	date, clock := dosTime(t)
	le := binary.LittleEndian
	le.PutUint16(e[14:], clock) // created
	le.PutUint16(e[16:], date)
	le.PutUint16(e[18:], date) // accessed
	le.PutUint16(e[20:], uint16(cluster>>16))
	le.PutUint16(e[22:], clock) // written
	le.PutUint16(e[24:], date)
	le.PutUint16(e[26:], uint16(cluster))
	le.PutUint32(e[28:], size)
	return append(b, e...)
}

func dosTime(t time.Time) (date, clock uint16) {
	t = t.UTC()
	date = uint16(t.Year()-1980)<<9 | uint16(t.Month())<<5 | uint16(t.Day())
	clock = uint16(t.Hour())<<11 | uint16(t.Minute())<<5 | uint16(t.Second()/2)
	return date, clock
}

// appendLong appends the entries that hold a long name: 13 UTF-16 characters each,
// the last part first, tied to the short name by its checksum.
func appendLong(b []byte, k *node) []byte {
	sum := shortSum(k.short)
	parts := k.entries() - 1
	for p := parts; p >= 1; p-- {
		e := make([]byte, 32)
		e[0] = byte(p)
		if p == parts {
			e[0] |= 0x40
		}
		e[11], e[13] = attrLong, sum
		for i := range 13 {
			c := uint16(0xffff) // behind the end
			switch at := (p-1)*13 + i; {
			case at < len(k.name):
				c = uint16(k.name[at])
			case at == len(k.name):
				c = 0
			}
			binary.LittleEndian.PutUint16(e[longSlots[i]:], c)
		}
		b = append(b, e...)
	}
	return b
}

// longSlots are the places of the 13 characters in such an entry.
var longSlots = [13]int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30}

// shortSum is the checksum that ties a long name to its short one.
func shortSum(short [11]byte) (sum byte) {
	for _, c := range short {
		sum = sum>>1 | sum<<7
		sum += c
	}
	return sum
}

func (v *volume) bootSector() []byte {
	b := make([]byte, sector)
	le := binary.LittleEndian
	copy(b, []byte{0xeb, 0x58, 0x90}) // a jump, which some firmware insists on
	copy(b[3:], "mkfs.fat")           // the OEM name that drivers know
	le.PutUint16(b[11:], sector)
	b[13] = byte(v.perCluster)
	le.PutUint16(b[14:], reserved)
	b[16] = 2    // FATs
	b[21] = 0xf8 // a fixed disk
	le.PutUint16(b[24:], 63)
	le.PutUint16(b[26:], 255)
	le.PutUint32(b[32:], uint32(v.sectors))
	le.PutUint32(b[36:], uint32(v.fatSectors))
	le.PutUint32(b[44:], firstData) // the root folder
	le.PutUint16(b[48:], 1)         // information sector
	le.PutUint16(b[50:], 6)         // backup boot sector
	b[64] = 0x80                    // BIOS drive
	b[66] = 0x29                    // the three fields that follow are there
	le.PutUint32(b[67:], v.o.VolumeID)
	label := pad11Label(v.o.Label)
	copy(b[71:], label[:])
	copy(b[82:], "FAT32   ")
	b[510], b[511] = 0x55, 0xaa
	return b
}

func (v *volume) infoSector() []byte {
	b := make([]byte, sector)
	le := binary.LittleEndian
	copy(b, "RRaA")
	copy(b[484:], "rrAa")
	used := int64(len(v.fat) - firstData)
	le.PutUint32(b[488:], uint32(v.clusters-used))
	le.PutUint32(b[492:], uint32(len(v.fat)-1)) // where the search for free clusters starts
	b[510], b[511] = 0x55, 0xaa
	return b
}
