package profiles

import (
	"path"
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
