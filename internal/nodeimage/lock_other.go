//go:build !linux

package nodeimage

import (
	"errors"
	"os"
	"syscall"

	"github.com/kiln-os/kiln/internal/filelock"
)

var (
	errInUse = errors.New("in use")
	errBusy  = syscall.EBUSY
)

// lock locks the file against other imagegen processes.
func lock(f *os.File) error {
	err := filelock.TryExclusive(f)
	if errors.Is(err, filelock.ErrLocked) {
		return errInUse
	}
	return err
}
