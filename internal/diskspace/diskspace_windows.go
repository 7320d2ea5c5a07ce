package diskspace

import (
	"fmt"
	"os"

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

// usedBy is how much of the disk one file takes: its size, as holes are rare here.
func usedBy(path string) int64 {
	st, err := os.Lstat(path)
	if err != nil || !st.Mode().IsRegular() {
		return 0
	}
	return st.Size()
}
