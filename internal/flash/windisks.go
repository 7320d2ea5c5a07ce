package flash

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
)

// What Windows is asked of its disks and volumes (winioctl.h, ntddvol.h).
const (
	ioctlStorageQueryProperty   = 0x002d1400
	ioctlStorageGetDeviceNumber = 0x002d1080
	ioctlDiskGetGeometryEx      = 0x000700a0
	ioctlDiskGetLengthInfo      = 0x0007405c
	ioctlDiskIsWritable         = 0x00070024
	ioctlDiskUpdateProperties   = 0x00070140
	ioctlVolumeGetDiskExtents   = 0x00560000
	fsctlLockVolume             = 0x00090018
	fsctlDismountVolume         = 0x00090020
)

// winDescriptor is a STORAGE_DEVICE_DESCRIPTOR.
type winDescriptor struct {
	vendor, product string
	removable       bool // the medium, as of a card reader
	bus             uint32
}

// Buses of a STORAGE_BUS_TYPE on which disks are put in and pulled out: FireWire, USB,
// SD and MMC.
var winOutside = []uint32{0x4, 0x7, 0xc, 0xd}

// outside says that the disk is a card, or hangs on a cable.
func (d winDescriptor) outside() bool { return d.removable || slices.Contains(winOutside, d.bus) }

func (d winDescriptor) model() string {
	return strings.Join(strings.Fields(d.vendor+" "+d.product), " ")
}

// parseWinDescriptor reads what IOCTL_STORAGE_QUERY_PROPERTY gives.
func parseWinDescriptor(b []byte) (d winDescriptor, err error) {
	const head = 36 // before the texts
	le := binary.LittleEndian
	if len(b) < head {
		return d, fmt.Errorf("device descriptor: %d bytes", len(b))
	}
	// Size may be more than there was room for.
	if n := le.Uint32(b[4:]); n < head {
		return d, fmt.Errorf("device descriptor: it says that it has %d bytes", n)
	} else if int64(n) < int64(len(b)) {
		b = b[:n]
	}
	text := func(field int) string {
		at := le.Uint32(b[field:])
		if at == 0 || int64(at) >= int64(len(b)) { // there is none
			return ""
		}
		s, _, _ := strings.Cut(string(b[at:]), "\x00")
		return strings.Map(func(r rune) rune {
			if r < ' ' || r > '~' { // ASCII is what SCSI and ATA have
				return ' '
			}
			return r
		}, s)
	}
	d.vendor, d.product = text(12), text(16)
	d.removable, d.bus = b[10] != 0, le.Uint32(b[28:])
	if d.vendor == "ATA" || strings.TrimSpace(d.vendor) == "NVMe" {
		d.vendor = "" // the bus
	}
	return d, nil
}

// parseWinGeometry reads a DISK_GEOMETRY_EX: the bytes of the disk and of a sector.
func parseWinGeometry(b []byte) (size, sector int64, err error) {
	if len(b) < 32 {
		return 0, 0, fmt.Errorf("geometry of the disk: %d bytes", len(b))
	}
	size, sector = int64(binary.LittleEndian.Uint64(b[24:])), int64(binary.LittleEndian.Uint32(b[20:]))
	if size < 0 || sector == 0 || size%sector != 0 {
		return 0, 0, fmt.Errorf("geometry of the disk: %d bytes in sectors of %d", size, sector)
	}
	return size, sector, nil
}

// parseWinLength reads a GET_LENGTH_INFORMATION.
func parseWinLength(b []byte) (int64, error) {
	if len(b) < 8 {
		return 0, fmt.Errorf("length of the disk: %d bytes", len(b))
	}
	return int64(binary.LittleEndian.Uint64(b)), nil
}

// parseWinExtents reads a VOLUME_DISK_EXTENTS: the numbers of the disks that a volume
// lies on.
func parseWinExtents(b []byte) (disks []uint32, err error) {
	const head, one = 8, 24
	if len(b) < head {
		return nil, fmt.Errorf("extents of a volume: %d bytes", len(b))
	}
	n := int64(binary.LittleEndian.Uint32(b))
	if n > int64(len(b)-head)/one {
		return nil, fmt.Errorf("extents of a volume: %d in %d bytes", n, len(b))
	}
	for i := range int(n) {
		if number := binary.LittleEndian.Uint32(b[head+i*one:]); !slices.Contains(disks, number) {
			disks = append(disks, number)
		}
	}
	return disks, nil
}

// parseWinDeviceNumber reads a STORAGE_DEVICE_NUMBER: the number of the disk, if it is
// one.
func parseWinDeviceNumber(b []byte) (number uint32, ok bool, err error) {
	const fileDeviceDisk = 7
	if len(b) < 12 {
		return 0, false, fmt.Errorf("number of a device: %d bytes", len(b))
	}
	return binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b) == fileDeviceDisk, nil
}

// winTexts splits what Windows gives as several texts: each ends with a zero, and an
// empty one ends them all.
func winTexts(b []uint16) (out []string) {
	for {
		end := slices.Index(b, 0)
		if end <= 0 {
			return out
		}
		out = append(out, string(utf16.Decode(b[:end])))
		b = b[end+1:]
	}
}

// winNumber is the number of a disk by its path, such as \\.\PhysicalDrive3.
func winNumber(path string) (number uint32, ok bool) {
	rest := strings.ToLower(strings.ReplaceAll(path, "/", `\`))
	for _, prefix := range []string{`\\.\`, `\\?\`} {
		if name, found := strings.CutPrefix(rest, prefix); found {
			return winDriveName(name)
		}
	}
	return 0, false
}

// winDriveName is the number in PhysicalDrive3.
func winDriveName(name string) (number uint32, ok bool) {
	const prefix = "physicaldrive"
	if len(name) <= len(prefix) || !strings.EqualFold(name[:len(prefix)], prefix) {
		return 0, false
	}
	n, err := strconv.ParseUint(name[len(prefix):], 10, 32)
	if err != nil || strconv.FormatUint(n, 10) != name[len(prefix):] {
		return 0, false
	}
	return uint32(n), true
}

func winPath(number uint32) string { return fmt.Sprintf(`\\.\PhysicalDrive%d`, number) }

// winDevicePath says whether a path is that of a device, or a drive as a whole, and
// not of a file or folder: \\.\E:, \\?\Volume{…}\, E: and E:\.
func winDevicePath(path string) bool {
	p := strings.ReplaceAll(path, "/", `\`)
	for _, prefix := range []string{`\\.\`, `\\?\`} {
		if rest, ok := strings.CutPrefix(p, prefix); ok {
			rest = strings.TrimSuffix(rest, `\`)
			return !strings.Contains(rest, `\`)
		}
	}
	return len(p) == 2 && p[1] == ':' || len(p) == 3 && p[1:] == `:\`
}

// winVolume is a volume of Windows.
type winVolume struct {
	name   string   // \\?\Volume{…}\
	paths  []string // where it is mounted: E:\, or a folder
	disks  []uint32 // that it lies on
	system bool     // Windows runs from it, or is started from it
}

// winDisk is a disk of Windows, out of what is said about it and about all volumes.
//
// Windows mounts each card at once and by itself, so that is no sign that anybody uses
// it: such volumes are dismounted for the time of writing, which fails if a file of
// theirs is open. A volume of a disk inside of the machine, and one that lies on
// several disks, somebody has made to be there.
func winDisk(number uint32, about winDescriptor, size, sector int64, readOnly bool, volumes []winVolume) Disk {
	d := Disk{
		Path: winPath(number), Size: size, Model: about.model(), Removable: about.outside(), ReadOnly: readOnly, sector: sector,
	}
	for _, v := range volumes {
		if !slices.Contains(v.disks, number) {
			continue
		}
		d.System = d.System || v.system
		if about.outside() && len(v.disks) == 1 && !v.system {
			d.Volumes = append(d.Volumes, v.paths...)
		} else {
			d.Mounts = append(d.Mounts, v.paths...)
		}
	}
	slices.Sort(d.Mounts)
	slices.Sort(d.Volumes)
	return d
}

// winFind returns the disk that a path names.
func winFind(path string, disks []Disk, volumes []winVolume) (Disk, error) {
	if number, ok := winNumber(path); ok {
		for _, d := range disks {
			if d.Path != winPath(number) {
				continue
			}
			if d.Size == 0 {
				return d, fmt.Errorf("there is nothing in %s: put the card in", d.Path)
			}
			return d, nil
		}
		return Disk{}, noDisk(path)
	}
	bare := func(s string) string {
		s = strings.ReplaceAll(s, "/", `\`)
		return strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(s, `\\.\`), `\\?\`), `\`)
	}
	for _, v := range volumes {
		same := func(s string) bool { return strings.EqualFold(bare(s), bare(path)) }
		if !same(v.name) && !slices.ContainsFunc(v.paths, same) || len(v.disks) == 0 {
			continue
		}
		return Disk{}, fmt.Errorf("%s is a partition: an image has its own, so name the whole disk, %s", path, winPath(v.disks[0]))
	}
	return Disk{}, noDisk(path)
}
