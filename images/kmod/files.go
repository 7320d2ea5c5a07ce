package kmod

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// symbolBuckets is the size of depmod's hash table of symbols.
const symbolBuckets = 2048

// symbolPrefix marks the aliases by which the kernel's symbol_request() asks for a
// module that exports a symbol.
const symbolPrefix = "symbol:"

// depLine is a module's line in modules.dep.
func depLine(m *module) string {
	var b strings.Builder
	b.WriteString(m.path + ":")
	for _, d := range m.allDeps() {
		b.WriteString(" " + d.path)
	}
	return b.String()
}

func depText(modules []*module) []byte {
	var out bytes.Buffer
	for _, m := range modules {
		out.WriteString(depLine(m) + "\n")
	}
	return out.Bytes()
}

func depTrie(modules []*module) (*trie, error) {
	x := &trie{}
	for _, m := range modules {
		if err := x.insert(m.name, depLine(m), m.number); err != nil {
			return nil, err
		}
	}
	return x, nil
}

func aliasText(modules []*module) []byte {
	var out bytes.Buffer
	out.WriteString("# Aliases extracted from modules themselves.\n")
	for _, m := range modules {
		for _, f := range m.info {
			if f.key == "alias" {
				fmt.Fprintf(&out, "alias %s %s\n", f.value, m.name)
			}
		}
	}
	return out.Bytes()
}

func aliasTrie(modules []*module) (*trie, error) {
	x := &trie{}
	for _, m := range modules {
		for _, f := range m.info {
			if f.key != "alias" {
				continue
			}
			alias, ok := normalizeAlias(f.value)
			if !ok {
				continue
			}
			if err := x.insert(alias, m.name, m.number); err != nil {
				return nil, fmt.Errorf("module %s: %w", m.path, err)
			}
		}
	}
	return x, nil
}

// normalizeAlias writes _ for -, as modprobe does before it looks an alias up, but
// not within brackets, where - is a range of characters. It returns false for an
// alias with a bracket that has no other: that matches nothing.
func normalizeAlias(alias string) (string, bool) {
	b := []byte(alias)
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '-':
			b[i] = '_'
		case ']':
			return "", false
		case '[':
			n := bytes.IndexByte(b[i:], ']')
			if n < 0 {
				return "", false
			}
			i += n
		}
	}
	return string(b), true
}

// infoText is a text with one field of all modules behind a heading.
func infoText(modules []*module, key, heading string) []byte {
	var out bytes.Buffer
	out.WriteString(heading)
	for _, m := range modules {
		for _, f := range m.info {
			if f.key == key {
				fmt.Fprintf(&out, "%s %s %s\n", key, m.name, f.value)
			}
		}
	}
	return out.Bytes()
}

func symbolText(symbols map[string]*module) []byte {
	var out bytes.Buffer
	out.WriteString("# Aliases for symbols, used by symbol_request().\n")
	for _, s := range hashOrder(symbols, symbolBuckets) {
		fmt.Fprintf(&out, "alias %s%s %s\n", symbolPrefix, s, symbols[s].name)
	}
	return out.Bytes()
}

func symbolTrie(symbols map[string]*module) (*trie, error) {
	x := &trie{}
	for _, s := range hashOrder(symbols, symbolBuckets) {
		if err := x.insert(symbolPrefix+s, symbols[s].name, symbols[s].number); err != nil {
			return nil, fmt.Errorf("module %s: %w", symbols[s].path, err)
		}
	}
	return x, nil
}

// devnameText lists device nodes whose opening loads a module: kmod's static-nodes
// makes them at boot. The file is empty, without a heading, if there are none.
func devnameText(modules []*module) []byte {
	var out bytes.Buffer
	for _, m := range modules {
		name, number := devname(m)
		// A name without a number is a mistake in the module's source, of which
		// depmod(8) makes no node either.
		if name == "" || number == "" {
			continue
		}
		if out.Len() == 0 {
			out.WriteString("# Device nodes to trigger on-demand module loading.\n")
		}
		fmt.Fprintf(&out, "%s %s %s\n", m.name, name, number)
	}
	return out.Bytes()
}

// devname returns the first device node among a module's aliases, such as fuse and
// c10:229 for devname:fuse and char-major-10-229.
func devname(m *module) (name, number string) {
	for _, f := range m.info {
		if f.key != "alias" {
			continue
		}
		if s, ok := strings.CutPrefix(f.value, "devname:"); ok {
			name = s
		} else if s, ok := strings.CutPrefix(f.value, "char-major-"); ok {
			number = deviceNumber("c", s, number)
		} else if s, ok := strings.CutPrefix(f.value, "block-major-"); ok {
			number = deviceNumber("b", s, number)
		}
		if name != "" && number != "" {
			break
		}
	}
	return name, number
}

// deviceNumber turns 10-229 into c10:229. An alias for all minor numbers (10-*)
// names no node: what was found before stays.
func deviceNumber(kind, s, before string) string {
	major, minor, _ := strings.Cut(s, "-")
	a, err := strconv.ParseUint(major, 10, 32)
	if err != nil {
		return before
	}
	b, err := strconv.ParseUint(minor, 10, 32)
	if err != nil {
		return before
	}
	return fmt.Sprintf("%s%d:%d", kind, a, b)
}
