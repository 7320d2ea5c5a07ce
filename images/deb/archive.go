package deb

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/xi2/xz"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/cache"
)

// keyring holds the archive keys of the package debian-archive-keyring.
//
//go:embed debian-archive-keyring.gpg
var keyring []byte

// Archive is where packages come from.
type Archive struct {
	Mirror     string // base URL, see FindMirror
	Suite      string // such as trixie
	Components []string
	Cache      *cache.Cache
	// Keyring replaces the built-in archive keys; a binary OpenPGP keyring.
	Keyring []byte
	// Now judges signatures and Valid-Until.
	Now time.Time
	// AsOf, if set, is the day (its midnight in UTC) as of whose end Valid-Until is judged
	// instead: for a mirror that stands still, or the archive of a day that is past.
	// Signatures and keys are judged by Now all the same, and a suite that is newer than
	// the day is refused.
	AsOf time.Time
	// Offline takes the InRelease that was verified last instead of the mirror's, and
	// verifies it again.
	Offline bool
}

const maxInRelease = 4 << 20 // bytes; trixie's has 140 KB

// Release fetches and verifies the suite's InRelease.
func (a *Archive) Release(ctx context.Context) (*Release, error) {
	rel, err := a.release(ctx)
	if err != nil {
		return nil, fmt.Errorf("suite %s: InRelease: %w", a.Suite, err)
	}
	return rel, nil
}

func (a *Archive) release(ctx context.Context) (*Release, error) {
	// Per mirror, so that one that lags behind does not mix with another.
	kept := filepath.Join(a.Cache.Path(), "releases", cache.Key(a.Mirror, a.Suite))
	var b []byte
	var err error
	if a.Offline {
		if b, err = os.ReadFile(kept); errors.Is(err, os.ErrNotExist) {
			return nil, errors.New("none of this mirror was fetched yet, so this cannot be done offline")
		}
	} else {
		err = retry(ctx, func() error {
			r, err := get(ctx, a.Mirror, "dists/"+a.Suite+"/InRelease")
			if err != nil {
				return err
			}
			defer r.Close()
			b, err = io.ReadAll(io.LimitReader(r, maxInRelease))
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	keys := a.Keyring
	if keys == nil {
		keys = keyring
	}
	rel, err := verifyRelease(b, keys, a.Now, a.AsOf)
	if err != nil && a.Offline {
		err = fmt.Errorf("the copy in the cache, %s: %w; build once without --offline", kept, err)
	}
	if err != nil {
		return nil, err
	}
	if rel.Suite != a.Suite && rel.Codename != a.Suite {
		return nil, fmt.Errorf("the mirror serves that of %s (%s)", rel.Codename, rel.Suite)
	}
	if a.Offline {
		return rel, nil
	}
	if err := os.MkdirAll(filepath.Dir(kept), 0o700); err != nil {
		return nil, err
	}
	return rel, atomicfile.WriteFile(kept, b, 0o600)
}

// Packages fetches, verifies and reads the indexes of one architecture.
func (a *Archive) Packages(ctx context.Context, rel *Release, arch string) (*Index, error) {
	ix := newIndex()
	for _, c := range a.Components {
		name := c + "/binary-" + arch + "/Packages.xz"
		want, ok := rel.files[name]
		if !ok {
			return nil, fmt.Errorf("suite %s of %s has no %s: is %s one of its architectures and %s one of its components?", a.Suite, rel.Date.Format(time.RFC3339), name, arch, c)
		}
		dir := "dists/" + a.Suite + "/"
		// By its digest the file of this InRelease stays for a while when a newer one comes.
		file, err := a.fetch(ctx, want.sum, want.size, dir+path.Dir(name)+"/by-hash/SHA256/"+want.sum, dir+name)
		if err != nil {
			if errors.As(err, new(*cache.MismatchError)) || errors.As(err, new(*NotFoundError)) {
				err = &StaleError{err: fmt.Errorf("the mirror's %s is not the one that its signed InRelease names: %w", name, err)}
			}
			return nil, fmt.Errorf("suite %s of %s, architecture %s: %w", a.Suite, rel.Date.Format(time.RFC3339), arch, err)
		}
		if err := ix.readFile(file); err != nil {
			return nil, fmt.Errorf("suite %s, architecture %s: %s: %w", a.Suite, arch, name, err)
		}
	}
	return ix, nil
}

var errOffline = errors.New("it is not in the cache, and offline nothing is fetched; build once without --offline")

// fetch returns the blob with the digest, from the cache or from the first of the
// paths that the mirror has.
func (a *Archive) fetch(ctx context.Context, sum string, size int64, paths ...string) (string, error) {
	return a.fetchCounted(ctx, sum, size, &transfer{meter: &meter{}}, paths...)
}

// fetchCounted is fetch that tells a meter what comes.
func (a *Archive) fetchCounted(ctx context.Context, sum string, size int64, count *transfer, paths ...string) (string, error) {
	var file string
	err := retry(ctx, func() error {
		var err error
		file, err = a.Cache.Fetch(ctx, sum, size, func(ctx context.Context) (r io.ReadCloser, err error) {
			if a.Offline {
				return nil, errOffline
			}
			for _, p := range paths {
				if r, err = get(ctx, a.Mirror, p); !errors.As(err, new(*NotFoundError)) {
					break
				}
			}
			if err != nil {
				return nil, err
			}
			return count.begin(r), nil
		})
		return err
	})
	return file, err
}

func (ix *Index) readFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := xz.NewReader(bufio.NewReaderSize(f, 1<<20), 0)
	if err != nil {
		return err
	}
	return ix.read(z)
}
