package nodeimage

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

var (
	errInUse = errors.New("in use")
	errBusy  = unix.EBUSY
)

// lock locks the whole file for this open file description, as QEMU locks bytes of
// the images that it has open, also as the backing file of an overlay
// (block/file-posix.c), and with flock(2), as udev and other tools lock disks. Both
// end when the file is closed.
func lock(f *os.File) error {
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return errInUse
	}
	return err
}
