package payload

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
	"slices"
	"strings"

	"github.com/kiln-os/kiln/internal/cache"
)

// listName is the file of a cache entry that describes its binaries.
const listName = "binaries.json"

// obtain returns the binaries of c from the cache, which compiles them if it does
// not have them or if they are not what was put there.
func obtain(ctx context.Context, o Options, store *cache.Cache, c Component, goVersion string) ([]Binary, error) {
	key, err := entryKey(o, c, goVersion)
	if err != nil {
		return nil, err
	}
	dir, err := store.Dir(ctx, filepath.Join("payload", c.Name+"-"+o.Arch.Go), key, func(tmp string) error {
		if err := compile(ctx, o, c, tmp); err != nil {
			return err
		}
		return writeList(tmp, c)
	})
	if err != nil {
		return nil, err
	}
	return readList(dir)
}

// entryKey is the digest of all that decides the bytes of the component's programs.
func entryKey(o Options, c Component, goVersion string) (string, error) {
	parts := []string{"payload 1", c.Name, goVersion, c.ldflags()}
	parts = append(parts, flags...)
	parts = append(parts, settings(o)...)
	for _, p := range c.Programs {
		parts = append(parts, p.Name, p.Package)
		if p.In != "" {
			parts = append(parts, p.In, dispatcher)
		}
	}
	dir := filepath.Join(o.SourceDir, c.Name)
	other := c.Module != c.Name // then these files of dir are not read
	own := []string{filepath.Join(dir, "go.mod"), filepath.Join(dir, "go.sum")}
	if other {
		for _, f := range own {
			data, err := os.ReadFile(filepath.Join(o.SourceDir, c.Module, filepath.Base(f)))
			if err != nil {
				return "", fmt.Errorf("sources: %w", err)
			}
			parts = append(parts, filepath.Base(f), string(data))
		}
	}
	// WalkDir goes in lexical order.
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if strings.HasSuffix(path, "_test.go") || other && slices.Contains(own, path) {
			return nil // never linked into a program
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("%s is no regular file", path)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		parts = append(parts, filepath.ToSlash(rel), string(data))
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("sources: %w", err)
	}
	return cache.Key(parts...), nil
}

// writeList describes the programs in dir.
func writeList(dir string, c Component) error {
	var list []Binary
	for _, p := range c.Programs {
		f, err := os.Open(filepath.Join(dir, p.Name))
		if err != nil {
			return err
		}
		h := sha256.New()
		n, err := io.Copy(h, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		list = append(list, Binary{Name: p.Name, Size: n, SHA256: hex.EncodeToString(h.Sum(nil)), Version: c.Version, Component: c.Name})
	}
	raw, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, listName), append(raw, '\n'), 0o644)
}

// readList returns the binaries in dir, whose bytes the cache has checked.
func readList(dir string) ([]Binary, error) {
	raw, err := os.ReadFile(filepath.Join(dir, listName))
	if err != nil {
		return nil, err
	}
	var list []Binary
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, listName), err)
	}
	for i := range list {
		list[i].Path = filepath.Join(dir, list[i].Name)
	}
	return list, nil
}
