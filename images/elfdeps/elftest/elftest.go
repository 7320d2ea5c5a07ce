// Package elftest makes ELF files that have nothing but what a dynamic loader
// reads before it loads libraries, for tests that must not depend on the
// programs of the host.
package elftest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
)

// File describes an ELF file. The zero Machine is x86-64.
type File struct {
	Machine elf.Machine
	// Interp is the dynamic loader's path; a library has none.
	Interp string
	Needed []string
	// Runpath and Rpath are lists separated by colons.
	Runpath, Rpath string
}

const (
	headerSize  = 64
	progSize    = 56
	sectionSize = 64
)

// Bytes returns the file as a 64-bit little-endian ELF.
func (f File) Bytes() []byte {
	if f.Machine == elf.EM_NONE {
		f.Machine = elf.EM_X86_64
	}
	strtab := []byte{0}
	str := func(s string) uint64 {
		at := uint64(len(strtab))
		strtab = append(append(strtab, s...), 0)
		return at
	}
	var dyn []elf.Dyn64
	for _, n := range f.Needed {
		dyn = append(dyn, elf.Dyn64{Tag: int64(elf.DT_NEEDED), Val: str(n)})
	}
	if f.Runpath != "" {
		dyn = append(dyn, elf.Dyn64{Tag: int64(elf.DT_RUNPATH), Val: str(f.Runpath)})
	}
	if f.Rpath != "" {
		dyn = append(dyn, elf.Dyn64{Tag: int64(elf.DT_RPATH), Val: str(f.Rpath)})
	}
	dyn = append(dyn, elf.Dyn64{Tag: int64(elf.DT_NULL)})

	var body bytes.Buffer // what follows the header and the one program header
	const start = headerSize + progSize
	offset := func() uint64 { return start + uint64(body.Len()) }
	interpAt := offset()
	body.WriteString(f.Interp + "\x00")
	strAt := offset()
	body.Write(strtab)
	dynAt := offset()
	put(&body, dyn)
	dynSize := offset() - dynAt
	names := "\x00.dynstr\x00.dynamic\x00.shstrtab\x00"
	namesAt := offset()
	body.WriteString(names)
	sectionsAt := offset()
	put(&body, []elf.Section64{
		{},
		{Name: 1, Type: uint32(elf.SHT_STRTAB), Off: strAt, Size: uint64(len(strtab))},
		{Name: 9, Type: uint32(elf.SHT_DYNAMIC), Off: dynAt, Size: dynSize, Link: 1, Entsize: 16},
		{Name: 18, Type: uint32(elf.SHT_STRTAB), Off: namesAt, Size: uint64(len(names))},
	})

	h := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_DYN), Machine: uint16(f.Machine), Version: uint32(elf.EV_CURRENT),
		Phoff: headerSize, Shoff: sectionsAt, Ehsize: headerSize, Phentsize: progSize, Phnum: 1,
		Shentsize: sectionSize, Shnum: 4, Shstrndx: 3,
	}
	p := elf.Prog64{Type: uint32(elf.PT_NULL)}
	if f.Interp != "" {
		p = elf.Prog64{Type: uint32(elf.PT_INTERP), Off: interpAt, Filesz: uint64(len(f.Interp) + 1), Align: 1}
	}
	var out bytes.Buffer
	put(&out, h)
	put(&out, p)
	out.Write(body.Bytes())
	return out.Bytes()
}

func put(b *bytes.Buffer, v any) {
	if err := binary.Write(b, binary.LittleEndian, v); err != nil {
		panic(err) // only a type without a fixed size fails
	}
}
