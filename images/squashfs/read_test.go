package squashfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/testtools"
)

func open(t testing.TB, b []byte) *Reader {
	t.Helper()
	in, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(in.Close)
	return in
}

func content(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestReadBack reads every file that Write wrote.
func TestReadBack(t *testing.T) {
	tr := sample()
	in := open(t, content(t, pack(t, tr)))
	files := 0
	if err := tr.Walk(func(p string, e *tree.Entry) error {
		if e.Type == tree.Hardlink {
			target, err := in.ReadFile(e.Link)
			got, err2 := in.ReadFile(p)
			if !bytes.Equal(got, target) {
				return fmt.Errorf("%s is not %s", p, e.Link)
			}
			return errors.Join(err, err2)
		}
		if e.Type != tree.File {
			return nil
		}
		files++
		got, err := in.ReadFile(p)
		if err == nil && !bytes.Equal(got, read(t, e.Content)) {
			err = fmt.Errorf("%s reads back as %d bytes, want %d", p, len(got), e.Content.Size())
		}
		return err
	}); err != nil || files < 5000 {
		t.Errorf("%d files: %v", files, err)
	}
	for path, want := range map[string]bool{"bin/nothing": true, "nowhere/x": true, "bin/su/x": true, "empty/a/b/c/x": true, "bin/soft": false, "bin": false, "": true} {
		if _, err := in.ReadFile(path); err == nil || errors.Is(err, fs.ErrNotExist) != want {
			t.Errorf("%q: %v", path, err)
		}
	}
}

// TestReadMksquashfs reads what the reference implementation wrote, with its
// defaults: other block sizes, tails and tables.
func TestReadMksquashfs(t *testing.T) {
	dir := t.TempDir()
	want := map[string][]byte{"a/b": []byte("text"), "a/big": random(1, 700_001), "a/zeros": make([]byte, 300_000), "none": nil}
	for p, b := range want {
		name := filepath.Join(dir, p)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, b, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for _, o := range [][]string{nil, {"-b", "1M"}, {"-noI", "-noD", "-noF"}, {"-no-fragments"}, {"-always-use-fragments"}} {
		img := filepath.Join(t.TempDir(), "image")
		if out, err := testtools.Command(t, "mksquashfs", append([]string{dir, img, "-quiet", "-no-progress", "-comp", "zstd"}, o...)...).CombinedOutput(); err != nil {
			t.Fatalf("mksquashfs: %v\n%s", err, out)
		}
		in := open(t, content(t, img))
		for p, b := range want {
			if got, err := in.ReadFile(p); err != nil || !bytes.Equal(got, b) {
				t.Errorf("%v: %s reads as %d bytes (%v), want %d", o, p, len(got), err, len(b))
			}
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	img := filepath.Join(t.TempDir(), "image")
	if out, err := testtools.Command(t, "mksquashfs", t.TempDir(), img, "-quiet", "-no-progress", "-comp", "xz").CombinedOutput(); err != nil {
		t.Fatalf("mksquashfs: %v\n%s", err, out)
	}
	for name, b := range map[string][]byte{"short": []byte("hsqs"), "zeros": make([]byte, 4096), "xz": content(t, img)} {
		if _, err := Open(bytes.NewReader(b), int64(len(b))); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func FuzzReader(f *testing.F) {
	tr := tree.New()
	tr.AddFile("lib/os-release", 0o644, []byte("ID=kiln\n"))
	tr.AddFile("share/big", 0o644, bytes.Repeat([]byte("kiln "), blockSize/4))
	tr.AddFile("share/noise", 0o644, random(1, 50))
	f.Add(content(f, pack(f, tr)))
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		defer in.Close()
		for _, p := range []string{"lib/os-release", "share/big", "share/noise"} {
			if got, err := in.ReadFile(p); err == nil && len(got) > maxFile {
				t.Errorf("%s has %d bytes", p, len(got))
			}
		}
	})
}
