package filelock

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/windows"
)

// TryExclusive locks a file for this process alone, or fails with ErrLocked.
func TryExclusive(f *os.File) error {
	err := lock(f, windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return ErrLocked
	}
	return err
}

// Exclusive waits until a file is locked for this process alone.
func Exclusive(f *os.File) error { return lock(f, windows.LOCKFILE_EXCLUSIVE_LOCK) }

// Shared waits until a file is locked for this process and others that share it.
func Shared(f *os.File) error { return lock(f, 0) }

// Downgrade makes the lock of TryExclusive or Exclusive one that others can share. The
// first unlocking of a range that has both locks ends the exclusive one (UnlockFileEx).
func Downgrade(f *os.File) error {
	if err := lock(f, 0); err != nil {
		return err
	}
	return windows.UnlockFileEx(windows.Handle(f.Fd()), 0, 1, 0, place())
}

// place is a byte far behind the end of any file: locks of Windows keep others from
// reading what is locked.
func place() *windows.Overlapped { return &windows.Overlapped{OffsetHigh: 1 << 30} }

func lock(f *os.File, how uint32) error {
	return windows.LockFileEx(windows.Handle(f.Fd()), how, 0, 1, 0, place())
}

// Dir waits until a folder is locked for this process alone; closing what it returns
// ends that. Folders themselves cannot be locked here: a file in it is.
func Dir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := Exclusive(f); err != nil {
		return nil, errors.Join(&os.PathError{Op: "lock", Path: dir, Err: err}, f.Close())
	}
	return f, nil
}
