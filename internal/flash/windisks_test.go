package flash

import (
	"encoding/binary"
	"reflect"
	"strings"
	"testing"
	"unicode/utf16"
)

// TestWinCodes: each code has its parts at their places (CTL_CODE in winioctl.h).
func TestWinCodes(t *testing.T) {
	const disk, storage, volume, fileSystem = 0x7, 0x2d, 0x56, 0x9 // kinds of devices
	const none, read = 0, 1                                        // what the handle must be open for
	for name, c := range map[string]struct{ got, device, access, function uint32 }{
		"IOCTL_STORAGE_QUERY_PROPERTY":         {ioctlStorageQueryProperty, storage, none, 0x500},
		"IOCTL_STORAGE_GET_DEVICE_NUMBER":      {ioctlStorageGetDeviceNumber, storage, none, 0x420},
		"IOCTL_DISK_GET_DRIVE_GEOMETRY_EX":     {ioctlDiskGetGeometryEx, disk, none, 0x28},
		"IOCTL_DISK_GET_LENGTH_INFO":           {ioctlDiskGetLengthInfo, disk, read, 0x17},
		"IOCTL_DISK_IS_WRITABLE":               {ioctlDiskIsWritable, disk, none, 0x9},
		"IOCTL_DISK_UPDATE_PROPERTIES":         {ioctlDiskUpdateProperties, disk, none, 0x50},
		"IOCTL_VOLUME_GET_VOLUME_DISK_EXTENTS": {ioctlVolumeGetDiskExtents, volume, none, 0},
		"FSCTL_LOCK_VOLUME":                    {fsctlLockVolume, fileSystem, none, 6},
		"FSCTL_DISMOUNT_VOLUME":                {fsctlDismountVolume, fileSystem, none, 8},
	} {
		if want := c.device<<16 | c.access<<14 | c.function<<2; c.got != want {
			t.Errorf("%s is %#x, want %#x", name, c.got, want)
		}
	}
}

// descriptor builds a STORAGE_DEVICE_DESCRIPTOR.
func descriptor(removable bool, bus uint32, vendor, product string) []byte {
	b := make([]byte, 36)
	le := binary.LittleEndian
	le.PutUint32(b, 40)
	if removable {
		b[10] = 1
	}
	le.PutUint32(b[28:], bus)
	put := func(field int, s string) {
		if s == "" {
			return
		}
		le.PutUint32(b[field:], uint32(len(b)))
		b = append(append(b, s...), 0)
	}
	put(12, vendor)
	put(16, product)
	put(20, "1.00")
	le.PutUint32(b[4:], uint32(len(b)))
	return b
}

// extents builds a VOLUME_DISK_EXTENTS.
func extents(disks ...uint32) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(disks)))
	for i, d := range disks {
		b = binary.LittleEndian.AppendUint64(b, uint64(d))
		b = binary.LittleEndian.AppendUint64(b, uint64(i)<<30)
		b = binary.LittleEndian.AppendUint64(b, 1<<30)
	}
	return b
}

// geometry builds a DISK_GEOMETRY_EX.
func geometry(size uint64, sector uint32) []byte {
	b := make([]byte, 40)
	binary.LittleEndian.PutUint32(b[20:], sector)
	binary.LittleEndian.PutUint64(b[24:], size)
	return b
}

func TestWinDescriptor(t *testing.T) {
	long := descriptor(true, 7, "SanDisk ", "Ultra           ")
	for name, c := range map[string]struct {
		b    []byte
		want winDescriptor
		err  string
	}{
		"a stick":                 {long, winDescriptor{"SanDisk ", "Ultra           ", true, 7}, ""},
		"with room behind it":     {append(long[:len(long):len(long)], "behind"...), winDescriptor{"SanDisk ", "Ultra           ", true, 7}, ""},
		"NVMe":                    {descriptor(false, 0x11, "NVMe    ", "Samsung SSD 970"), winDescriptor{"", "Samsung SSD 970", false, 0x11}, ""},
		"no texts":                {descriptor(false, 0xb, "", ""), winDescriptor{"", "", false, 0xb}, ""},
		"odd letters":             {descriptor(false, 0xc, "\x01\xff", "SD\tCard"), winDescriptor{"  ", "SD Card", false, 0xc}, ""},
		"a text behind the end":   {long[:44], winDescriptor{"SanDisk ", "", true, 7}, ""},
		"too short":               {long[:35], winDescriptor{}, "35 bytes"},
		"too short by what it is": {append([]byte{40, 0, 0, 0, 20, 0, 0, 0}, long[8:]...), winDescriptor{}, "it says that it has 20 bytes"},
	} {
		got, err := parseWinDescriptor(c.b)
		if c.err == "" && (err != nil || got != c.want) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %+v, %v, want %+v %s", name, got, err, c.want, c.err)
		}
	}
}

func TestWinStructures(t *testing.T) {
	for name, c := range map[string]struct {
		b    []byte
		want []uint32
		ok   bool
	}{
		"one disk":      {extents(3), []uint32{3}, true},
		"two disks":     {extents(1, 2, 1), []uint32{1, 2}, true},
		"none":          {extents(), nil, true},
		"cut off":       {extents(1, 2)[:40], nil, false},
		"far too many":  {[]byte{255, 255, 255, 255, 0, 0, 0, 0}, nil, false},
		"not even that": {[]byte{1, 0}, nil, false},
	} {
		if got, err := parseWinExtents(c.b); !reflect.DeepEqual(got, c.want) || (err == nil) != c.ok {
			t.Errorf("extents, %s: %v, %v", name, got, err)
		}
	}
	if size, sector, err := parseWinGeometry(geometry(31914983424, 512)); size != 31914983424 || sector != 512 || err != nil {
		t.Errorf("geometry: %d, %d, %v", size, sector, err)
	}
	for name, b := range map[string][]byte{"short": make([]byte, 31), "no sectors": geometry(1<<30, 0), "half a sector": geometry(1<<30+1, 512), "negative": geometry(1<<63, 512)} {
		if size, sector, err := parseWinGeometry(b); err == nil {
			t.Errorf("geometry, %s: %d, %d", name, size, sector)
		}
	}
	if n, err := parseWinLength([]byte{0, 0, 0, 0, 2, 0, 0, 0}); n != 8<<30 || err != nil {
		t.Errorf("length: %d, %v", n, err)
	}
	if n, err := parseWinLength([]byte{1}); err == nil {
		t.Errorf("length: %d", n)
	}
	if n, ok, err := parseWinDeviceNumber([]byte{7, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0}); n != 5 || !ok || err != nil {
		t.Errorf("device number: %d, %v, %v", n, ok, err)
	}
	if _, ok, err := parseWinDeviceNumber([]byte{2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}); ok || err != nil {
		t.Errorf("device number of a CD: %v, %v", ok, err)
	}
	if _, _, err := parseWinDeviceNumber([]byte{7}); err == nil {
		t.Error("device number of one byte")
	}
	if got := winTexts(utf16.Encode([]rune("E:\\\x00C:\\mnt\x00\x00rest"))); !reflect.DeepEqual(got, []string{`E:\`, `C:\mnt`}) {
		t.Errorf("texts: %q", got)
	}
	if got := winTexts(utf16.Encode([]rune("no end"))); got != nil {
		t.Errorf("texts: %q", got)
	}
}

func TestWinPaths(t *testing.T) {
	for path, want := range map[string]struct {
		number uint32
		ok     bool
		device bool
	}{
		`\\.\PhysicalDrive3`:          {3, true, true},
		`\\?\PHYSICALDRIVE12`:         {12, true, true},
		`//./PhysicalDrive0`:          {0, true, true},
		`\\.\PhysicalDrive`:           {0, false, true},
		`\\.\PhysicalDrive03`:         {0, false, true},
		`\\.\PhysicalDrive-1`:         {0, false, true},
		`\\.\PhysicalDrive3\x`:        {0, false, false},
		`\\.\PhysicalDrive999999999`:  {999999999, true, true},
		`\\.\PhysicalDrive9999999999`: {0, false, true},
		`PhysicalDrive3`:              {0, false, false},
		`\\.\E:`:                      {0, false, true},
		`\\?\Volume{0-1}\`:            {0, false, true},
		`E:`:                          {0, false, true},
		`e:\`:                         {0, false, true},
		`E:\card.img`:                 {0, false, false},
		`\\?\C:\card.img`:             {0, false, false},
		`card.img`:                    {0, false, false},
		``:                            {0, false, false},
	} {
		if n, ok := winNumber(path); n != want.number || ok != want.ok {
			t.Errorf("%s: number %d, %v", path, n, ok)
		}
		if got := winDevicePath(path); got != want.device {
			t.Errorf("%s: a device's: %v", path, got)
		}
	}
}

// winMachine is one with a system on an NVMe disk, whose boot loader lies on another
// disk, a disk for data, a card in a reader, a stick without a drive letter, a reader
// without a card, and a disk that is one of two of a volume.
func winMachine() ([]Disk, []winVolume) {
	volumes := []winVolume{
		{name: `\\?\Volume{1}\`, paths: []string{`C:\`}, disks: []uint32{0}, system: true},
		{name: `\\?\Volume{2}\`, disks: []uint32{1}, system: true},
		{name: `\\?\Volume{3}\`, paths: []string{`D:\`}, disks: []uint32{2}},
		{name: `\\?\Volume{4}\`, paths: []string{`F:\`, `C:\mnt\card\`}, disks: []uint32{3}},
		{name: `\\?\Volume{5}\`, paths: []string{`E:\`}, disks: []uint32{3}},
		{name: `\\?\Volume{6}\`, disks: []uint32{4}},
		{name: `\\?\Volume{7}\`, paths: []string{`G:\`}, disks: []uint32{6, 7}},
		{name: `\\?\Volume{8}\`, paths: []string{`H:\`}}, // a CD
	}
	nvme, sata := winDescriptor{product: "Samsung SSD 970", bus: 0x11}, winDescriptor{product: "WDC  WD40", bus: 0xb}
	usb := winDescriptor{vendor: "SanDisk ", product: "Ultra   ", bus: 7}
	return []Disk{
		winDisk(0, nvme, 512e9, 512, false, volumes),
		winDisk(1, sata, 128e9, 512, false, volumes),
		winDisk(2, sata, 4e12, 512, false, volumes),
		winDisk(3, winDescriptor{product: "SD Card", removable: true, bus: 0xb}, 32e9, 512, false, volumes),
		winDisk(4, usb, 64e9, 512, true, volumes),
		winDisk(5, winDescriptor{product: "Reader", removable: true, bus: 7}, 0, 512, false, volumes),
		winDisk(6, usb, 64e9, 512, false, volumes),
		winDisk(8, usb, 64e9, 4096, false, volumes),
	}, volumes
}

func TestWinDisks(t *testing.T) {
	got, _ := winMachine()
	want := []Disk{
		{Path: `\\.\PhysicalDrive0`, Size: 512e9, Model: "Samsung SSD 970", System: true, Mounts: []string{`C:\`}, sector: 512},
		{Path: `\\.\PhysicalDrive1`, Size: 128e9, Model: "WDC WD40", System: true, sector: 512},
		{Path: `\\.\PhysicalDrive2`, Size: 4e12, Model: "WDC WD40", Mounts: []string{`D:\`}, sector: 512},
		{Path: `\\.\PhysicalDrive3`, Size: 32e9, Model: "SD Card", Removable: true, Volumes: []string{`C:\mnt\card\`, `E:\`, `F:\`}, sector: 512},
		{Path: `\\.\PhysicalDrive4`, Size: 64e9, Model: "SanDisk Ultra", Removable: true, ReadOnly: true, sector: 512},
		{Path: `\\.\PhysicalDrive5`, Model: "Reader", Removable: true, sector: 512},
		{Path: `\\.\PhysicalDrive6`, Size: 64e9, Model: "SanDisk Ultra", Removable: true, Mounts: []string{`G:\`}, sector: 512},
		{Path: `\\.\PhysicalDrive8`, Size: 64e9, Model: "SanDisk Ultra", Removable: true, sector: 4096},
	}
	for i, w := range want {
		if !reflect.DeepEqual(got[i], w) {
			t.Errorf("%+v, want %+v", got[i], w)
		}
	}
	var states, refusals []string
	for _, d := range got {
		states = append(states, d.State())
		if err := d.check(); err != nil {
			refusals = append(refusals, strings.TrimPrefix(err.Error(), d.Path+" "))
		}
	}
	if s := []string{
		"this machine's system", "this machine's system", `mounted at D:\`, `free, dismounts C:\mnt\card\, E:\, F:\`, "read-only", "free", `mounted at G:\`, "sectors of 4096 bytes",
	}; !reflect.DeepEqual(states, s) {
		t.Errorf("states %q", states)
	}
	if s := []string{
		"is the disk that this machine runs from: nothing is written to it",
		"is the disk that this machine runs from: nothing is written to it",
		`is mounted at D:\: unmount it first, if what is on it may be lost`,
		"is read-only: a card may have a switch for that",
		`is mounted at G:\: unmount it first, if what is on it may be lost`,
		"has sectors of 4096 bytes, and an image is made for 512: no machine would start from it",
	}; !reflect.DeepEqual(refusals, s) {
		t.Errorf("refusals %q", refusals)
	}
	if d := got[3].Describe(); d != `\\.\PhysicalDrive3 (SD Card, 32.0 GB, mounted at C:\mnt\card\, E:\, F:\)` {
		t.Errorf("described as %s", d)
	}
}

func TestWinFind(t *testing.T) {
	disks, volumes := winMachine()
	if d, err := winFind(`//./physicaldrive3`, disks, volumes); err != nil || d.Path != `\\.\PhysicalDrive3` {
		t.Errorf("%+v, %v", d, err)
	}
	const partition = "is a partition: an image has its own, so name the whole disk, "
	for path, want := range map[string]string{
		`e:`:                 partition + `\\.\PhysicalDrive3`,
		`E:\`:                partition + `\\.\PhysicalDrive3`,
		`\\.\F:`:             partition + `\\.\PhysicalDrive3`,
		`\\?\volume{6}\`:     partition + `\\.\PhysicalDrive4`,
		`H:`:                 "is no disk that an image can be written to",
		`Z:`:                 "is no disk that an image can be written to",
		`\\.\PhysicalDrive7`: "is no disk that an image can be written to",
		`\\.\CdRom0`:         "is no disk that an image can be written to",
		`\\.\PhysicalDrive5`: "there is nothing in",
	} {
		if d, err := winFind(path, disks, volumes); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %+v, error %v, want %q", path, d, err, want)
		}
	}
}

// FuzzWinStructures: whatever a driver answers, it is understood or refused.
func FuzzWinStructures(f *testing.F) {
	f.Add(descriptor(true, 7, "SanDisk ", "Ultra"))
	f.Add(extents(0, 1))
	f.Add(geometry(1<<30, 512))
	f.Add([]byte{7, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, err := parseWinDescriptor(b); err == nil && strings.ContainsFunc(d.model(), func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("model %q", d.model())
		}
		if disks, err := parseWinExtents(b); err == nil && len(disks) > len(b)/24 {
			t.Errorf("%d disks in %d bytes", len(disks), len(b))
		}
		if size, sector, err := parseWinGeometry(b); err == nil && (size < 0 || sector <= 0) {
			t.Errorf("%d bytes in sectors of %d", size, sector)
		}
		_, _ = parseWinLength(b)
		_, _, _ = parseWinDeviceNumber(b)
		u := make([]uint16, 0, len(b)/2)
		for i := 0; i+1 < len(b); i += 2 {
			u = append(u, binary.LittleEndian.Uint16(b[i:]))
		}
		winTexts(u)
		winFind(string(b), nil, nil)
		winDevicePath(string(b))
	})
}
