package diskspace

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

// fullErrors are those of a full file system and of a quota that is used up.
var fullErrors = []error{windows.ERROR_DISK_FULL, windows.ERROR_HANDLE_DISK_FULL, windows.ERROR_DISK_QUOTA_EXCEEDED}

// Free is how many bytes this user can still write to the file system of path,
// which exists.
func Free(path string) (int64, error) {
	name, err := windows.UTF16PtrFromString(path)
	var free uint64
	if err == nil {
		err = windows.GetDiskFreeSpaceEx(name, &free, nil, nil)
	}
	if err != nil {
		return 0, fmt.Errorf("free space of %s: %w", path, err)
	}
	return int64(free), nil
}

// usedBy is how much of the disk one file takes: without its holes, where the file
// system knows of any.
func usedBy(path string) int64 {
	st, err := os.Lstat(path)
	if err != nil || !st.Mode().IsRegular() {
		return 0
	}
	f, err := os.Open(path)
	if err != nil {
		return st.Size()
	}
	defer f.Close()
	var info struct { // FILE_COMPRESSION_INFO
		size int64
		_    [8]byte
	}
	if windows.GetFileInformationByHandleEx(windows.Handle(f.Fd()), windows.FileCompressionInfo, (*byte)(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info))) != nil {
		return st.Size()
	}
	return info.size
}
