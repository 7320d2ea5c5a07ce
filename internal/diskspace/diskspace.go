// Package diskspace turns "no space left on device" into an error that says where,
// how much is needed and how much is free.
package diskspace

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// FullError says that a file system, or the user's quota on it, is full.
type FullError struct {
	Path string // what was to be written
	Need int64  // bytes: all that are needed, or what was written until it was full
	All  bool   // Need is all that is needed
	Free int64  // bytes, once what was half-written is removed
	Err  error  // may be nil
}

func (e *FullError) Error() string {
	least := "more than "
	if e.All {
		least = ""
	}
	s := fmt.Sprintf("%s: the disk is full: %s%s needed, %s free; make room there, or choose a folder on another disk", e.Path, least, size(e.Need), size(e.Free))
	if e.Err != nil {
		s += fmt.Sprintf(" (%v)", e.Err)
	}
	return s
}

// Unwrap returns the cause.
func (e *FullError) Unwrap() error { return e.Err }

// size prints a number of bytes for people.
func size(n int64) string {
	if n < 10<<20 {
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

// Require fails with a FullError if the folder of path has less than need bytes free.
func Require(path string, need int64) error {
	free, err := Free(filepath.Dir(path))
	if err != nil || free >= need {
		return err
	}
	return &FullError{Path: path, Need: need, All: true, Free: free}
}

// Explain makes a FullError of an error that a full disk caused while path was
// written, and returns any other as it is. need is as in FullError, all as its All.
// The half-written file must be removed already.
func Explain(err error, path string, need int64, all bool) error {
	if !isFull(err) || errors.As(err, new(*FullError)) {
		return err
	}
	free, statErr := Free(filepath.Dir(path))
	if statErr != nil {
		return errors.Join(err, statErr)
	}
	return &FullError{Path: path, Need: need, All: all, Free: free, Err: err}
}

// isFull also knows what programs print whose error is an exit code.
func isFull(err error) bool {
	return err != nil && (slices.ContainsFunc(fullErrors, func(e error) bool { return errors.Is(err, e) }) ||
		strings.Contains(strings.ToLower(err.Error()), "no space left on device"))
}

// Used is how many bytes the file or folder takes on the disk.
func Used(path string) int64 {
	var sum int64
	// What cannot be looked at does not count: this is for a message.
	_ = filepath.WalkDir(path, func(p string, _ fs.DirEntry, err error) error {
		if err == nil {
			sum += usedBy(p)
		}
		return nil
	})
	return sum
}
