package kmod

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// exportedSymbols maps the symbols of all modules to the modules that export them.
// If several do, it is the last one, as in depmod(8).
func exportedSymbols(modules []*module) map[string]*module {
	symbols := map[string]*module{}
	for _, m := range modules {
		for _, s := range m.exports {
			symbols[s] = m
		}
	}
	return symbols
}

// linkModules finds each module's deps by the symbols that it needs; those that no
// module exports are the kernel's own. The field depends= of .modinfo is not used:
// it has what modules were linked with, not what is there.
func linkModules(modules []*module, symbols map[string]*module) {
	for _, m := range modules {
		for _, s := range m.needs {
			// On 64-bit PowerPC .name is the code of the function name.
			dep := symbols[strings.TrimPrefix(s, ".")]
			if dep == nil || slices.Contains(m.deps, dep) {
				continue
			}
			m.deps = append(m.deps, dep)
			dep.users++
		}
	}
}

// rankModules sorts the modules topologically and every module's deps by rank. It
// is Kahn's algorithm with a stack: with a queue the order would be another valid
// one, but modules.dep not the same as depmod's.
func rankModules(modules []*module) error {
	left := make([]int, len(modules)) // users without a rank
	var ready []*module
	for i, m := range modules {
		if left[i] = m.users; m.users == 0 {
			ready = append(ready, m)
		}
	}
	ranked := 0
	for ; len(ready) > 0; ranked++ {
		m := ready[len(ready)-1]
		ready = ready[:len(ready)-1]
		m.rank = ranked
		for _, d := range m.deps {
			if left[d.number]--; left[d.number] == 0 {
				ready = append(ready, d)
			}
		}
	}
	if ranked < len(modules) {
		return fmt.Errorf("modules depend on each other in a cycle, so none of them can be loaded: %s", strings.Join(findCycle(modules, left), " -> "))
	}
	for _, m := range modules {
		slices.SortFunc(m.deps, byRank)
	}
	return nil
}

func byRank(a, b *module) int { return cmp.Compare(a.rank, b.rank) }

// findCycle returns names of modules each of which needs the next, the first and
// the last being the same. Of modules whose left is not 0 each has a user of that
// kind, so going from user to user ends in a cycle.
func findCycle(modules []*module, left []int) []string {
	user := map[*module]*module{}
	var m *module
	for _, u := range modules {
		if left[u.number] == 0 {
			continue
		}
		m = u
		for _, d := range u.deps {
			user[d] = u
		}
	}
	var walked []*module
	for !slices.Contains(walked, m) {
		walked = append(walked, m)
		m = user[m]
	}
	names := []string{m.name}
	for _, w := range walked[slices.Index(walked, m)+1:] {
		names = append(names, w.name)
	}
	names = append(names, m.name)
	slices.Reverse(names)
	return names
}

// allDeps returns everything that must be loaded before m, by rank: modprobe loads
// a line of modules.dep from its end.
func (m *module) allDeps() []*module {
	var all []*module
	seen := map[*module]bool{}
	var add func(*module)
	add = func(m *module) {
		for _, d := range m.deps {
			if !seen[d] {
				seen[d] = true
				all = append(all, d)
				add(d)
			}
		}
	}
	add(m)
	slices.SortFunc(all, byRank)
	return all
}
