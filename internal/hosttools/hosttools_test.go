package hosttools

import (
	"archive/tar"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/images/deb/debtest"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/cache"
)

// started is what the loader of the test archive says it was started with.
type started struct{ Args, Env []string }

// TestMain lets this program be the dynamic loader of a test archive: it shows
// how it was started.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "--argv0" {
		if err := json.NewEncoder(os.Stdout).Encode(started{os.Args[1:], os.Environ()}); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var ctx = context.Background()

func host(t *testing.T) arch.Arch {
	t.Helper()
	a, err := arch.Get(runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// archive has a tool, its library package with the loader, and an excluded package's dependant.
func archive(t *testing.T, version string) (*debtest.Archive, Options) {
	t.Helper()
	d := debtest.New(t)
	publish(t, d, version)
	c, err := cache.Open(filepath.Join(t.TempDir(), "cache"))
	if err != nil {
		t.Fatal(err)
	}
	return d, Options{Cache: c, Mirror: d.URL, Now: debtest.Date.Add(time.Hour), Keyring: d.Keyring}
}

func publish(t *testing.T, d *debtest.Archive, version string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	loader := "." + host(t).Loader
	d.Publish(Suite, host(t).Debian, nil,
		debtest.Package{
			Name: "tool", Version: version, Fields: []string{"Depends: loader, perl:any"},
			Files: []tar.Header{
				debtest.File("./usr/sbin/tool", 0o755), debtest.File("./usr/bin/script", 0o755), debtest.File("./usr/share/tool/data", 0o644), debtest.File("./usr/share/doc/tool/README", 0o644),
				{Typeflag: tar.TypeSymlink, Name: "./usr/bin/alias", Linkname: "/usr/sbin/tool"},
				{Typeflag: tar.TypeLink, Name: "./usr/bin/hard", Linkname: "./usr/sbin/tool"},
				{Typeflag: tar.TypeChar, Name: "./dev/null", Mode: 0o666},
			},
			Content: map[string]string{"./usr/sbin/tool": "\x7fELF " + version, "./usr/bin/script": "#!/bin/sh\n", "./usr/share/tool/data": "data"},
		},
		debtest.Package{Name: "loader", Version: "1", Files: []tar.Header{debtest.File(loader, 0o755)}, Content: map[string]string{loader: string(program)}},
	)
}

func TestToolsRunFromTheCache(t *testing.T) {
	_, o := archive(t, "1")
	tools, err := Ensure(ctx, Set{"tool"}, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("LD_PRELOAD", "")
	t.Setenv("LD_LIBRARY_PATH", "/elsewhere")
	t.Setenv("KEPT", "yes")
	for _, name := range []string{"tool", "alias", "hard", "/usr/sbin/tool"} {
		cmd, err := tools.Command(ctx, name, "-x", "a b")
		if err != nil {
			t.Fatal(err)
		}
		b, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var got started
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		if want := []string{"--argv0", name, "--library-path"}; !slices.Equal(got.Args[:3], want) {
			t.Errorf("%s: loader started with %q", name, got.Args)
		}
		if libs := strings.Split(got.Args[3], ":"); libs[0] != tools.Path("/usr/lib/"+host(t).Triplet) {
			t.Errorf("%s: libraries from %q", name, libs)
		}
		if !strings.HasPrefix(got.Args[4], tools.Dir()) || !slices.Equal(got.Args[5:], []string{"-x", "a b"}) {
			t.Errorf("%s: runs %q", name, got.Args[4:])
		}
		if slices.ContainsFunc(got.Env, func(e string) bool { return strings.HasPrefix(e, "LD_") }) || !slices.Contains(got.Env, "KEPT=yes") {
			t.Errorf("%s: environment %q", name, got.Env)
		}
	}
	for name, want := range map[string]string{"script": "script", "missing": "no tool missing"} {
		if _, err := tools.Command(ctx, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if b, err := os.ReadFile(tools.Path("/usr/share/tool/data")); err != nil || string(b) != "data" {
		t.Errorf("data: %q, %v", b, err)
	}
	for _, absent := range []string{"/usr/share/doc", "/dev/null"} {
		if _, err := os.Lstat(tools.Path(absent)); !os.IsNotExist(err) {
			t.Errorf("%s was unpacked (%v)", absent, err)
		}
	}
	if l, err := os.Readlink(tools.Path("/usr/bin/alias")); err != nil || l != "../../usr/sbin/tool" {
		t.Errorf("alias leads to %s, %v", l, err)
	}
}

func TestToolsAreResolvedOnce(t *testing.T) {
	d, o := archive(t, "1")
	first, err := Ensure(ctx, Set{"tool"}, o)
	if err != nil {
		t.Fatal(err)
	}
	// A newer version in the archive changes nothing: same tools until asked otherwise.
	publish(t, d, "2")
	d.Requests()
	again, err := Ensure(ctx, Set{"tool"}, o)
	if err != nil || again.Dir() != first.Dir() {
		t.Errorf("%+v, then %+v, %v", first, again, err)
	}
	if r := d.Requests(); len(r) != 0 {
		t.Errorf("asked the mirror for %q", r)
	}
}

func TestToolsThatAreLostAreResolvedAnew(t *testing.T) {
	d, o := archive(t, "1")
	first, err := Ensure(ctx, Set{"tool"}, o)
	if err != nil {
		t.Fatal(err)
	}
	// The archive moves on, and somebody tidies the cache.
	publish(t, d, "2")
	d.SetFile("pool/main/tool_1_"+host(t).Debian+".deb", nil)
	for _, kind := range []string{"blobs", "tools", "unpacked"} {
		dir := filepath.Join(o.Cache.Path(), kind)
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	again, err := Ensure(ctx, Set{"tool"}, o)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(again.Path("/usr/sbin/tool")); err != nil || string(b) != "\x7fELF 2" || again.Dir() == first.Dir() {
		t.Errorf("the tool is %q, %v", b, err)
	}
}

func TestEnsureErrors(t *testing.T) {
	_, o := archive(t, "1")
	if _, err := Ensure(ctx, Set{"nothing"}, o); err == nil || !strings.Contains(err.Error(), "tools (nothing)") || !strings.Contains(err.Error(), "no package nothing") {
		t.Errorf("error %v", err)
	}
	o.Keyring = nil // Debian's keys did not sign it
	if _, err := Ensure(ctx, Set{"tool"}, o); err == nil || !strings.Contains(err.Error(), "signature") {
		t.Errorf("error %v", err)
	}
}

func TestQEMUSetOfEveryArchitecture(t *testing.T) {
	for _, name := range arch.Names() {
		a, err := arch.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		if s := QEMU(a); !slices.Contains(s, a.QEMU.Package) || slices.Contains(s, "") {
			t.Errorf("%s: %q", name, s)
		}
	}
}
