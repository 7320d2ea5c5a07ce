package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/kiln-os/kiln/internal/sparse"
)

// manifestName is the file in a cached folder that lists what belongs into it: by
// path, a file's SHA-256 or a link's target. A file with holes, such as a disk
// image, has "sparse " and sparse.Digest: hashing gigabytes of zeros takes seconds.
const manifestName = ".manifest.json"

func writeManifest(dir string) error {
	m, err := scan(dir, digestNew)
	if err != nil {
		return err
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, manifestName), b, 0o600)
}

// checkManifest hashes every file of the folder and says what is missing, added or
// changed. A file that is there and cannot be read is an error, no damage.
func checkManifest(dir string) (damage string, err error) {
	if _, err := os.Lstat(dir); err != nil {
		return "", err
	}
	b, err := os.ReadFile(filepath.Join(dir, manifestName))
	if errors.Is(err, fs.ErrNotExist) {
		return "the list of its files is missing", nil
	}
	if err != nil {
		return "", err
	}
	var want map[string]string
	if err := json.Unmarshal(b, &want); err != nil {
		return "the list of its files cannot be read", nil
	}
	// The manifest says which digest a file has: a copied cache may have lost holes.
	got, err := scan(dir, func(rel, name string) (string, error) {
		if strings.HasPrefix(want[rel], sparsePrefix) {
			return sparseDigest(name)
		}
		return FileDigest(name)
	})
	if errors.Is(err, errIrregular) {
		return err.Error(), nil
	}
	if err != nil {
		return "", err
	}
	return difference(want, got), nil
}

// difference names the first file that is not as it should be, or none.
func difference(want, got map[string]string) string {
	for _, name := range slices.Sorted(maps.Keys(want)) {
		switch sum, ok := got[name]; {
		case !ok:
			return name + " is missing"
		case sum != want[name]:
			return name + " has changed"
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[name]; !ok {
			return name + " does not belong there"
		}
	}
	return ""
}

var errIrregular = errors.New("neither a file nor a folder nor a link")

const sparsePrefix = "sparse "

func sparseDigest(name string) (string, error) {
	sum, err := sparse.Digest(name)
	return sparsePrefix + sum, err
}

// digestNew picks the digest of a file that was just made.
func digestNew(_, name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	holes, err := sparse.HasHoles(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	if holes {
		return sparseDigest(name)
	}
	return FileDigest(name)
}

// scan lists the folder. digest is called with each file's path in the folder and
// with its name.
func scan(dir string, digest func(rel, name string) (string, error)) (map[string]string, error) {
	var (
		m     = map[string]string{}
		mu    sync.Mutex
		wg    sync.WaitGroup
		first error
		work  = make(chan string)
	)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for rel := range work {
				sum, err := digest(rel, filepath.Join(dir, rel))
				mu.Lock()
				m[rel], first = sum, errors.Join(first, err)
				mu.Unlock()
			}
		})
	}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		switch {
		case err != nil || rel == manifestName:
			return err
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			mu.Lock()
			m[rel] = "-> " + target
			mu.Unlock()
			return err
		case !d.Type().IsRegular():
			return fmt.Errorf("%s: %w", rel, errIrregular)
		}
		work <- rel
		return nil
	})
	close(work)
	wg.Wait()
	return m, errors.Join(err, first)
}

// FileDigest is the SHA-256 of a file, in hexadecimal.
func FileDigest(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), err
}
