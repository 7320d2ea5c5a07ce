//go:build boot

package qemutests

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestReproducible builds one cluster twice, with the same secrets but in another
// folder, with another umask, time zone, locale and number of processors, and
// without the first build's base image: the images must be the same bytes.
func TestReproducible(t *testing.T) {
	imagegen := imagegenPath(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "cluster.yaml")
	run(t, imagegen, "init", file)
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "elsewhere", "b")
	run(t, imagegen, "build", file, "-o", a)

	if err := os.MkdirAll(b, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(b, "secrets"), os.DirFS(filepath.Join(a, "secrets"))); err != nil {
		t.Fatal(err)
	}
	run(t, "chmod", "-R", "go=", filepath.Join(b, "secrets"))
	// A cache of its own, but for what takes long to get or to compile.
	cache := filepath.Join(dir, "cache")
	if err := os.Mkdir(cache, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"blobs", "payload", "tools", "tool-locks"} {
		if err := os.Symlink(filepath.Join(cacheDir(t), kind), filepath.Join(cache, kind)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `umask 077 && exec "$0" "$@"`, imagegen, "build", file, "-o", b)
	cmd.Env = append(os.Environ(), "KILN_CACHE="+cache, "TZ=Asia/Kathmandu", "LC_ALL=C", "GOMAXPROCS=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("second build: %v\n%s", err, out)
	}
	first, second := digest(t, filepath.Join(a, nodeOfExample+".img")), digest(t, filepath.Join(b, nodeOfExample+".img"))
	if first != second {
		t.Errorf("two builds of the same inputs differ: %s and %s", first, second)
	}
}

// nodeOfExample is the node of the file that `imagegen init` writes.
const nodeOfExample = "kiln-1"

func cacheDir(t *testing.T) string {
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
	return fmt.Sprintf("%x", h.Sum(nil))
}
