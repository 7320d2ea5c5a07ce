//go:build unix

package filelock

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// TryExclusive locks a file for this process alone, or fails with ErrLocked.
func TryExclusive(f *os.File) error {
	err := flock(f, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrLocked
	}
	return err
}

// Exclusive waits until a file is locked for this process alone.
func Exclusive(f *os.File) error { return flock(f, unix.LOCK_EX) }

// Shared waits until a file is locked for this process and others that share it.
func Shared(f *os.File) error { return flock(f, unix.LOCK_SH) }

// Downgrade makes the lock of TryExclusive or Exclusive one that others can share.
func Downgrade(f *os.File) error { return flock(f, unix.LOCK_SH) }

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Dir waits until a folder is locked for this process alone; closing what it returns
// ends that.
func Dir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := Exclusive(f); err != nil {
		return nil, errors.Join(&os.PathError{Op: "lock", Path: dir, Err: err}, f.Close())
	}
	return f, nil
}
