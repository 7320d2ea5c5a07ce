// Package grubtest makes files that have the form of GRUB's kernel and modules, for tests.
package grubtest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
)

// Code is what Kernel holds; its length is no multiple of anything.
const Code = "the kernel of GRUB, or what has its form."

// Sizes of headers, and where the kernel is in memory, how much of it.
const (
	head, segment, section = 52, 32, 40
	address, memory        = 0x200000, 0x7000
)

// Kernel is a kernel.img, with one segment at byte 52 of the file.
func Kernel() []byte {
	const names = "\x00.text\x00.bss\x00.shstrtab\x00"
	const code, bss = head + segment, (len(Code) + 7) / 8 * 8
	const strings = code + len(Code)
	b := header(elf.ET_EXEC, address, head, uint32(strings+len(names)+3)/4*4)
	b = append(b, words(uint32(elf.PT_LOAD), code, address, address, uint32(len(Code)), memory, 7, 16)...)
	b = append(append(b, Code...), names...)
	b = append(b, make([]byte, -len(b)&3)...)
	flags := uint32(elf.SHF_ALLOC | elf.SHF_WRITE)
	b = append(b, make([]byte, section)...)
	b = append(b, words(1, uint32(elf.SHT_PROGBITS), flags|uint32(elf.SHF_EXECINSTR), address, code, uint32(len(Code)), 0, 0, 16, 0)...)
	b = append(b, words(7, uint32(elf.SHT_NOBITS), flags, address+uint32(bss), uint32(strings), memory-uint32(bss), 0, 0, 8, 0)...)
	return append(b, words(12, uint32(elf.SHT_STRTAB), 0, 0, uint32(strings), uint32(len(names)), 0, 0, 1, 0)...)
}

// Module is a module whose content is its name.
func Module(name string) []byte { return append(header(elf.ET_REL, 0, 0, 0), name...) }

func header(kind elf.Type, entry, segments, sections uint32) []byte {
	b := append([]byte(elf.ELFMAG), 1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	b = append(b, words(uint32(kind)<<16|uint32(elf.EM_PPC), 1, entry, segments, sections, 0)...)
	counts := []uint32{head<<16 | segment, 1<<16 | section, 4<<16 | 3}
	if segments == 0 {
		counts[1], counts[2] = section, 0
	}
	return append(b, words(counts...)...)
}

func words(v ...uint32) []byte {
	var b bytes.Buffer
	_ = binary.Write(&b, binary.BigEndian, v) // a buffer takes everything
	return b.Bytes()
}
