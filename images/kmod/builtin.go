package kmod

import (
	"fmt"
	"strings"

	"github.com/kiln-os/kiln/images/tree"
)

// builtinTrie indexes the names of modules that are a part of the kernel: modprobe
// has nothing to do for them. It returns nil without modules.builtin.
func builtinTrie(t *tree.Tree, dir string) (*trie, error) {
	p := dir + "/modules.builtin"
	if t.Get(p) == nil {
		return nil, nil
	}
	lines, err := readLines(t, p)
	if err != nil {
		return nil, err
	}
	x := &trie{}
	for i, l := range lines {
		if l == "" {
			continue
		}
		if !isModule(l) {
			return nil, fmt.Errorf("/%s:%d: %q is not the path of a module such as kernel/fs/ext4/ext4.ko", p, i+1, l)
		}
		if err := x.insert(moduleName(l), "", 0); err != nil {
			return nil, fmt.Errorf("/%s:%d: %w", p, i+1, err)
		}
	}
	return x, nil
}

// builtinAliasTrie indexes the aliases of modules that are a part of the kernel. It
// returns nil without modules.builtin.modinfo, which has strings of the form
// module.key=value with zero bytes between them.
func builtinAliasTrie(t *tree.Tree, dir string) (*trie, error) {
	p := dir + "/modules.builtin.modinfo"
	if t.Get(p) == nil {
		return nil, nil
	}
	b, err := t.ReadFile(p)
	if err != nil {
		return nil, err
	}
	x := &trie{}
	for s := range strings.SplitSeq(string(b), "\x00") {
		if s == "" {
			continue
		}
		name, rest, hasDot := strings.Cut(s, ".")
		key, value, hasValue := strings.Cut(rest, "=")
		if !hasDot || !hasValue {
			return nil, fmt.Errorf("/%s: %q is not of the form module.key=value", p, s)
		}
		if key != "alias" || value == "" {
			continue
		}
		alias, ok := normalizeAlias(value)
		if !ok {
			continue
		}
		if err := x.insert(alias, name, 0); err != nil {
			return nil, fmt.Errorf("/%s: %w", p, err)
		}
	}
	return x, nil
}
