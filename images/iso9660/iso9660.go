// Package iso9660 writes the descriptors of a CD that UEFI firmware boots from a FAT
// volume on it (ECMA-119; "El Torito Bootable CD-ROM Format Specification", version
// 1.0; UEFI Specification, section 13.3.2.1).
package iso9660

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"time"
)

// BlockSize is the size of a CD's blocks.
const BlockSize = 2048

// Start and End are the part of the CD that Write writes. What is before Start belongs to
// others, such as a partition table.
const (
	Start = 16 * BlockSize
	End   = 23 * BlockSize
)

// Blocks of what Write writes.
const (
	primary = 16 + iota
	bootRecord
	terminator
	littlePaths // path table, little-endian
	bigPaths
	root
	catalog
)

// CD describes a CD.
type CD struct {
	// Name is the volume's: letters and digits are kept, others become underscores.
	Name string
	Time time.Time
	Size int64 // of everything on it, whole blocks
	// Boot is where the FAT volume is. It reaches to the end as far as the firmware knows,
	// because there is no room for the size of one that has more than 32 MiB.
	Boot, BootSize int64
}

// BootFile is the name by which the FAT volume is a file of the CD.
const BootFile = "EFI.IMG"

// Write writes the descriptors, the only folder, and the boot catalog.
func Write(w io.WriterAt, c CD) error {
	if c.Size%BlockSize != 0 || c.Boot%BlockSize != 0 || c.Boot < End || c.BootSize <= 0 || c.Boot+c.BootSize > c.Size {
		return fmt.Errorf("iso9660: volume of %d bytes at byte %d of %d: want whole blocks of %d behind byte %d", c.BootSize, c.Boot, c.Size, BlockSize, End)
	}
	if c.BootSize >= 1<<32 || c.Size/BlockSize >= 1<<32 {
		return fmt.Errorf("iso9660: volume of %d bytes: a file of a CD has less than 4 GiB", c.BootSize)
	}
	if y := c.Time.UTC().Year(); y < 1900 || y > 2155 {
		return fmt.Errorf("iso9660: year %d; a CD has 1900 to 2155", y)
	}
	b := make([]byte, End-Start)
	at := func(block int) []byte { return b[(block-primary)*BlockSize:][:BlockSize] }
	c.primary(at(primary))
	copy(at(bootRecord), "\x00CD001\x01EL TORITO SPECIFICATION")
	binary.LittleEndian.PutUint32(at(bootRecord)[71:], catalog)
	copy(at(terminator), "\xffCD001\x01")
	// The path tables have the root folder alone, whose name is one zero.
	copy(at(littlePaths), []byte{1, 0, root, 0, 0, 0, 1, 0})
	copy(at(bigPaths), []byte{1, 0, 0, 0, 0, root, 0, 1})
	c.folder(at(root))
	c.catalog(at(catalog))
	_, err := w.WriteAt(b, Start)
	return err
}

// pathTableSize is that of one entry with its padding.
const pathTableSize = 10

func (c CD) primary(b []byte) {
	copy(b, "\x01CD001\x01")
	spaces(b[8:72])
	copy(b[40:72], dCharacters(c.Name))
	both32(b[80:], uint32(c.Size/BlockSize))
	both16(b[120:], 1) // the set has one volume,
	both16(b[124:], 1) // which is the first
	both16(b[128:], BlockSize)
	both32(b[132:], pathTableSize)
	binary.LittleEndian.PutUint32(b[140:], littlePaths)
	binary.BigEndian.PutUint32(b[148:], bigPaths)
	c.record(b[156:], "\x00", root, BlockSize, true)
	spaces(b[190:813])
	copy(b[446:574], "KILN")
	for i := range 2 { // made and changed
		c.digits(b[813+17*i:])
	}
	copy(b[847:], strings.Repeat("0", 16)) // never expires
	c.digits(b[864:])                      // in force since
	b[881] = 1
}

// folder writes the root folder: itself, itself as its parent, and its files by name.
func (c CD) folder(b []byte) {
	b = b[c.record(b, "\x00", root, BlockSize, true):]
	b = b[c.record(b, "\x01", root, BlockSize, true):]
	b = b[c.record(b, "BOOT.CAT;1", catalog, BlockSize, false):]
	c.record(b, BootFile+";1", uint32(c.Boot/BlockSize), uint32(c.BootSize), false)
}

// record writes an entry of a folder and returns its length.
func (c CD) record(b []byte, name string, block, size uint32, folder bool) int {
	n := 33 + len(name)
	n += n % 2
	b[0] = byte(n)
	both32(b[2:], block)
	both32(b[10:], size)
	t := c.Time.UTC()
	copy(b[18:], []byte{byte(t.Year() - 1900), byte(t.Month()), byte(t.Day()), byte(t.Hour()), byte(t.Minute()), byte(t.Second()), 0})
	if folder {
		b[25] = 2
	}
	both16(b[28:], 1)
	b[32] = byte(len(name))
	copy(b[33:], name)
	return n
}

// catalog writes the boot catalog: one entry for UEFI.
func (c CD) catalog(b []byte) {
	const efi = 0xef
	b[0], b[1] = 1, efi
	copy(b[4:28], "KILN")
	b[30], b[31] = 0x55, 0xaa
	var sum uint16
	for i := 0; i < 32; i += 2 {
		sum += binary.LittleEndian.Uint16(b[i:])
	}
	binary.LittleEndian.PutUint16(b[28:], -sum)
	b[32] = 0x88 // bootable, no emulation of a floppy; no size: up to the CD's end
	binary.LittleEndian.PutUint32(b[40:], uint32(c.Boot/BlockSize))
}

// digits writes a time as text.
func (c CD) digits(b []byte) { copy(b, c.Time.UTC().Format("2006010215040500")) }

func spaces(b []byte) {
	for i := range b {
		b[i] = ' '
	}
}

func both16(b []byte, n uint16) {
	binary.LittleEndian.PutUint16(b, n)
	binary.BigEndian.PutUint16(b[2:], n)
}

func both32(b []byte, n uint32) {
	binary.LittleEndian.PutUint32(b, n)
	binary.BigEndian.PutUint32(b[4:], n)
}

// dCharacters makes of a name one of up to 32 of the characters that volumes have.
func dCharacters(name string) string {
	name = strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToUpper(name))
	return name[:min(len(name), 32)]
}
