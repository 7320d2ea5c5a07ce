package nodeimage_test

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// use locks f as QEMU does: it holds read locks on bytes from 100 on
// (block/file-posix.c), and so does one that uses the image as the backing file of an
// overlay.
func use(t *testing.T, f *os.File) {
	t.Helper()
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_RDLCK, Start: 201, Len: 1}); err != nil {
		t.Fatal(err)
	}
}
