package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

const (
	hello    = "hello"
	helloSum = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
)

func source(s string, calls *int) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) {
		*calls++
		return io.NopCloser(bytes.NewReader([]byte(s))), nil
	}
}

func open(t *testing.T) *Cache {
	c, err := Open(filepath.Join(t.TempDir(), "c"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestFetch(t *testing.T) {
	c, calls := open(t), 0
	for range 2 {
		p, err := c.Fetch(context.Background(), helloSum, 5, source(hello, &calls))
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := os.ReadFile(p); string(b) != hello {
			t.Errorf("blob holds %q", b)
		}
	}
	if calls != 1 {
		t.Errorf("fetched %d times", calls)
	}
	// A damaged blob is fetched anew, not believed.
	p, _, _ := c.Blob(helloSum)
	if err := os.WriteFile(p, []byte("hellp"), 0o600); err != nil {
		t.Fatal(err)
	}
	var said string
	c.Log = func(line string) { said = line }
	if _, err := c.Fetch(context.Background(), helloSum, 5, source(hello, &calls)); err != nil || calls != 2 || !strings.Contains(said, p) {
		t.Errorf("damaged blob: %v, %d fetches, said %q", err, calls, said)
	}
}

func TestFetchKeepsNothingWrong(t *testing.T) {
	for _, c := range []struct {
		name, content string
		size          int64
	}{{"other bytes", "jello", 5}, {"too short", "hell", 5}, {"too long", "hello!", 5}, {"size", hello, 6}} {
		ca, calls := open(t), 0
		_, err := ca.Fetch(context.Background(), helloSum, c.size, source(c.content, &calls))
		if !errors.As(err, new(*MismatchError)) {
			t.Errorf("%s: error %v", c.name, err)
		}
		if left, _ := os.ReadDir(filepath.Join(ca.Path(), "blobs")); len(left) != 0 {
			t.Errorf("%s: left %v", c.name, left)
		}
	}
}

func TestDirIsMadeOnceAndWhole(t *testing.T) {
	c, key := open(t), Key("a", "b")
	boom := errors.New("boom")
	if _, err := c.Dir(t.Context(), "k", key, func(tmp string) error {
		_ = os.WriteFile(filepath.Join(tmp, "half"), nil, 0o600)
		return boom
	}); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	var made atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			d, err := c.Dir(t.Context(), "k", key, func(tmp string) error {
				made.Add(1)
				return os.WriteFile(filepath.Join(tmp, "whole"), nil, 0o600)
			})
			if err != nil {
				t.Error(err)
			}
			if names, _ := os.ReadDir(d); len(names) != 2 || names[1].Name() != "whole" {
				t.Errorf("folder holds %v", names)
			}
		})
	}
	wg.Wait()
	if made.Load() != 1 {
		t.Errorf("made %d times", made.Load())
	}
}

func TestDamagedDirIsMadeAnew(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"changed": func(d string) error { return os.WriteFile(filepath.Join(d, "sub/f"), []byte("y"), 0o600) },
		"removed": func(d string) error { return os.Remove(filepath.Join(d, "sub/f")) },
		"added":   func(d string) error { return os.WriteFile(filepath.Join(d, "g"), nil, 0o600) },
		"relinked": func(d string) error {
			return errors.Join(os.Remove(filepath.Join(d, "l")), os.Symlink("elsewhere", filepath.Join(d, "l")))
		},
		"truncated":     func(d string) error { return os.Truncate(filepath.Join(d, "sub/f"), 0) },
		"irregular":     func(d string) error { return syscall.Mkfifo(filepath.Join(d, "pipe"), 0o600) },
		"manifest cut":  func(d string) error { return os.Truncate(filepath.Join(d, manifestName), 9) },
		"manifest lost": func(d string) error { return os.Remove(filepath.Join(d, manifestName)) },
	} {
		c, key, made := open(t), Key(name), 0
		fill := func(tmp string) error {
			made++
			return errors.Join(os.Mkdir(filepath.Join(tmp, "sub"), 0o700), os.WriteFile(filepath.Join(tmp, "sub/f"), []byte("x"), 0o600), os.Symlink("sub/f", filepath.Join(tmp, "l")))
		}
		for range 2 {
			if _, err := c.Dir(t.Context(), "k", key, fill); err != nil || made != 1 {
				t.Fatalf("%s: made %d times, %v", name, made, err)
			}
		}
		if err := damage(filepath.Join(c.Path(), "k", key)); err != nil {
			t.Fatal(err)
		}
		var said string
		c.Log = func(line string) { said = line }
		d, err := c.Dir(t.Context(), "k", key, fill)
		if !strings.Contains(said, "damaged in the cache, made again: "+d+" (") {
			t.Errorf("%s: said %q", name, said)
		}
		if b, _ := os.ReadFile(filepath.Join(d, "l")); err != nil || made != 2 || string(b) != "x" {
			t.Errorf("%s: made %d times, %v, holds %q", name, made, err, b)
		}
	}
}

func TestKeysAreUnambiguous(t *testing.T) {
	if Key("ab", "c") == Key("a", "bc") || Key("a") == Key("a", "") {
		t.Error("different parts give one key")
	}
	if _, _, err := open(t).Blob("../../etc/passwd"); err == nil {
		t.Error("a path is taken for a digest")
	}
}

func TestForget(t *testing.T) {
	c, key, made := open(t), Key("x"), 0
	if err := c.Forget(t.Context(), "k", key); err != nil {
		t.Errorf("nothing to forget: %v", err)
	}
	fill := func(string) error { made++; return nil }
	for range 2 {
		if _, err := c.Dir(t.Context(), "k", key, fill); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Forget(t.Context(), "k", key); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Dir(t.Context(), "k", key, fill); err != nil || made != 2 {
		t.Errorf("made %d times, %v", made, err)
	}
	if err := c.Forget(t.Context(), "k", "../../x"); err == nil {
		t.Error("a path is taken for a key")
	}
}

func TestOpenMakesAPrivateFolder(t *testing.T) {
	for name, c := range map[string]struct{ env, value, want string }{
		"KILN_CACHE":     {"KILN_CACHE", "a", "a"},
		"XDG_CACHE_HOME": {"XDG_CACHE_HOME", "b", "b/kiln"},
	} {
		dir := t.TempDir()
		t.Setenv("KILN_CACHE", "")
		t.Setenv(c.env, filepath.Join(dir, c.value))
		ca, err := Open("")
		if err != nil {
			t.Fatal(err)
		}
		if want := filepath.Join(dir, c.want); ca.Path() != want {
			t.Errorf("%s: cache in %s, want %s", name, ca.Path(), want)
		}
		if st, err := os.Stat(ca.Path()); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v %v", name, st, err)
		}
	}
}

// TestUnreadableIsNotDamaged: what cannot be read is not taken for absent.
func TestUnreadableIsNotDamaged(t *testing.T) {
	c, key := open(t), Key("x")
	// A file where the folder should be.
	if err := os.MkdirAll(filepath.Join(c.Path(), "k"), 0o700); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(c.Path(), "k", key)
	if err := os.WriteFile(name, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := c.Dir(t.Context(), "k", key, func(string) error { t.Error("made"); return nil })
	if err == nil || !strings.Contains(err.Error(), "removing "+name) {
		t.Errorf("error %v", err)
	}
	if b, _ := os.ReadFile(name); string(b) != "precious" {
		t.Errorf("it was changed to %q", b)
	}
}

func TestOpenSaysWhatToDo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file); err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "--cache") {
		t.Errorf("error %v", err)
	}
}

// TestFilesWithHoles: a sparse file is known again with and without its holes, and
// is made anew when a byte of it has changed.
func TestFilesWithHoles(t *testing.T) {
	c, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	key, made := Key("image"), 0
	get := func() string {
		t.Helper()
		dir, err := c.Dir(t.Context(), "images", key, func(tmp string) error {
			made++
			f, err := os.Create(filepath.Join(tmp, "disk.img"))
			if err != nil {
				return err
			}
			defer f.Close()
			if _, err := f.WriteAt([]byte("data"), 5<<20); err != nil {
				return err
			}
			return f.Truncate(64 << 20)
		})
		if err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, "disk.img")
	}
	img := get()
	b, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(img, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if dir, ok, err := c.Find(t.Context(), "images", key); err != nil || !ok || dir != filepath.Dir(img) {
		t.Errorf("%s, %v, %v", dir, ok, err)
	}
	if get(); made != 1 {
		t.Errorf("made %d times", made)
	}
	b[40<<20] = 1
	if err := os.WriteFile(img, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := c.Find(t.Context(), "images", key); err != nil || ok {
		t.Errorf("a damaged folder is found: %v, %v", ok, err)
	}
	if get(); made != 2 {
		t.Errorf("made %d times", made)
	}
	if _, ok, err := c.Find(t.Context(), "images", Key("none")); err != nil || ok {
		t.Errorf("%v, %v", ok, err)
	}
}
