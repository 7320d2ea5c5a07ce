// Package atomicfile writes files that appear whole or not at all: into a
// temporary file of the same folder, fsynced, renamed over the final name, and
// the folder fsynced. A failed or interrupted write leaves the earlier file
// untouched.
package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// WriteFile puts data under path with exactly perm, whatever the umask.
func WriteFile(path string, data []byte, perm os.FileMode) error {
	return Write(path, perm, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
}

// Write lets fill write a temporary file and then puts it under path with
// exactly perm. If fill fails the temporary file is removed and its error returned.
func Write(path string, perm os.FileMode, fill func(*os.File) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), temporary(path)+"*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	if err = f.Chmod(perm); err != nil {
		return err
	}
	if err = fill(f); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

func temporary(path string) string { return "." + filepath.Base(path) + ".tmp-" }

// RemoveLeftovers removes the temporary files of path that writers left who were
// killed. The caller makes sure that nobody is writing it.
func RemoveLeftovers(path string) error {
	dir := filepath.Dir(path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), temporary(path)) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// WriteReader puts everything r yields under path.
func WriteReader(path string, r io.Reader, perm os.FileMode) error {
	return Write(path, perm, func(f *os.File) error {
		_, err := io.Copy(f, r)
		return err
	})
}

// SyncDir makes the names in dir durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
