package tree

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

func sample() *Tree {
	t := New()
	t.AddFile("usr/bin/a", 0o4755, []byte("hello"))
	t.Set("usr/bin/b", &Entry{Type: Hardlink, Link: "usr/bin/a"})
	t.AddSymlink("bin", "usr/bin")
	t.AddSymlink("usr/bin/abs", "/usr/lib/x")
	t.AddDir("usr/lib", 0o700)
	t.Set("dev/null", &Entry{Type: CharDev, Mode: 0o666, Major: 1, Minor: 3})
	t.Set("usr/bin/cap", &Entry{Type: File, Mode: 0o755, Content: Bytes("x"), Xattrs: map[string]string{"user.k": "v"}})
	t.AddFile("usr/bin-2", 0o644, nil)
	return t
}

func TestPathsPutFoldersFirst(t *testing.T) {
	got := sample().Paths()
	want := []string{"bin", "dev", "dev/null", "usr", "usr/bin", "usr/bin/a", "usr/bin/abs", "usr/bin/b", "usr/bin/cap", "usr/bin-2", "usr/lib"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestResolve(t *testing.T) {
	tr := sample()
	tr.AddSymlink("loop1", "loop2")
	tr.AddSymlink("loop2", "loop1")
	tr.AddSymlink("up", "../../usr/../bin/a")
	for _, c := range []struct{ in, want string }{
		{"/bin/a", "usr/bin/a"},
		{"bin/abs", "usr/lib/x"},
		{"up", "usr/bin/a"},
		{"missing/x", "missing/x"},
		{"/", ""},
	} {
		got, err := tr.Resolve(c.in)
		if err != nil || got != c.want {
			t.Errorf("Resolve(%q) = %q, %v; want %q", c.in, got, err, c.want)
		}
	}
	if _, err := tr.Resolve("loop1"); err == nil {
		t.Error("a loop of links resolves")
	}
	if b, err := tr.ReadFile("bin/b"); err != nil || string(b) != "hello" {
		t.Errorf("hard link reads %q, %v", b, err)
	}
	if _, err := tr.ReadFile("bin"); err == nil {
		t.Error("a folder reads as a file")
	}
}

func TestDelete(t *testing.T) {
	tr := sample()
	tr.Delete("usr/bin")
	if tr.Get("usr/bin/a") != nil || tr.Get("usr/bin") != nil || tr.Get("usr/bin-2") == nil {
		t.Errorf("left: %q", tr.Paths())
	}
}

func TestWriteTar(t *testing.T) {
	var a, b bytes.Buffer
	mtime := time.Unix(1700000000, 999)
	for _, w := range []io.Writer{&a, &b} {
		if err := sample().WriteTar(w, mtime); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("two writes differ")
	}
	sum := sha256.Sum256(a.Bytes())
	const golden = "e1ed6de373a6b16193c31e2fe32bb0f82b5c73737c2a22da32e6fdcd8da30b3d"
	if got := hex.EncodeToString(sum[:]); got != golden {
		t.Errorf("digest %s, golden %s", got, golden)
	}
	seen := map[string]*tar.Header{}
	r := tar.NewReader(&a)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeLink && seen[h.Linkname] == nil {
			t.Errorf("hard link %s comes before its file", h.Name)
		}
		seen[h.Name] = h
	}
	if h := seen["usr/bin/a"]; h.Mode != 0o4755 || h.Size != 5 || !h.ModTime.Equal(mtime.Truncate(time.Second)) {
		t.Errorf("usr/bin/a: %+v", h)
	}
	if h := seen["dev/null"]; h.Devmajor != 1 || h.Devminor != 3 || h.Typeflag != tar.TypeChar {
		t.Errorf("dev/null: %+v", h)
	}
	if h := seen["usr/bin/cap"]; h.PAXRecords["SCHILY.xattr.user.k"] != "v" {
		t.Errorf("xattr lost: %+v", h)
	}
}

type short struct{ Bytes }

func (short) Size() int64 { return 99 }

func TestWriteTarNoticesAShrunkFile(t *testing.T) {
	tr := New()
	tr.Set("f", &Entry{Type: File, Mode: 0o644, Content: short{Bytes("abc")}})
	if err := tr.WriteTar(io.Discard, time.Unix(0, 0)); err == nil || !strings.Contains(err.Error(), "f") {
		t.Errorf("error %v", err)
	}
}
