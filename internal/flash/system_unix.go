//go:build !windows

package flash

import (
	"fmt"
	"os"
	"syscall"
)

// lostErrors are those of a disk that is not there any more, or takes no data.
var lostErrors = []error{syscall.EIO, syscall.ENXIO, syscall.ENODEV, syscall.ENOSPC}

// asRoot is what to do if a disk may not be opened.
const asRoot = "writing to a disk takes root: run the command with sudo"

// IsDisk says whether a path is that of a disk or another device, and not of a file.
func IsDisk(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode()&os.ModeDevice != 0
}

// makeFile is the command that makes a file in the place of a disk.
func makeFile(path string, size int64) string {
	return fmt.Sprintf("truncate -s %dM %s", size>>20, path)
}

func openDevice(d Disk) (device, error) { return openFile(d.Path) }
