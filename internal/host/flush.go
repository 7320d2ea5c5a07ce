package host

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Flush writes everything of the file system that path is on to the disk, see
// syncfs(2): what other programs wrote without flushing it survives a power cut.
func Flush(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("syncfs %s: %w", path, err)
	}
	return nil
}
