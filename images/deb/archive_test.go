package deb

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/images/deb/debtest"
	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/cache"
	"github.com/kiln-os/kiln/internal/fetch"
)

var ctx = context.Background()

func TestMain(m *testing.M) {
	retryWait = time.Millisecond
	os.Exit(m.Run())
}

// hello and libhello are a program and its library.
func hello() []debtest.Package {
	return []debtest.Package{
		{
			Name: "hello", Version: "2.10-3", Fields: []string{"Depends: libhello (>= 1.0)", "Description: says so", " and more"},
			Files: []tar.Header{
				{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755},
				{Typeflag: tar.TypeDir, Name: "./bin/", Mode: 0o755},
				debtest.File("./bin/hello", 0o4755),
				{Typeflag: tar.TypeLink, Name: "./bin/hallo", Linkname: "./bin/hello"},
				{Typeflag: tar.TypeSymlink, Name: "./usr/bin/hi", Linkname: "/bin/hello", Mode: 0o777},
				{Typeflag: tar.TypeDir, Name: "./var/mail/", Mode: 0o2775, Gid: 8},
			},
			Content: map[string]string{"./bin/hello": "program"}, Compression: "xz",
		},
		{
			Name: "libhello", Version: "1:1.2", Files: []tar.Header{
				{Typeflag: tar.TypeDir, Name: "./usr/lib/", Mode: 0o755}, debtest.File("./usr/lib/libhello.so", 0o644), debtest.File("./usr/lib/empty", 0o600),
			},
			Content: map[string]string{"./usr/lib/libhello.so": "library"}, Compression: "zst",
		},
	}
}

func open(t *testing.T, d *debtest.Archive) *Archive {
	t.Helper()
	c, err := cache.Open(filepath.Join(t.TempDir(), "cache"))
	if err != nil {
		t.Fatal(err)
	}
	return &Archive{Mirror: d.URL, Suite: "trixie", Components: []string{"main"}, Cache: c, Keyring: d.Keyring, Now: debtest.Date.Add(time.Hour)}
}

func TestFromMirrorToTree(t *testing.T) {
	d := debtest.New(t)
	d.Publish("trixie", "amd64", nil, hello()...)
	a := open(t, d)
	l, err := a.Resolve(ctx, "amd64", Request{Roots: []string{"hello"}})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range l.Packages {
		names = append(names, p.Name+" "+p.Version)
	}
	if want := []string{"hello 2.10-3", "libhello 1:1.2"}; !slices.Equal(names, want) || !l.Date.Equal(debtest.Date) || l.Suite != "trixie" || l.Arch != "amd64" {
		t.Errorf("lock %+v", l)
	}
	var last, total int64
	files, err := a.Fetch(ctx, l, func(done, all int64) { last, total = done, all })
	if err != nil {
		t.Fatal(err)
	}
	if want := l.Packages[0].Size + l.Packages[1].Size; last != want || total != want {
		t.Errorf("progress ended at %d of %d, want %d", last, total, want)
	}
	for range 2 { // the second time from the cache
		tr, err := Unpack(ctx, a.Cache, l, files)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"bin", "lib", "usr", "usr/bin", "usr/bin/hallo", "usr/bin/hello", "usr/bin/hi", "usr/lib", "usr/lib/empty", "usr/lib/libhello.so", "var", "var/mail"}
		if !slices.Equal(tr.Paths(), want) {
			t.Errorf("tree holds %q", tr.Paths())
		}
		if e := tr.Get("usr/bin/hello"); e.Mode != 0o4755 || e.Type != tree.File {
			t.Errorf("usr/bin/hello: %+v", e)
		}
		if e := tr.Get("usr/bin/hallo"); e.Type != tree.Hardlink || e.Link != "usr/bin/hello" {
			t.Errorf("usr/bin/hallo: %+v", e)
		}
		if e := tr.Get("bin"); e.Type != tree.Symlink || e.Link != "usr/bin" {
			t.Errorf("bin: %+v", e)
		}
		if e := tr.Get("var/mail"); e.Mode != 0o2775 || e.GID != 8 {
			t.Errorf("var/mail: %+v", e)
		}
		for p, want := range map[string]string{"usr/bin/hi": "program", "lib/libhello.so": "library", "usr/lib/empty": ""} {
			if b, err := tr.ReadFile(p); err != nil || string(b) != want {
				t.Errorf("%s holds %q, %v", p, b, err)
			}
		}
	}
}

func TestWarmResolutionFetchesInReleaseAlone(t *testing.T) {
	d := debtest.New(t)
	d.Publish("trixie", "amd64", nil, hello()...)
	a := open(t, d)
	req := Request{Roots: []string{"hello"}}
	cold, err := a.Resolve(ctx, "amd64", req)
	if err != nil {
		t.Fatal(err)
	}
	if r := d.Requests(); len(r) != 2 || !strings.Contains(r[1], "/by-hash/") {
		t.Errorf("cold: asked for %q", r)
	}
	warm, err := a.Resolve(ctx, "amd64", req)
	if err != nil {
		t.Fatal(err)
	}
	if r := d.Requests(); !slices.Equal(r, []string{"dists/trixie/InRelease"}) {
		t.Errorf("warm: asked for %q", r)
	}
	x, _ := cold.Digest()
	if y, _ := warm.Digest(); x != y {
		t.Errorf("cold %+v, warm %+v", cold, warm)
	}
	if _, err := a.Resolve(ctx, "amd64", Request{Roots: []string{"nothing"}}); err == nil {
		t.Error("another request got the same answer")
	}
}

func TestOffline(t *testing.T) {
	d := debtest.New(t)
	d.Publish("trixie", "amd64", nil, hello()...)
	a := open(t, d)
	a.Offline = true
	if _, err := a.Resolve(ctx, "amd64", Request{Roots: []string{"hello"}}); err == nil || !strings.Contains(err.Error(), "offline") {
		t.Errorf("nothing in the cache: %v", err)
	}
	a.Offline = false
	l, err := a.Resolve(ctx, "amd64", Request{Roots: []string{"hello"}})
	if err != nil {
		t.Fatal(err)
	}
	d.Requests()
	a.Offline = true
	if _, err := a.Fetch(ctx, l, nil); !errors.Is(err, errOffline) || !strings.Contains(err.Error(), "package ") {
		t.Errorf("packages that were never fetched: %v", err)
	}
	again, err := a.Resolve(ctx, "amd64", Request{Roots: []string{"hello"}})
	if err != nil || again.InRelease != l.InRelease {
		t.Errorf("%+v, %v", again, err)
	}
	if r := d.Requests(); len(r) != 0 {
		t.Errorf("offline, asked for %q", r)
	}
}

func TestBrokenTransfersAreTriedAgain(t *testing.T) {
	d := debtest.New(t)
	d.Publish("trixie", "amd64", nil, hello()...)
	a := open(t, d)
	d.Break("dists/trixie/InRelease", fetch.Tries-1)
	l, err := a.Resolve(ctx, "amd64", Request{Roots: []string{"hello"}})
	if err != nil {
		t.Fatal(err)
	}
	d.Break(l.Packages[0].Filename, fetch.Tries-1)
	if _, err := a.Fetch(ctx, l, nil); err != nil {
		t.Error(err)
	}
	a = open(t, d)
	d.Break(l.Packages[0].Filename, fetch.Tries)
	if _, err := a.Fetch(ctx, l, nil); err == nil || !strings.Contains(err.Error(), "hello 2.10-3") {
		t.Errorf("error %v", err)
	}
}

func TestFetchErrorsNameThePackage(t *testing.T) {
	d := debtest.New(t)
	d.Publish("trixie", "amd64", nil, hello()...)
	a := open(t, d)
	l, err := a.Resolve(ctx, "amd64", Request{Roots: []string{"hello"}})
	if err != nil {
		t.Fatal(err)
	}
	name := l.Packages[1].Filename
	good := d.File(name)
	d.SetFile(name, nil)
	if _, err := a.Fetch(ctx, l, nil); !errors.As(err, new(*NotFoundError)) || !strings.Contains(err.Error(), "libhello 1:1.2") || !strings.Contains(err.Error(), "resolve anew") {
		t.Errorf("package that is gone: %v", err)
	}
	d.SetFile(name, append(bytes.Clone(good), 0))
	d.Requests()
	if _, err := a.Fetch(ctx, l, nil); !errors.As(err, new(*cache.MismatchError)) || !strings.Contains(err.Error(), "libhello 1:1.2") {
		t.Errorf("package with other bytes: %v", err)
	}
	asked := slices.DeleteFunc(d.Requests(), func(r string) bool { return r != name })
	if len(asked) != 1 {
		t.Errorf("other bytes were asked for %d times", len(asked))
	}
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := a.Fetch(stopped, l, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestStaleIndexIsRefused(t *testing.T) {
	d := debtest.New(t)
	d.Publish("trixie", "armhf", nil, hello()...)
	// As a mirror does that has a new InRelease and an old index.
	const index = "dists/trixie/main/binary-armhf/Packages.xz"
	packed := d.File(index)
	d.SetFile("dists/trixie/main/binary-armhf/by-hash/SHA256/"+debtest.Sum(packed), nil)
	a := open(t, d)
	if _, err := a.Resolve(ctx, "armhf", Request{Roots: []string{"hello"}}); err != nil {
		t.Errorf("without by-hash: %v", err)
	}
	d.SetFile(index, []byte("old"))
	a = open(t, d)
	_, err := a.Resolve(ctx, "armhf", Request{Roots: []string{"hello"}})
	if !errors.As(err, new(*StaleError)) {
		t.Errorf("%v is no StaleError", err)
	}
	for _, want := range []string{"trixie", "armhf", "main/binary-armhf/Packages.xz", "2026-05-01", debtest.Sum(packed), debtest.Sum([]byte("old"))} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
	if _, err := a.Resolve(ctx, "riscv64", Request{}); err == nil || !strings.Contains(err.Error(), "riscv64") {
		t.Errorf("architecture that is not there: %v", err)
	}
}
