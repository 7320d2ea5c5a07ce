//go:build unix

package diskspace

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// fullErrors are those of a full file system and of a quota that is used up.
var fullErrors = []error{unix.ENOSPC, unix.EDQUOT}

// Free is how many bytes this user can still write to the file system of path,
// which exists. Some file systems keep a part for root.
func Free(path string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", path, err)
	}
	blocks := st.Bavail
	if os.Geteuid() == 0 {
		blocks = st.Bfree
	}
	return int64(blocks) * int64(st.Bsize), nil
}

// usedBy is how much of the disk one file takes, without what it holds if it is a
// folder.
func usedBy(path string) int64 {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return 0
	}
	return st.Blocks * 512
}
