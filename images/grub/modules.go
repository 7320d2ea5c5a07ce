package grub

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kiln-os/kiln/images/tree"
)

// Package is the Debian package that has GRUB's kernel and modules.
const Package = "grub-ieee1275-bin"

// Unneeded are the packages that Package depends on: they have GRUB's programs, which
// install it on a machine that runs.
var Unneeded = []string{"grub-common", "grub2-common", "libparted2t64"}

// Folder is where Package keeps them.
const Folder = "usr/lib/grub/powerpc-ieee1275"

// modules are what GRUB needs to start a node: nothing is loaded later, since the boot
// partition has no modules. What they depend on follows from the package's list.
var modules = []string{
	"part_gpt", "fat", // reach the boot partition
	"normal", "test", "configfile", // run grub.cfg, and what it sources
	"linux",          // start a kernel
	"echo", "reboot", // say what is wrong, and try it again
}

// FromPackage returns the core image whose grub.cfg is in the folder prefix, out of the
// files of Package.
func FromPackage(t *tree.Tree, prefix string) ([]byte, error) {
	list, err := t.ReadFile(Folder + "/moddep.lst")
	if err != nil {
		return nil, fmt.Errorf("list of GRUB's modules: %w", err)
	}
	needed, err := order(string(list), modules)
	if err != nil {
		return nil, err
	}
	p := Parts{Prefix: prefix}
	if p.Kernel, err = t.ReadFile(Folder + "/kernel.img"); err != nil {
		return nil, fmt.Errorf("GRUB's kernel: %w", err)
	}
	for _, name := range needed {
		m, err := t.ReadFile(Folder + "/" + name + ".mod")
		if err != nil {
			return nil, fmt.Errorf("module %s of GRUB: %w", name, err)
		}
		p.Modules = append(p.Modules, m)
	}
	return Core(p)
}

// order returns the modules and what they depend on by a moddep.lst ("NAME: DEPENDENCY…"
// per line), each behind its dependencies, in the order of grub-mkimage.
func order(list string, names []string) ([]string, error) {
	needs := map[string][]string{}
	for i, line := range strings.Split(strings.TrimSpace(list), "\n") {
		name, rest, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("list of GRUB's modules: line %d is %q, want a name and a colon", i+1, line)
		}
		needs[name] = strings.Fields(rest)
	}
	var out []string
	seen := map[string]bool{}
	var add func(name, by string) error
	add = func(name, by string) error {
		if seen[name] {
			return nil
		}
		seen[name] = true
		deps, ok := needs[name]
		if !ok {
			return fmt.Errorf("list of GRUB's modules: %s is not in it, which %s needs", name, by)
		}
		for _, d := range slices.Backward(deps) {
			if err := add(d, name); err != nil {
				return err
			}
		}
		out = append(out, name)
		return nil
	}
	for _, name := range names {
		if err := add(name, "a node"); err != nil {
			return nil, err
		}
	}
	return out, nil
}
