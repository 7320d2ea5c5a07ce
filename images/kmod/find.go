package kmod

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/kiln-os/kiln/images/tree"
)

// module is a kernel module and its place among the others.
type module struct {
	name string // as in lsmod: the file's name up to its first dot, with _ for -
	path string // relative to the release's folder
	object

	// number is the module's place in modules.dep and its priority in the binary
	// indexes: of modules with the same alias, modprobe tries the lowest first.
	number uint32
	// deps are the modules whose symbols this one needs, each once.
	deps  []*module
	users int // how many modules have this one in deps
	rank  int // place in an order in which no module comes before its users
}

// extensions of module files, by how they are compressed.
var extensions = []string{".ko", ".ko.gz", ".ko.xz", ".ko.zst"}

// isModule says whether a file name is that of a module.
func isModule(base string) bool {
	return slices.ContainsFunc(extensions, func(ext string) bool { return len(base) > len(ext) && strings.HasSuffix(base, ext) })
}

// moduleName turns kernel/fs/nls/nls_iso8859-1.ko.xz into nls_iso8859_1.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".")
	return strings.ReplaceAll(name, "-", "_")
}

// findModules returns the modules below dir in the order of modules.dep, with
// nothing but names and paths.
func findModules(t *tree.Tree, dir string) ([]*module, error) {
	if e := t.Get(dir); e == nil || e.Type != tree.Dir {
		return nil, fmt.Errorf("no folder /%s in the packages: is the kernel's package among them?", dir)
	}
	byName := map[string]*module{}
	for _, p := range t.Paths() {
		rel, ok := strings.CutPrefix(p, dir+"/")
		if !ok || !isModule(path.Base(rel)) || isExcluded(rel) {
			continue
		}
		if _, e, err := t.Lookup(p); err != nil {
			return nil, fmt.Errorf("module /%s: %w", p, err)
		} else if e.Type != tree.File {
			continue
		}
		name := moduleName(rel)
		// Which of two modules outside of updates/ wins depends on the file system's
		// order of folders in depmod(8); here it is the first path.
		if have := byName[name]; have == nil || isUpdate(rel) && !isUpdate(have.path) {
			byName[name] = &module{name: name, path: rel}
		}
	}
	return orderModules(t, dir, byName)
}

// isExcluded says whether a path lies in the links to the kernel's source, or is one.
func isExcluded(rel string) bool {
	parts := strings.Split(rel, "/")
	return slices.Contains(parts, "build") || slices.Contains(parts, "source")
}

func isUpdate(rel string) bool { return strings.HasPrefix(rel, "updates/") }

// moduleBuckets is the size of depmod's hash table of modules.
const moduleBuckets = 512

// orderModules sorts modules by the kernel's modules.order, which has the order of
// linking: of two drivers for a device, modprobe tries the one first that would be
// first if both were built in. Modules that are not in the file come behind.
func orderModules(t *tree.Tree, dir string, byName map[string]*module) ([]*module, error) {
	byPath := map[string]*module{}
	for _, m := range byName {
		byPath[uncompressed(m.path)] = m
	}
	sorted := make([]*module, 0, len(byName))
	add := func(m *module) {
		m.number = uint32(len(sorted))
		sorted = append(sorted, m)
	}
	lines, err := readLines(t, dir+"/modules.order")
	if err != nil {
		return nil, err
	}
	for _, l := range lines {
		if m := byPath[l]; m != nil {
			add(m)
			delete(byPath, l)
			delete(byName, m.name)
		}
	}
	for _, name := range hashOrder(byName, moduleBuckets) {
		add(byName[name])
	}
	return sorted, nil
}

// uncompressed is a module's path as modules.order has it.
func uncompressed(file string) string {
	for _, ext := range extensions[1:] {
		if s, ok := strings.CutSuffix(file, ext); ok {
			return s + ".ko"
		}
	}
	return file
}

// readLines returns the lines of a file, none if there is no such file.
func readLines(t *tree.Tree, p string) ([]string, error) {
	if t.Get(p) == nil {
		return nil, nil
	}
	b, err := t.ReadFile(p)
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n"), nil
}
