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
	"strings"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/diskspace"
)

// Cache is a folder of the host. Several processes may use it at once.
type Cache struct {
	dir string
	// inUse is locked, shared, as long as the Cache is used: see sweep.
	inUse *os.File
	// Log, if not nil, is told of what was found damaged and of what is waited for.
	Log func(line string)
}

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
		return nil, unusable(dir, err)
	}
	inUse, err := sweep(dir)
	if err != nil {
		return nil, unusable(dir, err)
	}
	return &Cache{dir: dir, inUse: inUse}, nil
}

func unusable(dir string, err error) error {
	return diskspace.Explain(fmt.Errorf("cache: %w; name a folder that can be written with --cache or KILN_CACHE", err), dir, 0, false)
}

func (c *Cache) logf(format string, args ...any) {
	if c.Log != nil {
		c.Log(fmt.Sprintf(format, args...))
	}
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
	c.logf("damaged in the cache, got again: %s", path)
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
		src = &untilDone{ctx, src}
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
	if full := (*diskspace.FullError)(nil); errors.As(err, &full) && size >= 0 {
		full.Need, full.All = size, true
	}
	return path, err
}

// untilDone is a Reader that ends with its context.
type untilDone struct {
	ctx context.Context
	io.Reader
}

func (r *untilDone) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// tempMark is between the name of a folder and what makes its temporary one unique.
const tempMark = ".tmp-"

// Dir returns the folder for key among those of kind. If it is absent, or its
// files are not the ones that were made (see manifest), fill makes it in a
// temporary folder, which gets its name only when fill succeeded. Two processes
// that want the same folder do not make it twice: one waits until the other is
// done or ctx ends.
func (c *Cache) Dir(ctx context.Context, kind, key string, fill func(tmp string) error) (string, error) {
	if !digestForm.MatchString(key) {
		return "", fmt.Errorf("cache: %q is no SHA-256 in hexadecimal", key)
	}
	parent := filepath.Join(c.dir, kind)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return "", diskspace.Explain(err, parent, 0, false)
	}
	final := filepath.Join(parent, key)
	unlock, err := c.lock(ctx, final)
	if err != nil {
		return "", diskspace.Explain(err, final, 0, false)
	}
	defer unlock()
	// Under the lock, what a killed process left is nobody's. A program that it
	// started may still write there: no name is used twice.
	if err := removeLeft(final); err != nil {
		return "", err
	}
	damage, err := checkManifest(final)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return "", fmt.Errorf("%w: it cannot be checked; removing %s lets it be made anew", err, final)
	case damage == "":
		return final, nil
	default:
		c.logf("damaged in the cache, made again: %s (%s)", final, damage)
		if err := discard(final); err != nil {
			return "", err
		}
	}
	return final, makeDir(parent, key, fill)
}

// makeDir fills a temporary folder and gives it its name.
func makeDir(parent, key string, fill func(tmp string) error) error {
	final := filepath.Join(parent, key)
	tmp, err := os.MkdirTemp(parent, key+tempMark)
	if err != nil {
		return diskspace.Explain(err, final, 0, false)
	}
	if err = fill(tmp); err == nil {
		err = writeManifest(tmp)
	}
	if err == nil {
		if err = os.Rename(tmp, final); err == nil {
			return atomicfile.SyncDir(parent)
		}
	}
	used := diskspace.Used(tmp)
	if removeErr := os.RemoveAll(tmp); removeErr != nil {
		return errors.Join(err, removeErr)
	}
	return diskspace.Explain(err, final, used, false)
}

// discard removes a folder of the cache, so that no half of it keeps its name.
func discard(final string) error {
	tmp, err := os.MkdirTemp(filepath.Dir(final), filepath.Base(final)+tempMark)
	if err != nil {
		// A full disk must not keep its room from being made.
		return os.RemoveAll(final)
	}
	return errors.Join(os.Rename(final, filepath.Join(tmp, "discarded")), os.RemoveAll(tmp))
}

// removeLeft removes the temporary folders of a folder.
func removeLeft(final string) error {
	parent, name := filepath.Split(final)
	entries, err := os.ReadDir(parent)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), name+tempMark) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(parent, e.Name())))
		}
	}
	return err
}

// Find returns the folder for key among those of kind, if the cache has it and its
// files are the ones that were made.
func (c *Cache) Find(ctx context.Context, kind, key string) (dir string, ok bool, err error) {
	if !digestForm.MatchString(key) {
		return "", false, fmt.Errorf("cache: %q is no SHA-256 in hexadecimal", key)
	}
	final := filepath.Join(c.dir, kind, key)
	if _, err := os.Stat(final); errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	unlock, err := c.lock(ctx, final)
	if err != nil {
		return "", false, err
	}
	defer unlock()
	damage, err := checkManifest(final)
	if err != nil || damage == "" {
		return final, err == nil, err
	}
	c.logf("damaged in the cache: %s (%s)", final, damage)
	return "", false, nil
}

// Forget removes the folder for key among those of kind, so that the next use
// makes it anew. A folder that is not there is no error.
func (c *Cache) Forget(ctx context.Context, kind, key string) error {
	if !digestForm.MatchString(key) {
		return fmt.Errorf("cache: %q is no SHA-256 in hexadecimal", key)
	}
	final := filepath.Join(c.dir, kind, key)
	if _, err := os.Lstat(final); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unlock, err := c.lock(ctx, final)
	if err != nil {
		return err
	}
	defer unlock()
	return discard(final)
}

// TempDir makes a folder in the cache for a process's own use, which removes it.
// If it is killed before, the next process that has the cache to itself does.
func (c *Cache) TempDir(name string) (string, error) {
	dir, err := os.MkdirTemp(c.dir, name+tempMark)
	return dir, diskspace.Explain(err, filepath.Join(c.dir, name), 0, false)
}

// Key is the SHA-256 of the parts, unambiguous as to where each ends.
func Key(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s\n", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))
}
