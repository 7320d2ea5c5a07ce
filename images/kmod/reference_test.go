package kmod

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/testtools"
)

// indexNames are the files that depmod(8) writes.
var indexNames = []string{
	"modules.alias", "modules.alias.bin", "modules.builtin.alias.bin", "modules.builtin.bin", "modules.dep", "modules.dep.bin",
	"modules.devname", "modules.softdep", "modules.symbols", "modules.symbols.bin", "modules.weakdep",
}

// extract writes the files below usr/lib/modules to a folder and returns it.
// modprobe and depmod look below lib/modules of their base folder.
func extract(t *testing.T, from *tree.Tree) string {
	t.Helper()
	root := t.TempDir()
	err := from.Walk(func(p string, e *tree.Entry) error {
		if e.Type != tree.File || !strings.HasPrefix(p, "usr/lib/modules/") {
			return nil
		}
		to := filepath.Join(root, strings.TrimPrefix(p, "usr/"))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		r, err := e.Content.Open()
		if err != nil {
			return err
		}
		defer r.Close()
		b, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		return os.WriteFile(to, b, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// depmod runs the reference in a folder that extract made and returns how long it took.
func depmod(t *testing.T, root, kernel string) time.Duration {
	t.Helper()
	cmd := testtools.Command(t, "depmod", "-b", root, "-C", t.TempDir(), kernel)
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("depmod: %v\n%s", err, out)
	}
	return time.Since(start)
}

// compare wants every index in the tree to be the reference's, byte by byte.
func compare(t *testing.T, got *tree.Tree, root, kernel string) {
	t.Helper()
	for _, name := range indexNames {
		want, err := os.ReadFile(filepath.Join(root, "lib/modules", kernel, name))
		if err != nil {
			t.Fatal(err)
		}
		have, err := got.ReadFile("usr/lib/modules/" + kernel + "/" + name)
		if err != nil {
			t.Error(err)
			continue
		}
		if !bytes.Equal(have, want) {
			t.Errorf("%s has %d bytes, depmod's %d; %s", name, len(have), len(want), firstDifference(have, want))
		}
	}
}

func firstDifference(a, b []byte) string {
	i := 0
	for i < min(len(a), len(b)) && a[i] == b[i] {
		i++
	}
	around := func(s []byte) string { return string(s[max(0, i-40):min(len(s), i+80)]) }
	return "they differ from byte " + strings.TrimSpace(strings.Join([]string{"", around(a), around(b)}, "\n--- "))
}

// TestSameAsDepmod compares the indexes of Debian's kernels with the reference's.
// The set of small modules in TestSetSameAsDepmod has the other classes and byte
// orders of ELF.
func TestSameAsDepmod(t *testing.T) {
	for _, name := range []string{"amd64", "arm64"} {
		t.Run(name, func(t *testing.T) {
			files, kernel := debianKernel(t, name)
			root := extract(t, files)
			reference := depmod(t, root, kernel)
			start := time.Now()
			if err := Index(t.Context(), files, kernel); err != nil {
				t.Fatal(err)
			}
			took := time.Since(start)
			t.Logf("%s: %v, depmod %v: %.1f times its time", kernel, took, reference, took.Seconds()/reference.Seconds())
			compare(t, files, root, kernel)
		})
	}
}

// debianKernel returns a kernel's files and its release.
func debianKernel(t *testing.T, goarch string) (*tree.Tree, string) {
	t.Helper()
	a, err := arch.Get(goarch)
	if err != nil {
		t.Fatal(err)
	}
	files := testtools.Kernel(t, a)
	for _, p := range files.Paths() {
		if kernel, ok := strings.CutPrefix(p, "usr/lib/modules/"); ok {
			return files, kernel
		}
	}
	t.Fatalf("package %s has no modules", a.Kernel)
	return nil, ""
}

// TestModprobeReadsIndexes looks modules up as a machine does, in a folder that
// has Kiln's indexes and none of depmod's.
func TestModprobeReadsIndexes(t *testing.T) {
	files, kernel := debianKernel(t, "amd64")
	if err := Index(t.Context(), files, kernel); err != nil {
		t.Fatal(err)
	}
	root := extract(t, files)
	dir := filepath.Join(root, "lib/modules", kernel)
	modprobe := func(args ...string) string {
		t.Helper()
		cmd := testtools.Command(t, "modprobe", append([]string{"-C", t.TempDir(), "-d", root, "-S", kernel}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("modprobe %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	lines := func(name string) []string {
		t.Helper()
		l, err := readLines(files, "usr/lib/modules/"+kernel+"/"+name)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}

	t.Run("dependencies", func(t *testing.T) {
		// Those with most dependencies, and every 20th.
		for i, l := range lines("modules.dep") {
			file, deps, _ := strings.Cut(l, ":")
			if i%20 != 0 && len(strings.Fields(deps)) < 8 {
				continue
			}
			out := modprobe("--show-depends", moduleName(file))
			loaded := strings.Split(strings.TrimSpace(out), "\n")
			if got := strings.TrimSpace(loaded[len(loaded)-1]); got != "insmod "+filepath.Join(dir, file) {
				t.Errorf("%s: modprobe loads %q last", file, got)
			}
			for _, d := range strings.Fields(deps) {
				if !strings.Contains(out, "insmod "+filepath.Join(dir, d)+" ") {
					t.Errorf("%s: modprobe does not load %s:\n%s", file, d, out)
				}
			}
		}
	})
	t.Run("aliases", func(t *testing.T) {
		for i, l := range append(lines("modules.alias"), lines("modules.symbols")...) {
			f := strings.Fields(l)
			if i%60 != 0 || len(f) != 3 || f[0] != "alias" {
				continue
			}
			// A device that the pattern stands for.
			device := strings.NewReplacer("*", "7", "?", "7").Replace(f[1])
			if strings.Contains(device, "[") {
				continue
			}
			if out := strings.Fields(modprobe("--resolve-alias", device)); !slices.Contains(out, f[2]) {
				t.Errorf("modprobe finds %q for %s, not %s", out, device, f[2])
			}
		}
	})
	t.Run("built-in modules", func(t *testing.T) {
		aliases, err := files.ReadFile("usr/lib/modules/" + kernel + "/modules.alias")
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lines("modules.builtin") {
			// An alias comes before a module that is built in, such as crc32's faster ones.
			if bytes.Contains(aliases, []byte("alias "+moduleName(l)+" ")) {
				continue
			}
			if out := modprobe("--show-depends", moduleName(l)); !strings.Contains(out, "builtin "+moduleName(l)) {
				t.Errorf("%s: modprobe says %q", l, out)
			}
		}
	})
	t.Run("modinfo", func(t *testing.T) {
		for _, name := range []string{"dm_verity", "overlay", "nfsd", "ip_vs"} {
			out, err := testtools.Command(t, "modinfo", "-b", root, "-k", kernel, "-F", "filename", name).CombinedOutput()
			if err != nil || !strings.HasPrefix(string(out), dir) {
				t.Errorf("modinfo %s: %v\n%s", name, err, out)
			}
		}
	})
}
