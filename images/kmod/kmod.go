// Package kmod makes the indexes of kernel modules that modprobe and udev read,
// as depmod(8) of kmod does: modules.dep, modules.alias, modules.symbols and the
// rest of modules.dep(5), in text and in libkmod's binary form. Files of the same
// modules are the same bytes as those of kmod 34, on every build host.
//
// Unlike depmod(8), Index reads no depmod.d(5): a host's configuration must not
// decide what is in an image. Its default order holds, in which modules below
// updates/ replace those of the same name elsewhere.
//
// INPUTS: usr/lib/modules/<release>/ of a tree with modules (.ko, .ko.gz, .ko.xz,
// .ko.zst), modules.order, modules.builtin and modules.builtin.modinfo.
// OUTPUTS: further files modules.* in the same folder.
package kmod

import (
	"bytes"
	"context"
	"fmt"

	"github.com/kiln-os/kiln/images/tree"
)

// Index adds the indexes of one kernel release to t. It adds nothing if it fails.
func Index(ctx context.Context, t *tree.Tree, kernel string) error {
	files, err := index(ctx, t, "usr/lib/modules/"+kernel)
	if err != nil {
		return fmt.Errorf("index modules of kernel %s: %w", kernel, err)
	}
	for _, f := range files {
		t.AddFile("usr/lib/modules/"+kernel+"/"+f.name, 0o644, f.data)
	}
	return nil
}

// file is one index.
type file struct {
	name string
	data []byte
}

// index makes the indexes of the modules below dir.
func index(ctx context.Context, t *tree.Tree, dir string) ([]file, error) {
	modules, err := findModules(t, dir)
	if err != nil {
		return nil, err
	}
	if err := readModules(ctx, t, dir, modules); err != nil {
		return nil, err
	}
	symbols := exportedSymbols(modules)
	linkModules(modules, symbols)
	if err := rankModules(modules); err != nil {
		return nil, err
	}

	files := []file{
		{"modules.alias", aliasText(modules)},
		{"modules.dep", depText(modules)},
		{"modules.devname", devnameText(modules)},
		{"modules.softdep", infoText(modules, "softdep", "# Soft dependencies extracted from modules themselves.\n")},
		{"modules.symbols", symbolText(symbols)},
		{"modules.weakdep", infoText(modules, "weakdep", "# Weak dependencies extracted from modules themselves.\n")},
	}
	for _, b := range []struct {
		name string
		make func() (*trie, error)
	}{
		{"modules.alias.bin", func() (*trie, error) { return aliasTrie(modules) }},
		{"modules.builtin.alias.bin", func() (*trie, error) { return builtinAliasTrie(t, dir) }},
		{"modules.builtin.bin", func() (*trie, error) { return builtinTrie(t, dir) }},
		{"modules.dep.bin", func() (*trie, error) { return depTrie(modules) }},
		{"modules.symbols.bin", func() (*trie, error) { return symbolTrie(symbols) }},
	} {
		x, err := b.make()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", b.name, err)
		}
		if x == nil {
			continue
		}
		var out bytes.Buffer
		if err := x.write(&out); err != nil {
			return nil, fmt.Errorf("%s: %w", b.name, err)
		}
		files = append(files, file{b.name, out.Bytes()})
	}
	return files, nil
}
