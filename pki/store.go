package pki

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/filelock"
	"github.com/kiln-os/kiln/internal/secret"
)

// store is a locked secrets folder: mode 0700, files 0600.
type store struct {
	dir  string
	lock *os.File
}

// openStore makes the folder if it is missing, locks it against other runs and
// clears temporary files that an interrupted run left: they may hold keys.
func openStore(dir string) (*store, error) {
	for _, d := range []string{dir, filepath.Join(dir, "etcd")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("secrets folder: %w", err)
		}
		if err := checkPrivate(d, "700"); err != nil {
			return nil, err
		}
	}
	// The folder's own name must outlive a crash before keys in it are handed out.
	if err := atomicfile.SyncDir(filepath.Dir(filepath.Clean(dir))); err != nil {
		return nil, fmt.Errorf("secrets folder: %w", err)
	}
	f, err := filelock.Dir(dir)
	if err != nil {
		return nil, fmt.Errorf("secrets folder: %w", err)
	}
	s := &store{dir: dir, lock: f}
	for _, d := range []string{dir, filepath.Join(dir, "etcd")} {
		entries, err := os.ReadDir(d)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("secrets folder: %w", err), s.close())
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".") && strings.Contains(e.Name(), ".tmp-") {
				if err := os.Remove(filepath.Join(d, e.Name())); err != nil {
					return nil, errors.Join(fmt.Errorf("secrets folder: %w", err), s.close())
				}
			}
		}
	}
	return s, nil
}

// close releases the lock.
func (s *store) close() error { return s.lock.Close() }

func (s *store) path(name string) string { return filepath.Join(s.dir, filepath.FromSlash(name)) }

// readSecret reads a private file; ok is false only if it does not exist.
func (s *store) readSecret(name string) (v secret.Value, ok bool, err error) {
	if err := checkPrivate(s.path(name), "600"); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return secret.Value{}, false, nil
		}
		return secret.Value{}, false, err
	}
	b, ok, err := s.readPublic(name)
	return secret.New(b), ok, err
}

// readPublic reads a file that others may read; ok is false only if it does not exist.
func (s *store) readPublic(name string) (b []byte, ok bool, err error) {
	b, err = os.ReadFile(s.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("secrets folder: %w", err)
	}
	return b, true, nil
}

func (s *store) write(name string, data []byte) error {
	return atomicfile.WriteFile(s.path(name), data, 0o600)
}

// checkPrivate refuses paths that the group or others may use. On Windows the access
// list of the folder says that, which those of a user's folders do not let others in;
// a file has no mode there.
func checkPrivate(path, mode string) error {
	st, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("secrets folder: %w", err)
	}
	if runtime.GOOS != "windows" && st.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s holds secrets but has mode %04o: others may read it; run: chmod %s %s", path, st.Mode().Perm(), mode, path)
	}
	return nil
}
