package kmod

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"strings"
)

// object is what the indexes need of a module's ELF file.
type object struct {
	// info are the fields of .modinfo that MODULE_ALIAS, MODULE_SOFTDEP and
	// MODULE_WEAKDEP of the kernel's source make, in the file's order.
	info []field
	// exports are the names of EXPORT_SYMBOL and its variants.
	exports []string
	// needs are the names of symbols that other modules or the kernel provide.
	needs []string
}

// field is one key=value of .modinfo.
type field struct{ key, value string }

// parseObject reads a kernel module: a relocatable ELF file of any class and byte
// order, behind which a signature may stand.
func parseObject(b []byte) (object, error) {
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return object{}, fmt.Errorf("not an ELF file: %w", err)
	}
	if f.Type != elf.ET_REL {
		return object{}, fmt.Errorf("an ELF file of type %s: kernel modules are relocatable ones (ET_REL)", f.Type)
	}
	symbols, err := f.Symbols()
	if errors.Is(err, elf.ErrNoSymbols) {
		return object{}, errors.New("no symbol table, without which the kernel loads no module: was it stripped?")
	}
	if err != nil {
		return object{}, fmt.Errorf("symbol table: %w", err)
	}
	var o object
	if o.info, err = parseInfo(f); err != nil {
		return object{}, err
	}
	if o.exports, err = parseExports(f, symbols); err != nil {
		return object{}, err
	}
	o.needs, err = parseNeeds(f, symbols)
	return o, err
}

// sectionData returns the bytes of the section with a name, none if there is no such section.
func sectionData(f *elf.File, name string) ([]byte, error) {
	s := f.Section(name)
	if s == nil || s.Type == elf.SHT_NOBITS {
		return nil, nil
	}
	b, err := s.Data()
	if err != nil {
		return nil, fmt.Errorf("section %s: %w", name, err)
	}
	return b, nil
}

// parseInfo returns what the indexes need of .modinfo: strings of the form
// key=value with zero bytes between them.
func parseInfo(f *elf.File) ([]field, error) {
	b, err := sectionData(f, ".modinfo")
	if err != nil {
		return nil, err
	}
	var list []field
	for s := range strings.SplitSeq(string(b), "\x00") {
		key, value, ok := strings.Cut(s, "=")
		if !ok {
			continue
		}
		switch key {
		case "alias", "softdep", "weakdep":
			// Cloned: the rest of the section is not kept in memory.
			list = append(list, field{key, strings.Clone(value)})
		}
	}
	return list, nil
}

// parseExports returns the exported symbols. A kernel with CONFIG_MODVERSIONS has
// a symbol __crc_NAME for each; the names of any kernel are in __ksymtab_strings.
func parseExports(f *elf.File, symbols []elf.Symbol) ([]string, error) {
	var names []string
	for _, s := range symbols {
		if name, ok := strings.CutPrefix(s.Name, "__crc_"); ok && name != "" {
			names = append(names, name)
		}
	}
	if names != nil {
		return names, nil
	}
	b, err := sectionData(f, "__ksymtab_strings")
	if err != nil {
		return nil, err
	}
	for s := range strings.SplitSeq(string(b), "\x00") {
		if s != "" {
			names = append(names, s)
		}
	}
	return names, nil
}

// parseNeeds returns the undefined symbols in the order of the symbol table, and
// behind them the names that only __versions has. Order matters: it decides which
// of modules that do not depend on each other is loaded first.
func parseNeeds(f *elf.File, symbols []elf.Symbol) ([]string, error) {
	var names []string
	seen := map[string]bool{}
	for _, s := range symbols {
		if s.Section == elf.SHN_UNDEF && s.Name != "" {
			names = append(names, s.Name)
			seen[s.Name] = true
		}
	}
	versions, err := sectionData(f, "__versions")
	if err != nil {
		return nil, err
	}
	// struct modversion_info of the kernel: an unsigned long and a name, 64 bytes.
	const size = 64
	crc := 8
	if f.Class == elf.ELFCLASS32 {
		crc = 4
	}
	if len(versions)%size != 0 {
		return nil, fmt.Errorf("section __versions has %d bytes, which is no multiple of %d", len(versions), size)
	}
	for ; len(versions) > 0; versions = versions[size:] {
		name, _, _ := strings.Cut(string(versions[crc:size]), "\x00")
		if name != "" && !seen[name] {
			names = append(names, name)
		}
	}
	return names, nil
}
