package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/kiln-os/kiln/internal/filelock"
	"github.com/kiln-os/kiln/internal/procgroup"
)

// LockedError says that another process holds a lock.
type LockedError struct {
	Path string // the lock file
	PID  int    // of the process; 0 if that is not known
}

func (e *LockedError) Error() string { return e.Path + " is locked by " + e.Holder() }

// Holder names the process in words.
func (e *LockedError) Holder() string {
	if e.PID == 0 {
		return "another process"
	}
	return fmt.Sprintf("another process (%d)", e.PID)
}

// TryLock locks the file at path, made if absent, or fails with a LockedError. The
// lock ends with unlock or with the process: none is ever stale.
func TryLock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	switch err := filelock.TryExclusive(f); {
	case errors.Is(err, filelock.ErrLocked):
		return nil, errors.Join(&LockedError{path, holder(f)}, f.Close())
	case err != nil:
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	// The number is for messages alone, so a full disk does not matter here.
	_ = f.Truncate(0)
	_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return func() {
		_ = f.Truncate(0)
		_ = f.Close()
	}, nil
}

// holder reads the number of the process that holds a lock. One that was killed
// leaves its number; that is not taken for the next one's.
func holder(f *os.File) int {
	b := [16]byte{}
	n, _ := f.ReadAt(b[:], 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil || pid <= 0 || !procgroup.Alive(pid) {
		return 0
	}
	return pid
}

// lockPoll is how often a lock that another process holds is tried again: one
// that waits by itself would not end with a context.
const lockPoll = 100 * time.Millisecond

// lock locks a folder of the cache, and says so if it has to wait.
func (c *Cache) lock(ctx context.Context, final string) (unlock func(), err error) {
	for said := false; ; {
		unlock, err = TryLock(final + ".lock")
		var held *LockedError
		if !errors.As(err, &held) {
			return unlock, err
		}
		if !said {
			c.logf("waiting for %s, which makes or checks %s", held.Holder(), final)
			said = true
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for %s: %w", final, context.Cause(ctx))
		case <-time.After(lockPoll):
		}
	}
}

// sweep removes what killed processes left, if no other process uses the cache,
// and returns a file whose shared lock shows that this one does.
func sweep(dir string) (inUse *os.File, err error) {
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	take := filelock.Shared
	switch err := filelock.TryExclusive(f); {
	case err == nil:
		if err := sweepDir(dir, 2); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		take = filelock.Downgrade
	case !errors.Is(err, filelock.ErrLocked):
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
	}
	if err := take(f); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
	}
	return f, nil
}

// sweepDir goes into folders to a depth; those that hold content are not entered,
// nor are links: what is there may be another cache's.
func sweepDir(dir string, depth int) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		switch {
		case strings.Contains(e.Name(), tempMark):
			err = os.RemoveAll(name)
		case e.IsDir() && depth > 0 && !digestForm.MatchString(e.Name()):
			err = sweepDir(name, depth-1)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("left by an interrupted run: %w", err)
		}
	}
	return nil
}
