package hosttools

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/kiln-os/kiln/images/deb"
	"github.com/kiln-os/kiln/images/tree"
)

const (
	formatVersion = "3"
	rootDir       = "root"
	lockFile      = "lock.yaml"
	manifestFile  = "manifest.json" // SHA-256 of every file, by its path
)

// needless folders of packages are not unpacked.
var needless = []string{"usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian", "var", "etc", "boot"}

func unpack(ctx context.Context, l *deb.Lock, o Options, dir string) error {
	a := &deb.Archive{Suite: l.Suite, Components: l.Components, Cache: o.Cache, Now: o.Now, Keyring: o.Keyring}
	var err error
	if a.Mirror, err = deb.FindMirror(o.Mirror, "/etc/apt"); err != nil {
		return err
	}
	files, err := a.Fetch(ctx, l, nil)
	if err != nil {
		return err
	}
	t, err := deb.Unpack(ctx, o.Cache, l, files)
	if err != nil {
		return err
	}
	for _, p := range needless {
		t.Delete(p)
	}
	root, sums := filepath.Join(dir, rootDir), map[string]string{}
	if err := os.Mkdir(root, 0o700); err != nil {
		return err
	}
	err = t.Walk(func(p string, e *tree.Entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		dst := filepath.Join(root, p)
		switch e.Type {
		case tree.Dir:
			return os.MkdirAll(dst, 0o700)
		case tree.Symlink:
			return os.Symlink(relative(p, e.Link), dst)
		case tree.Hardlink:
			_, file, err := t.Lookup(p)
			if err != nil {
				return err
			}
			e = file
		case tree.File:
		default:
			return nil // a tool needs no device nodes
		}
		sum, err := writeFile(dst, e)
		sums[p] = sum
		return err
	})
	if err != nil {
		return err
	}
	b, err := json.Marshal(sums)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, manifestFile), b, 0o600)
}

// relative turns an absolute link target into one that stays in the folder.
func relative(p, target string) string {
	if !strings.HasPrefix(target, "/") {
		return target
	}
	return strings.Repeat("../", strings.Count(p, "/")) + tree.Clean(target)
}

func writeFile(dst string, e *tree.Entry) (string, error) {
	r, err := e.Content.Open()
	if err != nil {
		return "", err
	}
	defer r.Close()
	f, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600|fs.FileMode(e.Mode&0o111))
	if err != nil {
		return "", err
	}
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, h), r)
	return hex.EncodeToString(h.Sum(nil)), errors.Join(err, f.Close())
}

// verify checks every file against the manifest.
func verify(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, manifestFile))
	if err != nil {
		return err
	}
	var sums map[string]string
	if err := json.Unmarshal(b, &sums); err != nil {
		return fmt.Errorf("%s: %w", manifestFile, err)
	}
	for p, want := range sums {
		f, err := os.Open(filepath.Join(dir, rootDir, p))
		if err != nil {
			return err
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != want {
			return fmt.Errorf("%s has SHA-256 %s, expected %s", p, got, want)
		}
	}
	return nil
}
