package host

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Space is the room of a file system.
type Space struct {
	Bytes, FreeBytes   uint64
	Inodes, FreeInodes uint64 // 0 where inodes are made as needed
}

// SpaceOf is the room of the file system that path is on, as root may use it.
func SpaceOf(path string) (Space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return Space{}, fmt.Errorf("free space of %s: %w", path, err)
	}
	block := uint64(st.Bsize)
	return Space{Bytes: st.Blocks * block, FreeBytes: st.Bfree * block, Inodes: st.Files, FreeInodes: st.Ffree}, nil
}

// Seeded reports whether the kernel's random number generator has enough entropy.
func Seeded() (bool, error) {
	_, err := unix.Getrandom(make([]byte, 1), unix.GRND_NONBLOCK)
	if errors.Is(err, unix.EAGAIN) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("getrandom: %w", err)
	}
	return true, nil
}
