package flash

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/windows"
)

// lostErrors are those of a disk that is not there any more, or takes no data. The
// first is what a device that has gone answers (STATUS_NO_SUCH_DEVICE).
var lostErrors = []error{
	windows.ERROR_NO_SUCH_DEVICE, windows.ERROR_DEVICE_NOT_CONNECTED, windows.ERROR_DEVICE_REMOVED, windows.ERROR_DEV_NOT_EXIST,
	windows.ERROR_DEVICE_NOT_AVAILABLE, windows.ERROR_DEVICE_UNREACHABLE, windows.ERROR_NOT_READY, windows.ERROR_NO_MEDIA_IN_DRIVE,
	windows.ERROR_MEDIA_CHANGED, windows.ERROR_UNRECOGNIZED_MEDIA, windows.ERROR_BAD_UNIT, windows.ERROR_FILE_INVALID,
	windows.ERROR_IO_DEVICE, windows.ERROR_DEVICE_HARDWARE_ERROR, windows.ERROR_CRC, windows.ERROR_SECTOR_NOT_FOUND,
	windows.ERROR_GEN_FAILURE, windows.ERROR_SEM_TIMEOUT, windows.ERROR_OPERATION_ABORTED,
	windows.ERROR_DISK_FULL, windows.ERROR_HANDLE_DISK_FULL, // a file in the place of a disk
}

// asRoot is what to do if a disk may not be opened.
const asRoot = "writing to a disk takes an administrator: run the command in a terminal that was opened with “Run as administrator”"

// IsDisk says whether a path is that of a disk or another device, and not of a file.
func IsDisk(path string) bool { return winDevicePath(path) }

// makeFile is the command that makes a file in the place of a disk.
func makeFile(path string, size int64) string {
	return fmt.Sprintf("fsutil file createnew %s %d", path, size)
}

func openDevice(d Disk) (device, error) {
	number, ok := winNumber(d.Path)
	if !ok {
		return openFile(d.Path)
	}
	return openDrive(number, d)
}

// winDrive is a disk that is held, together with the volumes on it.
type winDrive struct {
	path    string
	handle  windows.Handle
	volumes []windows.Handle // locked and dismounted
}

// openDrive takes a disk for this process alone: the volumes on it are locked and
// dismounted, and stay so until it is closed, as Windows lets nobody write to those
// that it has mounted.
func openDrive(number uint32, d Disk) (_ device, err error) {
	w := &winDrive{path: d.Path, handle: windows.InvalidHandle}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close())
		}
	}()
	volumes, err := winVolumes()
	if err != nil {
		return nil, err
	}
	for _, v := range volumes {
		if !slices.Contains(v.disks, number) {
			continue
		}
		if v.system {
			return nil, Disk{Path: d.Path, System: true}.check()
		}
		if err := w.lock(v); err != nil {
			return nil, err
		}
	}
	// Nobody else may write to it; a program that already can is an error.
	err = patiently(func() error {
		h, err := openHandle(d.Path, windows.GENERIC_READ|windows.GENERIC_WRITE, windows.FILE_SHARE_READ, windows.FILE_FLAG_NO_BUFFERING)
		if err == nil {
			w.handle = h
		}
		return err
	}, windows.ERROR_SHARING_VIOLATION)
	if errors.Is(err, windows.ERROR_SHARING_VIOLATION) {
		return nil, fmt.Errorf("%s is in use by another program, which can write to it: stop that first", d.Path)
	}
	if err != nil {
		return nil, err
	}
	b, err := control(w.handle, ioctlDiskGetLengthInfo, nil, 8)
	if err != nil {
		return nil, fmt.Errorf("size of %s: %w", d.Path, err)
	}
	size, err := parseWinLength(b)
	if err != nil {
		return nil, err
	}
	// Numbers are given anew when disks come and go.
	if size != d.Size {
		return nil, fmt.Errorf("%s had %d bytes a moment ago, and has %d: it is another disk now; run the command again", d.Path, d.Size, size)
	}
	return newSectorDevice(w, d.Path, size, d.sector)
}

// lock locks and dismounts a volume, until w is closed.
func (w *winDrive) lock(v winVolume) error {
	where := v.name
	if len(v.paths) > 0 {
		where = v.paths[0]
	}
	h, err := openHandle(strings.TrimSuffix(v.name, `\`), windows.GENERIC_READ|windows.GENERIC_WRITE, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE, 0)
	if errors.Is(err, windows.ERROR_FILE_NOT_FOUND) || lost(err) {
		return nil // it has gone, or nothing is in it
	}
	if err != nil {
		return err
	}
	w.volumes = append(w.volumes, h)
	busy := []error{windows.ERROR_ACCESS_DENIED, windows.ERROR_SHARING_VIOLATION, windows.ERROR_LOCK_VIOLATION}
	err = patiently(func() error {
		_, err := control(h, fsctlLockVolume, nil, 0)
		return err
	}, busy...)
	if isOne(err, busy) {
		return fmt.Errorf("%s is in use by another program, which has files or folders of %s open: close them first", w.path, where)
	}
	if err == nil {
		_, err = control(h, fsctlDismountVolume, nil, 0)
	}
	if err != nil {
		return fmt.Errorf("%s: dismount %s: %w", w.path, where, err)
	}
	return nil
}

func isOne(err error, of []error) bool {
	return slices.ContainsFunc(of, func(e error) bool { return errors.Is(err, e) })
}

// patiently tries again as long as f fails with one of the errors, but not for long:
// what looks at a card that was put in a moment ago is soon done.
func patiently(f func() error, with ...error) error {
	for range 20 {
		if err := f(); !isOne(err, with) {
			return err
		}
		time.Sleep(250 * time.Millisecond)
	}
	return f()
}

// place is an offset, as Windows wants it.
func place(at int64) *windows.Overlapped {
	return &windows.Overlapped{Offset: uint32(at), OffsetHigh: uint32(at >> 32)}
}

func (w *winDrive) readSectors(b []byte, at int64) error {
	var n uint32
	err := windows.ReadFile(w.handle, b, &n, place(at))
	if err == nil && int(n) != len(b) {
		err = io.ErrUnexpectedEOF
	}
	return w.wrap("read", err)
}

func (w *winDrive) writeSectors(b []byte, at int64) error {
	var n uint32
	err := windows.WriteFile(w.handle, b, &n, place(at))
	if err == nil && int(n) != len(b) {
		err = io.ErrShortWrite
	}
	return w.wrap("write", err)
}

// Sync empties the cache of the disk itself, which is the only one.
func (w *winDrive) Sync() error { return w.wrap("sync", windows.FlushFileBuffers(w.handle)) }

func (w *winDrive) wrap(op string, err error) error {
	if err != nil {
		return &fs.PathError{Op: op, Path: w.path, Err: err}
	}
	return nil
}

// reread makes Windows look for the partitions that are on the disk now. One that it
// does not find so, it finds when the card is put in again.
func (w *winDrive) reread() { _, _ = control(w.handle, ioctlDiskUpdateProperties, nil, 0) }

// Close gives the disk back, and its volumes, which are mounted when they are used.
func (w *winDrive) Close() error {
	var err error
	if w.handle != windows.InvalidHandle {
		err = w.wrap("close", windows.CloseHandle(w.handle))
	}
	for _, v := range w.volumes {
		err = errors.Join(err, w.wrap("close", windows.CloseHandle(v)))
	}
	w.handle, w.volumes = windows.InvalidHandle, nil
	return err
}

// startWriting, dropCache and reread are for files in the place of disks, which are
// read back through Windows' cache.
func startWriting(*os.File, int64, int64, int64, int64) {}

func dropCache(*os.File) error { return nil }

func reread(*os.File) {}
