//go:build reproducible

package build_test

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestReproducible builds one cluster twice with the same lock, secrets and
// SOURCE_DATE_EPOCH: the second time from another checkout, in other folders, as
// another user, with another umask, time zone, locale, home and number of processors,
// and without what the first build left in the cache. All outputs must be the same bytes.
func TestReproducible(t *testing.T) {
	imagegen := os.Getenv("KILN_IMAGEGEN")
	if imagegen == "" {
		t.Fatal("KILN_IMAGEGEN names no imagegen: run make test-reproducible")
	}
	dir := t.TempDir()
	file, epoch := filepath.Join(dir, "cluster.yaml"), "SOURCE_DATE_EPOCH=1700000000"
	if out, err := exec.CommandContext(t.Context(), imagegen, "init", file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	build := func(env []string, attr *syscall.SysProcAttr, umask string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "sh", append([]string{"-c", `umask "$0" && exec "$@"`, umask}, args...)...)
		cmd.Env = append(os.Environ(), append(env, epoch)...)
		cmd.SysProcAttr = attr
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	home := userCache(t)
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "else where", "b")
	first := ownCache(t, home, filepath.Join(dir, "cache-1"))
	build([]string{"TZ=UTC", "LC_ALL=C"}, nil, "022", imagegen, "build", file, "-o", a, "--cache", first)

	for _, f := range []string{"secrets", "kiln.lock.yaml"} {
		if err := os.MkdirAll(b, 0o755); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), "cp", "-a", filepath.Join(a, f), b).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	source := copySource(t, filepath.Join(dir, "another", "checkout"))
	second := ownCache(t, home, filepath.Join(dir, "cache-2"))
	// Inside, everything of this user belongs to user 1000, who has no rights beyond.
	attr := &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: os.Getgid(), Size: 1}},
	}
	env := []string{
		"TZ=Asia/Kathmandu", "LC_ALL=tr_TR.UTF-8", "LANG=tr_TR.UTF-8", "GOMAXPROCS=1", "HOME=" + filepath.Join(dir, "else where"),
		"GOCACHE=" + goEnv(t, "GOCACHE"), "GOMODCACHE=" + goEnv(t, "GOMODCACHE"), "TMPDIR=" + filepath.Join(dir, "else where"),
	}
	build(env, attr, "077", imagegen, "build", file, "-o", b, "--cache", second, "--payload-dir", filepath.Join(source, "payload"), "--locked", "--offline")

	for _, name := range outputs(t, a) {
		if x, y := digest(t, filepath.Join(a, name)), digest(t, filepath.Join(b, name)); x != y {
			t.Errorf("%s differs: %s and %s", name, x, y)
		} else {
			t.Logf("%s  %s", x, name)
		}
	}
	if x, y := outputs(t, a), outputs(t, b); !slices.Equal(x, y) {
		t.Errorf("one build left %q, the other %q", x, y)
	}
}

// outputs lists what a build left, but for how long it took and its lock.
func outputs(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(dir, p); err == nil && d.Type().IsRegular() && rel != "build-times.json" && rel != ".kiln.lock" {
			list = append(list, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// ownCache is a cache with what takes long to get or to compile, by links. What is
// quick is made again: pause, unpacked packages, firstboot, the base.
func ownCache(t *testing.T, from, dir string) string {
	t.Helper()
	for _, kind := range []string{"blobs", "releases", "resolutions"} {
		link(t, filepath.Join(from, kind), filepath.Join(dir, kind))
	}
	kinds, err := os.ReadDir(filepath.Join(from, "payload"))
	if err != nil {
		t.Fatalf("%v: imagegen payload compiles it", err)
	}
	for _, k := range kinds {
		if !strings.HasPrefix(k.Name(), "pause-") {
			link(t, filepath.Join(from, "payload", k.Name()), filepath.Join(dir, "payload", k.Name()))
		}
	}
	return dir
}

func link(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(from, to); err != nil {
		t.Fatal(err)
	}
}

// copySource copies what is compiled.
func copySource(t *testing.T, to string) string {
	t.Helper()
	if err := os.MkdirAll(to, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"cmd", "images", "internal", "payload", "pki", "profiles", "units", "go.mod", "go.sum"} {
		if out, err := exec.CommandContext(t.Context(), "cp", "-r", filepath.Join("../..", part), to).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	return to
}

func userCache(t *testing.T) string {
	t.Helper()
	if d := os.Getenv("KILN_CACHE"); d != "" {
		return d
	}
	base, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(base, "kiln")
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func digest(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}
