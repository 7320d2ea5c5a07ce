package flash

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
)

// List returns the disks of this machine that have a medium. It takes no administrator.
func List() ([]Disk, error) {
	disks, _, err := winList()
	return slices.DeleteFunc(disks, func(d Disk) bool { return d.Size == 0 }), err
}

func find(path string) (Disk, error) {
	disks, volumes, err := winList()
	if err != nil {
		return Disk{}, err
	}
	return winFind(path, disks, volumes)
}

// winList returns all disks, those without a medium too, and all volumes.
func winList() ([]Disk, []winVolume, error) {
	volumes, err := winVolumes()
	if err != nil {
		return nil, nil, err
	}
	names, err := dosDevices("")
	if err != nil {
		return nil, nil, fmt.Errorf("disks of this machine: %w", err)
	}
	var numbers []uint32
	for _, name := range names {
		if n, ok := winDriveName(name); ok {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	var disks []Disk
	for _, n := range numbers {
		d, err := askDrive(n, volumes)
		if errors.Is(err, windows.ERROR_FILE_NOT_FOUND) { // pulled out by now
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		disks = append(disks, d)
	}
	return disks, volumes, nil
}

// askDrive asks Windows about one disk; it has no size if there is no medium.
func askDrive(number uint32, volumes []winVolume) (Disk, error) {
	path := winPath(number)
	h, err := openHandle(path, 0, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE, 0)
	if err != nil {
		return Disk{}, err
	}
	defer closeHandle(h)
	wrong := func(err error) (Disk, error) { return Disk{}, fmt.Errorf("%s: %w", path, err) }
	// A STORAGE_PROPERTY_QUERY of zeros asks for the descriptor.
	b, err := control(h, ioctlStorageQueryProperty, make([]byte, 12), 4096)
	if err != nil {
		return wrong(err)
	}
	about, err := parseWinDescriptor(b)
	if err != nil {
		return wrong(err)
	}
	b, err = control(h, ioctlDiskGetGeometryEx, nil, 4096)
	if lost(err) {
		return winDisk(number, about, 0, imageSector, false, volumes), nil
	}
	if err != nil {
		return wrong(err)
	}
	size, sector, err := parseWinGeometry(b)
	if err != nil {
		return wrong(err)
	}
	// Drivers that do not know the question take writes, or refuse them when they come.
	_, err = control(h, ioctlDiskIsWritable, nil, 0)
	return winDisk(number, about, size, sector, errors.Is(err, windows.ERROR_WRITE_PROTECT), volumes), nil
}

// winVolumes returns the volumes of this machine. That of Windows is among them.
func winVolumes() ([]winVolume, error) {
	home, loader, err := systemVolumes()
	if err != nil {
		return nil, fmt.Errorf("the disk that Windows runs from: %w", err)
	}
	names, err := volumeNames()
	if err != nil {
		return nil, fmt.Errorf("volumes of this machine: %w", err)
	}
	var volumes []winVolume
	known := false
	for _, name := range names {
		v := winVolume{name: name, system: strings.EqualFold(name, home)}
		v.paths, err = mountPoints(name)
		if errors.Is(err, windows.ERROR_FILE_NOT_FOUND) { // gone by now
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("volume %s: %w", name, err)
		}
		v.disks = volumeDisks(name)
		known = known || v.system && len(v.disks) > 0
		if loader != "" && !v.system {
			// \\?\Volume{…}\ is the device Volume{…}.
			devices, err := dosDevices(strings.Trim(strings.TrimPrefix(name, `\\?\`), `\`))
			v.system = err == nil && len(devices) > 0 && strings.EqualFold(devices[0], loader)
		}
		volumes = append(volumes, v)
	}
	if !known {
		return nil, fmt.Errorf("the disk that Windows runs from: its volume, %s, lies on no disk", home)
	}
	return volumes, nil
}

// systemVolumes returns the volume that Windows is on, and the device that it was
// started from, "" if the registry does not name it.
func systemVolumes() (home, loader string, err error) {
	folder, err := windows.GetSystemWindowsDirectory()
	if err != nil {
		return "", "", err
	}
	var root, name [windows.MAX_PATH + 1]uint16
	p, err := windows.UTF16PtrFromString(folder)
	if err == nil {
		err = windows.GetVolumePathName(p, &root[0], uint32(len(root)))
	}
	if err == nil {
		err = windows.GetVolumeNameForVolumeMountPoint(&root[0], &name[0], uint32(len(name)))
	}
	if err != nil {
		return "", "", err
	}
	home = windows.UTF16ToString(name[:])
	key, err := registry.OpenKey(registry.LOCAL_MACHINE, `SYSTEM\Setup`, registry.QUERY_VALUE)
	if errors.Is(err, registry.ErrNotExist) {
		return home, "", nil
	}
	if err != nil {
		return "", "", err
	}
	loader, _, err = key.GetStringValue("SystemPartition")
	if errors.Is(err, registry.ErrNotExist) {
		err = nil
	}
	return home, loader, errors.Join(err, key.Close())
}

func volumeNames() (names []string, err error) {
	var b [windows.MAX_PATH + 1]uint16
	h, err := windows.FindFirstVolume(&b[0], uint32(len(b)))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, windows.FindVolumeClose(h)) }()
	for {
		names = append(names, windows.UTF16ToString(b[:]))
		err := windows.FindNextVolume(h, &b[0], uint32(len(b)))
		if errors.Is(err, windows.ERROR_NO_MORE_FILES) {
			return names, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// mountPoints are the drive letters and folders where a volume is mounted.
func mountPoints(volume string) ([]string, error) {
	name, err := windows.UTF16PtrFromString(volume)
	if err != nil {
		return nil, err
	}
	b := make([]uint16, windows.MAX_PATH+1)
	for {
		var need uint32
		err := windows.GetVolumePathNamesForVolumeName(name, &b[0], uint32(len(b)), &need)
		if errors.Is(err, windows.ERROR_MORE_DATA) && int(need) > len(b) {
			b = make([]uint16, need)
			continue
		}
		if err != nil {
			return nil, err
		}
		return winTexts(b), nil
	}
}

// volumeDisks returns the numbers of the disks that a volume lies on. There are none
// for a CD, and for what does not answer: Windows itself lets nobody write to the
// sectors of a volume that is mounted and not locked.
func volumeDisks(volume string) []uint32 {
	h, err := openHandle(strings.TrimSuffix(volume, `\`), 0, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE, 0)
	if err != nil {
		return nil
	}
	defer closeHandle(h)
	for room := 1 << 10; room <= 1<<20; room *= 4 {
		b, err := control(h, ioctlVolumeGetDiskExtents, nil, room)
		if errors.Is(err, windows.ERROR_MORE_DATA) || errors.Is(err, windows.ERROR_INSUFFICIENT_BUFFER) {
			continue
		}
		if err != nil {
			break
		}
		if disks, err := parseWinExtents(b); err == nil && len(disks) > 0 {
			return disks
		}
		break
	}
	// Some media that can be taken out answer only this question, and so does Wine.
	if b, err := control(h, ioctlStorageGetDeviceNumber, nil, 64); err == nil {
		if number, ok, err := parseWinDeviceNumber(b); err == nil && ok {
			return []uint32{number}
		}
	}
	return nil
}

// dosDevices returns what a device's name stands for, or all such names for "".
func dosDevices(name string) ([]string, error) {
	var p *uint16
	if name != "" {
		var err error
		if p, err = windows.UTF16PtrFromString(name); err != nil {
			return nil, err
		}
	}
	for size := uint32(1 << 14); ; size *= 2 {
		b := make([]uint16, size)
		n, err := windows.QueryDosDevice(p, &b[0], size)
		if errors.Is(err, windows.ERROR_INSUFFICIENT_BUFFER) && size < 1<<24 {
			continue
		}
		if err != nil {
			return nil, err
		}
		return winTexts(b[:n]), nil
	}
}

func openHandle(path string, access, share, flags uint32) (windows.Handle, error) {
	p, err := windows.UTF16PtrFromString(path)
	var h windows.Handle
	if err == nil {
		h, err = windows.CreateFile(p, access, share, nil, windows.OPEN_EXISTING, flags, 0)
	}
	if err != nil {
		return 0, fmt.Errorf("open %s: %w", path, err)
	}
	return h, nil
}

// closeHandle ends what was only asked of.
func closeHandle(h windows.Handle) { _ = windows.CloseHandle(h) }

// control sends a control code to a device, and returns what it answers.
func control(h windows.Handle, code uint32, in []byte, room int) ([]byte, error) {
	out := make([]byte, room)
	var n uint32
	err := windows.DeviceIoControl(h, code, unsafe.SliceData(in), uint32(len(in)), unsafe.SliceData(out), uint32(room), &n, nil)
	if err != nil {
		return nil, err
	}
	return out[:min(int(n), room)], nil
}
