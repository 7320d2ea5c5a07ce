package profiles

import (
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/hosttools"
	"github.com/kiln-os/kiln/internal/testtools"
)

// TestModules: every kernel module that a profile names is one of its kernel, as a
// file or built in. A name that is wrong would be a disk that is not found.
func TestModules(t *testing.T) {
	known := map[string]map[string]bool{}
	for _, name := range Names() {
		t.Run(name, func(t *testing.T) {
			p, err := Load(name)
			if err != nil {
				t.Fatal(err)
			}
			kernel := p.Arch + " " + p.Kernel
			if known[kernel] == nil {
				a, err := arch.Get(p.Arch)
				if err != nil {
					t.Fatal(err)
				}
				a.Kernel = p.Kernel
				suites := []string{hosttools.Suite}
				if p.Arch == "ppc64le" {
					// Mirrors of it go stale: its part of an archive is copied last, if at all.
					suites = append(suites, "bookworm")
				}
				known[kernel] = modules(t, testtools.KernelOf(t, a, suites...))
			}
			for _, m := range p.InitrdModules {
				if !known[kernel][m] {
					t.Errorf("%s has no module %s", p.Kernel, m)
				}
			}
		})
	}
}

// TestZram: the kernels of the profiles that swap to memory have what that takes. Those
// profiles are the ones of small boards with a card.
func TestZram(t *testing.T) {
	var with []string
	for _, name := range Names() {
		p, err := Load(name)
		if err != nil {
			t.Fatal(err)
		}
		if p.Zram == "" {
			continue
		}
		with = append(with, name)
		a, err := arch.Get(p.Arch)
		if err != nil {
			t.Fatal(err)
		}
		a.Kernel = p.Kernel
		files := testtools.KernelOf(t, a, hosttools.Suite)
		if !modules(t, files)["zram"] {
			t.Errorf("%s: %s has no module zram", name, p.Kernel)
		}
		found := false
		for _, f := range files.Paths() {
			if !strings.HasPrefix(f, "boot/config-") {
				continue
			}
			found = true
			config, err := files.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, option := range []string{"SWAP", "ZSMALLOC", "ZRAM_BACKEND_" + strings.ToUpper(p.Zram)} {
				if !strings.Contains(string(config), "\nCONFIG_"+option+"=y\n") {
					t.Errorf("%s: %s is made without %s", name, f, option)
				}
			}
		}
		if !found {
			t.Errorf("%s: the package of %s has no configuration of it", name, p.Kernel)
		}
	}
	if want := []string{"rpi-arm", "rpi-arm64"}; !slices.Equal(with, want) {
		t.Errorf("swap in memory: %v, want %v", with, want)
	}
}

// modules lists the modules of a kernel's package by the names that programs use.
func modules(t *testing.T, files *tree.Tree) map[string]bool {
	t.Helper()
	known := map[string]bool{}
	add := func(file string) {
		base, _, _ := strings.Cut(path.Base(file), ".ko")
		known[strings.ReplaceAll(base, "-", "_")] = true
	}
	err := files.Walk(func(p string, _ *tree.Entry) error {
		if strings.Contains(p, ".ko") {
			add(p)
		}
		if path.Base(p) == "modules.builtin" {
			b, err := files.ReadFile(p)
			if err != nil {
				return err
			}
			for _, l := range strings.Fields(string(b)) {
				add(l)
			}
		}
		return nil
	})
	if err != nil || len(known) < 100 {
		t.Fatalf("%d modules, %v", len(known), err)
	}
	return known
}
