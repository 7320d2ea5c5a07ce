package deb

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/images/deb/debtest"
	"github.com/kiln-os/kiln/images/tree"
)

// unpackPackages publishes, resolves, fetches and unpacks packages.
func unpackPackages(t *testing.T, ps ...debtest.Package) (*tree.Tree, error) {
	t.Helper()
	d := debtest.New(t)
	d.Publish("trixie", "amd64", nil, ps...)
	a := open(t, d)
	var req Request
	for _, p := range ps {
		req.Roots = append(req.Roots, p.Name)
	}
	l, err := a.Resolve(ctx, "amd64", req)
	if err != nil {
		t.Fatal(err)
	}
	files, err := a.Fetch(ctx, l, nil)
	if err != nil {
		t.Fatal(err)
	}
	return Unpack(ctx, a.Cache, l, files)
}

func TestPackagesThatOverlap(t *testing.T) {
	file := func(name string) tar.Header { return debtest.File(name, 0o644) }
	link := func(name, to string) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
	}
	dir := func(name string, mode int64) tar.Header {
		return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}
	}
	for _, c := range []struct {
		name string
		a, b []tar.Header
		err  string
	}{
		{name: "folders merge", a: []tar.Header{dir("usr/", 0o755), file("usr/x")}, b: []tar.Header{dir("usr/", 0o755), file("usr/y")}},
		{name: "a parent gets its mode later", a: []tar.Header{file("usr/t/x")}, b: []tar.Header{dir("usr/t/", 0o1777)}},
		{name: "the same link", a: []tar.Header{link("usr/l", "x")}, b: []tar.Header{link("usr/l", "x")}},
		{name: "the same file", a: []tar.Header{file("usr/x")}, b: []tar.Header{file("usr/x")}, err: "/usr/x is in package a and in package b"},
		{name: "the same file by merged /usr", a: []tar.Header{file("bin/x")}, b: []tar.Header{file("usr/bin/x")}, err: "/usr/bin/x is in package a and in package b"},
		{name: "links to different places", a: []tar.Header{link("usr/l", "x")}, b: []tar.Header{link("usr/l", "y")}, err: "/usr/l"},
		{name: "file and folder", a: []tar.Header{file("usr/x")}, b: []tar.Header{dir("usr/x/", 0o755)}, err: "/usr/x"},
		{name: "below a link", a: []tar.Header{link("usr/l", "/etc")}, b: []tar.Header{file("usr/l/passwd")}, err: "below /usr/l, which is not a folder in package a"},
	} {
		tr, err := unpackPackages(t, debtest.Package{Name: "a", Version: "1", Files: c.a}, debtest.Package{Name: "b", Version: "1", Files: c.b, Compression: "gz"})
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: error %v", c.name, err)
		}
		if err == nil && tr.Get("usr/t") != nil && tr.Get("usr/t").Mode != 0o1777 {
			t.Errorf("%s: mode %o", c.name, tr.Get("usr/t").Mode)
		}
	}
}

func TestUnpackKeepsDevicesAndAttributes(t *testing.T) {
	tr, err := unpackPackages(t, debtest.Package{Name: "a", Version: "1", Files: []tar.Header{
		{Typeflag: tar.TypeChar, Name: "dev/null", Mode: 0o666, Devmajor: 1, Devminor: 3},
		{Typeflag: tar.TypeReg, Name: "bin/ping", Mode: 0o755, Format: tar.FormatPAX, PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "cap"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if e := tr.Get("dev/null"); e.Type != tree.CharDev || e.Major != 1 || e.Minor != 3 || e.Mode != 0o666 {
		t.Errorf("dev/null: %+v", e)
	}
	if e := tr.Get("usr/bin/ping"); e.Xattrs["security.capability"] != "cap" {
		t.Errorf("usr/bin/ping: %+v", e)
	}
}

func TestDamagedPackages(t *testing.T) {
	d := debtest.New(t)
	good := d.Build(hello()[0])
	for name, b := range map[string][]byte{
		"empty":              nil,
		"not ar":             []byte("PK\x03\x04 something else"),
		"no data":            good[:bytes.Index(good, []byte("data.tar"))],
		"bad header":         bytes.Replace(good, []byte("`\n"), []byte("''"), 1),
		"bad size":           bytes.Replace(good, []byte("4         `"), []byte("-4        `"), 1),
		"cut":                good[:len(good)-40],
		"unknown compresser": bytes.Replace(good, []byte("data.tar.xz "), []byte("data.tar.bz2"), 1),
	} {
		dir := t.TempDir()
		file := filepath.Join(dir, "p.deb")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := unpackTo(file, dir); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestLockIsReadStrictly(t *testing.T) {
	d := debtest.New(t)
	d.Publish("trixie", "amd64", nil, hello()...)
	l, err := open(t, d).Resolve(ctx, "amd64", Request{Roots: []string{"hello"}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "lock.yaml")
	if err := l.Write(file); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ReadLock(file)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := again.Marshal(); err != nil || !bytes.Equal(b, c) {
		t.Errorf("written again it is %s", c)
	}
	for name, change := range map[string][2]string{
		"unknown key":  {"suite:", "sweet:"},
		"no digest":    {"sha256: ", "sha256: x#"},
		"no file name": {"filename: ", "filename: #"},
		"no YAML":      {"packages:", "packages"},
	} {
		if err := os.WriteFile(file, bytes.Replace(b, []byte(change[0]), []byte(change[1]), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadLock(file); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func FuzzDeb(f *testing.F) {
	d := debtest.New(f)
	for _, how := range []string{"", "gz", "xz", "zst"} {
		p := hello()[0]
		p.Compression = how
		f.Add(d.Build(p))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := dataTar(bytes.NewReader(b))
		if err != nil {
			return
		}
		_ = readTar(r, func(m member, content io.Reader) error {
			if m.Path == "" || strings.HasPrefix(m.Path, "/") || m.Path != tree.Clean(m.Path) {
				t.Errorf("path %q", m.Path)
			}
			_, err := io.Copy(io.Discard, io.LimitReader(content, 1<<20))
			return err
		})
	})
}
