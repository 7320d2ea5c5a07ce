package deb

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/cache"
)

// Lock is what a resolution found, so that a later build takes the same packages.
type Lock struct {
	Suite      string    `json:"suite"`
	Arch       string    `json:"arch"` // Debian's name
	Components []string  `json:"components"`
	Date       time.Time `json:"date"`      // of the suite's InRelease
	InRelease  string    `json:"inRelease"` // its SHA-256
	// AsOf is the day as of which it was judged, if one was named, see Archive.AsOf.
	AsOf     string          `json:"asOf,omitempty"`
	Request  string          `json:"request"` // digest of what was resolved, see Request.Digest
	Packages []LockedPackage `json:"packages"`
}

// LockedPackage is one package of a Lock.
type LockedPackage struct {
	Name     string `json:"name"`
	Version  string `json:"version"`
	Arch     string `json:"arch"`
	Filename string `json:"filename"`
	Size     int64  `json:"size"` // bytes
	SHA256   string `json:"sha256"`
}

// resolverVersion changes when the same request may resolve to something else.
const resolverVersion = "3"

// Digest names the request and the version of the resolver.
func (r Request) Digest() (string, error) {
	b, err := json.Marshal(r)
	return cache.Key("request", resolverVersion, string(b)), err
}

// Locked reads a lock that an earlier resolution of the same request wrote to path,
// possibly among others. It is an error if there is none of this request.
func (a *Archive) Locked(path, arch string, req Request) (*Lock, error) {
	locks, err := ReadLocks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no lock file %s to build from; build once without --locked", path)
	}
	if err != nil {
		return nil, err
	}
	request, err := req.Digest()
	if err != nil {
		return nil, err
	}
	var has []string
	for _, l := range locks {
		if l.Suite == a.Suite && l.Arch == arch && l.Request == request && slices.Equal(l.Components, a.Components) {
			return l, nil
		}
		has = append(has, l.Suite+", "+l.Arch)
	}
	return nil, fmt.Errorf("lock file %s is of another list of packages (%s): this version of imagegen, this profile or this suite (%s, %s) wants others; build once without --locked", path, strings.Join(has, "; "), a.Suite, arch)
}

// Resolve verifies the suite, resolves the request and returns the lock. What one
// InRelease resolves to never changes, so it is kept, and the indexes are read
// only for an InRelease or a request that is new.
func (a *Archive) Resolve(ctx context.Context, arch string, req Request) (*Lock, error) {
	rel, err := a.Release(ctx)
	if err != nil {
		return nil, err
	}
	request, err := req.Digest()
	if err != nil {
		return nil, err
	}
	key := cache.Key(append([]string{"resolution", rel.SHA256, a.Suite, arch, request}, a.Components...)...)
	dir, err := a.Cache.Dir(ctx, "resolutions", key, func(tmp string) error {
		l, err := a.resolve(ctx, rel, arch, req)
		if err != nil {
			return err
		}
		l.Request = request
		return l.Write(filepath.Join(tmp, resolutionFile))
	})
	if err != nil {
		return nil, err
	}
	l, err := ReadLock(filepath.Join(dir, resolutionFile))
	if err == nil && !a.AsOf.IsZero() {
		l.AsOf = a.AsOf.Format(time.DateOnly)
	}
	return l, err
}

const resolutionFile = "lock.yaml"

func (a *Archive) resolve(ctx context.Context, rel *Release, arch string, req Request) (*Lock, error) {
	ix, err := a.Packages(ctx, rel, arch)
	if err != nil {
		return nil, err
	}
	ps, err := ix.Resolve(req)
	if err != nil {
		return nil, fmt.Errorf("suite %s of %s, architecture %s: %w", a.Suite, rel.Date.Format(time.RFC3339), arch, err)
	}
	l := &Lock{Suite: a.Suite, Arch: arch, Components: a.Components, Date: rel.Date, InRelease: rel.SHA256}
	for _, p := range ps {
		l.Packages = append(l.Packages, LockedPackage{p.Name, p.Version, p.Arch, p.Filename, p.Size, p.SHA256})
	}
	return l, nil
}

// Digest names the lock's content.
func (l *Lock) Digest() (string, error) {
	b, err := yaml.Marshal(l)
	return cache.Key(string(b)), err
}

// Marshal renders the lock file.
func (l *Lock) Marshal() ([]byte, error) {
	b, err := yaml.Marshal(l)
	if err != nil {
		return nil, err
	}
	return append([]byte("# The Debian packages of the image, as they were resolved. Written by imagegen.\n"), b...), nil
}

// Write puts the lock file at path.
func (l *Lock) Write(path string) error {
	b, err := l.Marshal()
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(path, b, 0o644)
}

// separator stands between the locks of a file.
const separator = "---\n"

// WriteLocks puts a lock file of several resolutions at path, a YAML document for each.
// Of one it is what Write makes.
func WriteLocks(path string, locks []*Lock) error {
	var docs [][]byte
	for _, l := range locks {
		b, err := l.Marshal()
		if err != nil {
			return err
		}
		docs = append(docs, b)
	}
	return atomicfile.WriteFile(path, bytes.Join(docs, []byte(separator)), 0o644)
}

// ReadLocks reads what WriteLocks wrote, strictly.
func ReadLocks(path string) ([]*Lock, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var locks []*Lock
	for _, doc := range bytes.Split(b, []byte("\n"+separator)) {
		l, err := ParseLock(doc)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		locks = append(locks, l)
	}
	return locks, nil
}

// ReadLock reads a lock file strictly.
func ReadLock(path string) (*Lock, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	l, err := ParseLock(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return l, nil
}

// ParseLock reads what Marshal rendered, strictly.
func ParseLock(b []byte) (*Lock, error) {
	var l Lock
	if err := yaml.UnmarshalStrict(b, &l); err != nil {
		return nil, err
	}
	for _, p := range l.Packages {
		if p.Name == "" || p.Filename == "" || len(p.SHA256) != 64 || p.Size <= 0 {
			return nil, fmt.Errorf("package %q lacks a name, file name, size or SHA-256", p.Name)
		}
	}
	return &l, nil
}

// parallel is how many packages are fetched at once.
const parallel = 4

// Fetch gets all packages of the lock and returns their files in its order.
// progress, if set, is called with the bytes that are there and all bytes, while
// they come and never by two at once. The count goes back when a transfer is
// tried again.
func (a *Archive) Fetch(ctx context.Context, l *Lock, progress func(done, total int64)) ([]string, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		wg   sync.WaitGroup
		next atomic.Int64
	)
	all := &meter{report: progress}
	for _, p := range l.Packages {
		all.total += p.Size
	}
	files := make([]string, len(l.Packages))
	for range parallel {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(l.Packages) || ctx.Err() != nil {
					return
				}
				p := l.Packages[i]
				one := &transfer{meter: all}
				file, err := a.fetchCounted(ctx, p.SHA256, p.Size, one, p.Filename)
				if err != nil {
					cancel(fetchError(p, err)) // the first one counts
					return
				}
				files[i] = file
				one.finish(p.Size)
			}
		})
	}
	wg.Wait()
	return files, context.Cause(ctx)
}

func fetchError(p LockedPackage, err error) error {
	if errors.As(err, new(*NotFoundError)) {
		return fmt.Errorf("package %s %s is not on the mirror any more (%w): the archive has moved on; resolve anew", p.Name, p.Version, err)
	}
	return fmt.Errorf("package %s %s: %w", p.Name, p.Version, err)
}
