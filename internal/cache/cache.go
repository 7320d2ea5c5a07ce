// Package cache keeps what is expensive to get or make again under ~/.cache/kiln.
// Everything in it is named by content or by the digest of its inputs, becomes
// visible only when whole, and is not believed without a check.
package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"syscall"

	"github.com/kiln-os/kiln/internal/atomicfile"
)

// Cache is a folder of the host. Several processes may use it at once.
type Cache struct{ dir string }

// Open returns the cache in dir, made with mode 0700 if it is absent. An empty
// dir means $KILN_CACHE, else the user's cache folder with /kiln.
func Open(dir string) (*Cache, error) {
	if dir == "" {
		dir = os.Getenv("KILN_CACHE")
	}
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("cache: %w; name a folder with --cache or KILN_CACHE", err)
		}
		dir = filepath.Join(base, "kiln")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, "blobs"), 0o700); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	return &Cache{dir}, nil
}

// Path is the cache's folder.
func (c *Cache) Path() string { return c.dir }

var digestForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Blob returns the file with the given SHA-256 if the cache has it. Its bytes are
// hashed first; a file that does not match is removed and counts as missing.
func (c *Cache) Blob(sum string) (path string, ok bool, err error) {
	if !digestForm.MatchString(sum) {
		return "", false, fmt.Errorf("cache: %q is no SHA-256 in hexadecimal", sum)
	}
	path = filepath.Join(c.dir, "blobs", sum)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return path, false, nil
	}
	if err != nil {
		return "", false, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", false, err
	}
	if hex.EncodeToString(h.Sum(nil)) == sum {
		return path, true, nil
	}
	// Another process may have found the same, and removed it first.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", false, err
	}
	return path, false, nil
}

// MismatchError says that fetched bytes are not the ones that were asked for.
type MismatchError struct {
	WantSum, GotSum   string
	WantSize, GotSize int64
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("got %d bytes with SHA-256 %s, expected %d bytes with %s", e.GotSize, e.GotSum, e.WantSize, e.WantSum)
}

// Fetch returns the blob with the given SHA-256, from the cache or from open. A
// size below 0 is not checked. What open yields is kept only if it matches.
func (c *Cache) Fetch(ctx context.Context, sum string, size int64, open func(context.Context) (io.ReadCloser, error)) (string, error) {
	path, ok, err := c.Blob(sum)
	if err != nil || ok {
		return path, err
	}
	r, err := open(ctx)
	if err != nil {
		return "", err
	}
	defer r.Close()
	err = atomicfile.Write(path, 0o600, func(f *os.File) error {
		h := sha256.New()
		var src io.Reader = r
		if size >= 0 {
			// One byte more shows that there is more.
			src = io.LimitReader(r, size+1)
		}
		n, err := io.Copy(io.MultiWriter(f, h), src)
		if err != nil {
			return err
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != sum || size >= 0 && n != size {
			return &MismatchError{sum, got, size, n}
		}
		return nil
	})
	// What was fetched is at fault then, not the file it was written to.
	if m := (*MismatchError)(nil); errors.As(err, &m) {
		return "", m
	}
	return path, err
}

// Dir returns the folder for key among those of kind. If it is absent, or its
// files are not the ones that were made (see manifest), fill makes it in a
// temporary folder, which gets its name only when fill succeeded. Two processes
// that want the same folder do not make it twice.
func (c *Cache) Dir(kind, key string, fill func(tmp string) error) (string, error) {
	if !digestForm.MatchString(key) {
		return "", fmt.Errorf("cache: %q is no SHA-256 in hexadecimal", key)
	}
	parent := filepath.Join(c.dir, kind)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return "", err
	}
	final := filepath.Join(parent, key)
	unlock, err := lock(final + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	switch _, err := os.Stat(final); {
	case err == nil:
		if checkManifest(final) == nil {
			return final, nil
		}
		// Damaged: it is made anew, never used.
		if err := os.RemoveAll(final); err != nil {
			return "", err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	// Under the lock, what an interrupted process left is nobody's.
	tmp := final + ".tmp"
	if err := os.RemoveAll(tmp); err != nil {
		return "", err
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return "", err
	}
	err = fill(tmp)
	if err == nil {
		err = writeManifest(tmp)
	}
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(tmp))
	}
	if err := os.Rename(tmp, final); err != nil {
		return "", err
	}
	return final, atomicfile.SyncDir(parent)
}

// Find returns the folder for key among those of kind, if the cache has it and its
// files are the ones that were made.
func (c *Cache) Find(kind, key string) (dir string, ok bool, err error) {
	if !digestForm.MatchString(key) {
		return "", false, fmt.Errorf("cache: %q is no SHA-256 in hexadecimal", key)
	}
	final := filepath.Join(c.dir, kind, key)
	if _, err := os.Stat(final); errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	unlock, err := lock(final + ".lock")
	if err != nil {
		return "", false, err
	}
	defer unlock()
	return final, checkManifest(final) == nil, nil
}

// Forget removes the folder for key among those of kind, so that the next use
// makes it anew. A folder that is not there is no error.
func (c *Cache) Forget(kind, key string) error {
	if !digestForm.MatchString(key) {
		return fmt.Errorf("cache: %q is no SHA-256 in hexadecimal", key)
	}
	final := filepath.Join(c.dir, kind, key)
	unlock, err := lock(final + ".lock")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	return os.RemoveAll(final)
}

// Key is the SHA-256 of the parts, unambiguous as to where each ends.
func Key(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s\n", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// ErrLocked says that another process holds a lock.
var ErrLocked = errors.New("locked by another process")

// TryLock locks the file at path, made if absent, or fails with ErrLocked. The
// lock ends with unlock or with the process.
func TryLock(path string) (unlock func(), err error) {
	unlock, err = flock(path, syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = ErrLocked
	}
	return unlock, err
}

func lock(path string) (unlock func(), err error) { return flock(path, syscall.LOCK_EX) }

func flock(path string, how int) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _ = f.Close() }, nil
}
