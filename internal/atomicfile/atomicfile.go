// Package atomicfile writes files that appear whole or not at all: into a
// temporary file of the same folder, fsynced, renamed over the final name, and
// the folder fsynced. A failed or interrupted write leaves the earlier file
// untouched.
package atomicfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"

	"github.com/kiln-os/kiln/internal/diskspace"
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
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-*")
	if err != nil {
		return diskspace.Explain(fmt.Errorf("write %s: %w", path, err), path, 0, false)
	}
	defer func() {
		if err != nil {
			used := diskspace.Used(f.Name())
			_ = f.Close()
			_ = os.Remove(f.Name())
			if full := diskspace.Explain(err, path, used, false); full != err {
				err = full
				return
			}
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

// temporary matches the names that Write gives its temporary files.
var temporary = regexp.MustCompile(`^\..+\.tmp-[0-9]+$`)

// Sweep removes the temporary files in dir that killed processes left. Nobody may
// be writing to dir.
func Sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if temporary.MatchString(e.Name()) && e.Type().IsRegular() {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("left by an interrupted run: %w", err)
			}
		}
	}
	return nil
}

// SyncDir makes the names in dir durable. Windows does that by itself, and cannot be
// asked to.
func SyncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
