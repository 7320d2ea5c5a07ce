// Package initrd builds the initramfs: systemd, udev, systemd-repart, verity and
// Ignition out of the configured operating system's tree, with the shared
// libraries they need and the kernel modules of the profile.
package initrd

import (
	"bufio"
	"bytes"
	"fmt"
	"path"
	"slices"
	"sort"
	"strings"

	"github.com/kiln-os/kiln/images/elfdeps"
	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/units"
)

// ignitionInPackage is where Debian's package keeps the binary.
const ignitionInPackage = "usr/lib/dracut/modules.d/30ignition/ignition"

// Build returns the initramfs's tree. os is the configured tree of the operating
// system (images/osbase), with kernel module indexes; modules are the profile's
// names of kernel modules on top of those that every node needs; asker is the program
// that asks a cloud for user data, nil elsewhere.
func Build(os *tree.Tree, kernel string, modules []string, asker tree.Content, vars units.Vars) (*tree.Tree, error) {
	b := builder{os: os, out: tree.New()}
	programs, unitNames, rules := programs, unitNames, rules
	if asker != nil {
		programs = slices.Concat(programs, cloudPrograms)
		unitNames = slices.Concat(unitNames, cloudUnitNames)
		rules = slices.Concat(rules, cloudRules)
		modules = slices.Concat(modules, cloudModules)
	}
	b.copyPrograms(programs)
	b.copyUnits(unitNames)
	for _, r := range rules {
		b.copy("usr/lib/udev/rules.d/" + r)
	}
	for _, p := range plainFiles {
		if os.Get(p) != nil {
			b.copy(p)
		}
	}
	if b.err == nil {
		b.err = b.copyModules(kernel, append(append([]string{}, baseModules...), modules...))
	}
	if b.err != nil {
		return nil, fmt.Errorf("initramfs: %w", b.err)
	}
	b.links()
	if asker != nil {
		b.cloud(asker)
	}
	if b.err != nil {
		return nil, fmt.Errorf("initramfs: %w", b.err)
	}
	if err := units.Initrd(b.out, vars); err != nil {
		return nil, err
	}
	return b.out, nil
}

type builder struct {
	os, out *tree.Tree
	err     error // the first one
}

// copy takes the entry at p, and if it is a link the entry it leads to.
func (b *builder) copy(p string) {
	for hops := 0; b.err == nil && hops < 10; hops++ {
		e := b.os.Get(p)
		if e == nil {
			// p may lie behind a linked folder.
			r, err := b.os.Resolve(p)
			if err != nil || r == p || b.os.Get(r) == nil {
				b.err = fmt.Errorf("no /%s in the packages", p)
				return
			}
			p = r
			continue
		}
		if e.Type == tree.Hardlink {
			_, e, b.err = b.os.Lookup(p)
			if b.err != nil {
				return
			}
		}
		b.out.Set(p, e)
		if e.Type != tree.Symlink {
			return
		}
		if strings.HasPrefix(e.Link, "/") {
			p = tree.Clean(e.Link)
		} else {
			p = tree.Clean(path.Join(path.Dir(p), e.Link))
		}
	}
}

func (b *builder) copyPrograms(programs []string) {
	roots := append([]string{ignitionInPackage}, programs...)
	byName := map[string]string{}
	for _, p := range b.os.Paths() {
		if strings.Contains(p, ".so") && strings.HasPrefix(p, "usr/lib/") {
			byName[path.Base(p)] = p
		}
	}
	for _, l := range libraries {
		p, ok := byName[l]
		if !ok {
			b.fail(fmt.Errorf("no library %s in the packages", l))
			return
		}
		roots = append(roots, p)
	}
	all, err := elfdeps.Closure(b.os, roots)
	if err != nil {
		b.fail(err)
		return
	}
	for _, p := range append(roots, all...) {
		b.copy(p)
	}
	// Ignition stands where its units look for it.
	if e := b.out.Get(ignitionInPackage); e != nil {
		b.out.Delete("usr/lib/dracut")
		b.out.Set("usr/bin/ignition", e)
	}
}

func (b *builder) fail(err error) {
	if b.err == nil {
		b.err = err
	}
}

func (b *builder) copyUnits(unitNames []string) {
	const dir = "usr/lib/systemd/system/"
	for _, u := range unitNames {
		if b.os.Get(dir+u) != nil {
			b.copy(dir + u)
		}
	}
	targets := make([]string, 0, len(wanted))
	for t := range wanted {
		targets = append(targets, t)
	}
	sort.Strings(targets)
	for _, t := range targets {
		for _, u := range wanted[t] {
			if b.out.Get(dir+u) == nil {
				b.fail(fmt.Errorf("%s wants %s, which is not in the packages", t, u))
				return
			}
			b.out.AddSymlink(dir+t+"/"+u, "../"+u)
		}
	}
}

// links makes what the kernel and systemd look for at fixed places.
func (b *builder) links() {
	t := b.out
	t.AddSymlink("init", "usr/lib/systemd/systemd")
	for _, l := range []string{"bin", "sbin", "lib", "lib64"} {
		t.AddSymlink(l, "usr/"+l)
	}
	for _, d := range []string{"dev", "proc", "sys", "run", "sysroot", "var", "usr/lib64", "usr/bin", "usr/sbin"} {
		if t.Get(d) == nil {
			t.AddDir(d, 0o755)
		}
	}
	t.AddDir("tmp", 0o1777)
	t.AddDir("root", 0o700)
	t.AddSymlink("etc/initrd-release", "../usr/lib/os-release")
	t.AddSymlink("etc/os-release", "../usr/lib/os-release")
	t.AddSymlink("usr/lib/systemd/system/default.target", "initrd.target")
	t.AddSymlink("usr/lib/systemd/system/ctrl-alt-del.target", "reboot.target")
	// Debian's Ignition relabels for SELinux whether or not there is any.
	t.AddFile("etc/selinux/config", 0o644, []byte("SELINUX=disabled\nSELINUXTYPE=none\n"))
	t.AddSymlink("usr/sbin/setfiles", "../bin/true")
	// The kernel opens it before any device manager runs.
	t.Set("dev/console", &tree.Entry{Type: tree.CharDev, Mode: 0o600, Major: 5, Minor: 1})
}

// copyModules adds the named modules, what they depend on, and the indexes.
func (b *builder) copyModules(kernel string, names []string) error {
	dir := "usr/lib/modules/" + kernel + "/"
	dep, err := b.os.ReadFile(dir + "modules.dep")
	if err != nil {
		return fmt.Errorf("kernel module index: %w", err)
	}
	builtin, err := b.os.ReadFile(dir + "modules.builtin")
	if err != nil {
		return fmt.Errorf("kernel module index: %w", err)
	}
	deps, files := map[string][]string{}, map[string]string{}
	sc := bufio.NewScanner(bytes.NewReader(dep))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		file, rest, _ := strings.Cut(sc.Text(), ":")
		files[moduleName(file)] = file
		deps[file] = strings.Fields(rest)
	}
	inKernel := map[string]bool{}
	for _, l := range strings.Fields(string(builtin)) {
		inKernel[moduleName(l)] = true
	}
	aliases, err := b.aliases(dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		n = strings.ReplaceAll(n, "-", "_")
		var found []string
		for _, m := range append([]string{n}, aliases[n]...) {
			if f, ok := files[m]; ok {
				found = append(found, f)
			}
		}
		if len(found) == 0 {
			// A module that this kernel has neither as a file nor built in may be part of another one; only
			// what the boot cannot do without is an error.
			if !inKernel[n] && required[n] {
				return fmt.Errorf("kernel %s has no module %s", kernel, n)
			}
			continue
		}
		for _, file := range found {
			for _, f := range append([]string{file}, deps[file]...) {
				b.copy(dir + f)
			}
		}
	}
	for _, p := range b.os.Paths() {
		if strings.HasPrefix(p, dir+"modules.") {
			b.copy(p)
		}
	}
	return b.err
}

// aliases returns the modules that have a name besides their own. It is how those are
// found that provide an algorithm, such as crc32c, which ext4 asks for by its name alone.
func (b *builder) aliases(dir string) (map[string][]string, error) {
	text, err := b.os.ReadFile(dir + "modules.alias")
	if err != nil {
		return nil, fmt.Errorf("kernel module index: %w", err)
	}
	out := map[string][]string{}
	for _, l := range strings.Split(string(text), "\n") {
		if f := strings.Fields(l); len(f) == 3 && f[0] == "alias" {
			out[f[1]] = append(out[f[1]], f[2])
		}
	}
	return out, nil
}

// required modules must be in the kernel or beside it: without them nothing boots.
var required = map[string]bool{"dm_mod": true, "dm_verity": true, "squashfs": true, "ext4": true, "vfat": true}

// moduleName turns kernel/fs/squashfs/squashfs.ko.xz into squashfs.
func moduleName(file string) string {
	n := path.Base(file)
	n = strings.TrimSuffix(strings.TrimSuffix(n, ".xz"), ".zst")
	return strings.ReplaceAll(strings.TrimSuffix(n, ".ko"), "-", "_")
}
