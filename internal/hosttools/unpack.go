package hosttools

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/kiln-os/kiln/images/deb"
	"github.com/kiln-os/kiln/images/tree"
)

const (
	formatVersion = "4"
	lockFile      = "lock.yaml"
)

// needless folders of packages are not unpacked.
var needless = []string{"usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian", "var", "etc", "boot"}

func unpack(ctx context.Context, l *deb.Lock, o Options, dir string) error {
	a := &deb.Archive{Suite: l.Suite, Components: l.Components, Cache: o.Cache, Now: o.Now, Keyring: o.Keyring, Offline: o.Offline}
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
	return t.Walk(func(p string, e *tree.Entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		dst := filepath.Join(dir, p)
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
		return writeFile(dst, e)
	})
}

// relative turns an absolute link target into one that stays in the folder.
func relative(p, target string) string {
	if !strings.HasPrefix(target, "/") {
		return target
	}
	return strings.Repeat("../", strings.Count(p, "/")) + tree.Clean(target)
}

func writeFile(dst string, e *tree.Entry) error {
	r, err := e.Content.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	f, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600|fs.FileMode(e.Mode&0o111))
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}
