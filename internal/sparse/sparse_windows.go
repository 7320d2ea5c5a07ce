package sparse

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

// extents lists the data of a file. A file system without that knowledge, and a file
// that was not allowed to have holes, call the whole file data.
func extents(f *os.File, size int64) ([]extent, error) {
	if size == 0 {
		return nil, nil
	}
	room := make([]byte, 1024*rangeBytes)
	out, err := askRanges(size, func(query []byte) ([]byte, bool, error) {
		n, err := control(f.Fd(), windows.FSCTL_QUERY_ALLOCATED_RANGES, query, room)
		more := errors.Is(err, windows.ERROR_MORE_DATA)
		if more {
			err = nil
		}
		return room[:n], more, err
	})
	if errors.Is(err, windows.ERROR_INVALID_FUNCTION) || errors.Is(err, windows.ERROR_NOT_SUPPORTED) || errors.Is(err, windows.ERROR_INVALID_PARAMETER) {
		return []extent{{0, size}}, nil
	}
	return out, err
}

// allow lets a file have holes, which NTFS wants to be told. On a file system without
// them, the file takes its whole size.
func allow(f *os.File) { _, _ = control(f.Fd(), windows.FSCTL_SET_SPARSE, nil, nil) }

// Punch makes a hole of a part of an open file, if its file system can. A file that may
// have none gets zeros (FILE_ZERO_DATA_INFORMATION: where it begins, and where it ends).
func Punch(fd uintptr, from, to int64) bool {
	_, err := control(fd, windows.FSCTL_SET_ZERO_DATA, rangeQuery(from, to), nil)
	return err == nil
}

func control(fd uintptr, code uint32, in, out []byte) (n uint32, err error) {
	err = windows.DeviceIoControl(windows.Handle(fd), code, unsafe.SliceData(in), uint32(len(in)), unsafe.SliceData(out), uint32(len(out)), &n, nil)
	return n, err
}

func reflink(_, _ *os.File) bool { return false }

func startWriting(*os.File, int64, int64) {}
