// Package uki assembles unified kernel images: systemd's EFI stub with kernel,
// initramfs and command line as further PE sections (UAPI Group Specification
// "Unified Kernel Image"; PE format of Microsoft's PE/COFF specification).
package uki

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Sections are the parts of an image. Empty ones are left out; Linux is needed.
type Sections struct {
	OSRel   []byte // .osrel: os-release(5)
	Cmdline []byte // .cmdline: the kernel's command line, without a newline
	Uname   []byte // .uname: the kernel's release
	Initrd  []byte // .initrd: a compressed cpio archive
	Linux   []byte // .linux: the kernel, an EFI program
}

// virtualAlign keeps sections apart in memory; the stub's own alignment may be
// as small as 512, but firmware with memory protection wants whole pages.
const virtualAlign = 4096

// Offsets in the PE headers that Build changes.
const (
	coffSymbols     = 8  // in the COFF header: pointer to the symbol table, and their number
	optSizeOfImage  = 56 // in the optional header, the same for PE32 and PE32+
	optFileAlign    = 36
	optHeadersSize  = 60
	optCheckSum     = 64
	coffSize        = 20
	sectionSize     = 40
	initializedData = 0x40000040 // IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ
)

// Build returns stub with the sections added. The kernel comes last, so that it
// may be decompressed in place past its end.
func Build(stub []byte, s Sections) ([]byte, error) {
	if len(s.Linux) == 0 {
		return nil, errors.New("uki: no kernel")
	}
	h, err := parse(stub, int64(len(stub)))
	if err != nil {
		return nil, fmt.Errorf("uki: stub: %w", err)
	}
	var add []section
	for _, p := range []struct {
		name string
		data []byte
	}{{".osrel", s.OSRel}, {".cmdline", s.Cmdline}, {".uname", s.Uname}, {".initrd", s.Initrd}, {".linux", s.Linux}} {
		if len(p.data) > 0 {
			add = append(add, section{name: p.name, data: p.data})
		}
	}
	return h.append(stub, add)
}

type section struct {
	name        string
	virtualSize uint32
	virtualAddr uint32
	rawSize     uint32
	rawOffset   uint32
	data        []byte // only of sections to be added
	headerAt    int    // of its header in the file; 0 for one to be added
}

// headers are what has to be known of a PE file.
type headers struct {
	coff, opt   int // offsets of the COFF and the optional header
	table       int // offset of the section table
	fileAlign   uint32
	headersSize uint32
	sections    []section
}

// parse reads the headers, which are in b, of a file of size bytes. It does so itself:
// debug/pe refuses the machine type of 32-bit arm.
func parse(b []byte, size int64) (headers, error) {
	var h headers
	le := binary.LittleEndian
	if len(b) < 64 || b[0] != 'M' || b[1] != 'Z' {
		return h, errors.New("no MZ header; it is no EFI program")
	}
	pe := int(le.Uint32(b[60:]))
	if pe < 64 || pe > len(b)-4-coffSize || string(b[pe:pe+4]) != "PE\x00\x00" {
		return h, errors.New("no PE header")
	}
	h.coff = pe + 4
	h.opt = h.coff + coffSize
	optSize := int(le.Uint16(b[h.coff+16:]))
	h.table = h.opt + optSize
	count := int(le.Uint16(b[h.coff+2:]))
	if optSize < optCheckSum+4 || h.table+count*sectionSize > len(b) {
		return h, errors.New("the PE headers end past the end of the file")
	}
	h.fileAlign = le.Uint32(b[h.opt+optFileAlign:])
	h.headersSize = le.Uint32(b[h.opt+optHeadersSize:])
	if h.fileAlign == 0 || h.fileAlign&(h.fileAlign-1) != 0 || h.fileAlign > 1<<16 {
		return h, fmt.Errorf("file alignment %d is no power of two up to 65536", h.fileAlign)
	}
	var data uint64
	for i := range count {
		at := h.table + i*sectionSize
		e := b[at : at+sectionSize]
		n := 0
		for n < 8 && e[n] != 0 {
			n++
		}
		s := section{
			name: string(e[:n]), virtualSize: le.Uint32(e[8:]), virtualAddr: le.Uint32(e[12:]),
			rawSize: le.Uint32(e[16:]), rawOffset: le.Uint32(e[20:]), headerAt: at,
		}
		if int64(s.rawOffset)+int64(s.rawSize) > size {
			return h, fmt.Errorf("section %q ends past the end of the file", s.name)
		}
		if s.rawSize > 0 && int64(s.rawOffset) < int64(h.table+count*sectionSize) {
			return h, fmt.Errorf("section %q lies over the headers", s.name)
		}
		data += uint64(s.rawSize)
		h.sections = append(h.sections, s)
	}
	if data == 0 {
		return h, errors.New("no section holds data")
	}
	return h, nil
}

func alignUp(n uint64, a uint32) uint64 { return (n + uint64(a) - 1) / uint64(a) * uint64(a) }

func (h headers) append(stub []byte, add []section) ([]byte, error) {
	le := binary.LittleEndian
	// The section table may need more room than is left before the first section's data: then all data moves.
	tableEnd := uint64(h.table + (len(h.sections)+len(add))*sectionSize)
	var shift, virtual, raw uint64
	first := uint64(1<<64 - 1)
	for _, s := range h.sections {
		if s.rawSize > 0 {
			first = min(first, uint64(s.rawOffset))
		}
		virtual = max(virtual, uint64(s.virtualAddr)+uint64(max(s.virtualSize, s.rawSize)))
		raw = max(raw, uint64(s.rawOffset)+uint64(s.rawSize))
	}
	if tableEnd > first {
		shift = alignUp(tableEnd-first, h.fileAlign)
	}
	newHeaders := alignUp(tableEnd, h.fileAlign)
	for _, s := range h.sections {
		if newHeaders > uint64(s.virtualAddr) {
			return nil, fmt.Errorf("uki: the stub's section %s is mapped at %#x, where the section table now ends (%#x)", s.name, s.virtualAddr, newHeaders)
		}
	}
	out := make([]byte, 0, raw+shift+1<<20)
	out = append(out, stub[:first]...)
	out = append(out, make([]byte, shift)...)
	out = append(out, stub[first:raw]...)

	for _, s := range h.sections {
		if s.rawSize > 0 {
			le.PutUint32(out[s.headerAt+20:], s.rawOffset+uint32(shift))
		}
	}
	for i, s := range add {
		out = append(out, make([]byte, alignUp(uint64(len(out)), h.fileAlign)-uint64(len(out)))...)
		virtual = alignUp(virtual, virtualAlign)
		offset, size := uint64(len(out)), alignUp(uint64(len(s.data)), h.fileAlign)
		if offset+size > 1<<32-1 || virtual+uint64(len(s.data)) > 1<<32-1 {
			return nil, fmt.Errorf("uki: with section %s the image passes 4 GiB", s.name)
		}
		e := out[h.table+(len(h.sections)+i)*sectionSize:][:sectionSize]
		clear(e)
		copy(e, s.name)
		le.PutUint32(e[8:], uint32(len(s.data))) // the real length: the stub takes it as the section's
		le.PutUint32(e[12:], uint32(virtual))
		le.PutUint32(e[16:], uint32(size))
		le.PutUint32(e[20:], uint32(offset))
		le.PutUint32(e[36:], initializedData)
		out = append(out, s.data...)
		out = append(out, make([]byte, size-uint64(len(s.data)))...)
		virtual += uint64(len(s.data))
	}
	le.PutUint16(out[h.coff+2:], uint16(len(h.sections)+len(add)))
	le.PutUint64(out[h.coff+coffSymbols:], 0)
	le.PutUint32(out[h.opt+optSizeOfImage:], uint32(alignUp(virtual, virtualAlign)))
	le.PutUint32(out[h.opt+optHeadersSize:], uint32(max(newHeaders, uint64(h.headersSize))))
	le.PutUint32(out[h.opt+optCheckSum:], 0)
	return out, nil
}

// Read returns the sections of an image that Build, ukify(1) or systemd's tools made.
func Read(r io.ReaderAt, size int64) (Sections, error) {
	if size > 1<<32 {
		return Sections{}, errors.New("uki: larger than 4 GiB")
	}
	b, err := io.ReadAll(io.NewSectionReader(r, 0, size))
	if err != nil {
		return Sections{}, err
	}
	return sectionsOf(b, size, func(x section) ([]byte, error) { return b[x.rawOffset:][:min(x.virtualSize, x.rawSize)], nil })
}

// Limits of ReadText: a kernel takes no longer command line, and the headers are in
// the first few KiB.
const maxHead, maxText = 64 << 10, 64 << 10

// ReadText returns the sections that are text, and of the others nothing: kernel and
// initramfs are most of an image, which may lie on a slow card.
func ReadText(r io.ReaderAt, size int64) (Sections, error) {
	head := make([]byte, max(0, min(size, maxHead)))
	if n, err := r.ReadAt(head, 0); n < len(head) {
		return Sections{}, fmt.Errorf("uki: %w", err)
	}
	return sectionsOf(head, size, func(x section) ([]byte, error) {
		if x.name == ".initrd" || x.name == ".linux" {
			return nil, nil
		}
		b := make([]byte, min(x.virtualSize, x.rawSize))
		if len(b) > maxText {
			return nil, fmt.Errorf("uki: section %s has %d bytes; at most %d are read", x.name, len(b), maxText)
		}
		if n, err := r.ReadAt(b, int64(x.rawOffset)); n < len(b) {
			return nil, fmt.Errorf("uki: section %s: %w", x.name, err)
		}
		return b, nil
	})
}

// sectionsOf returns the sections of an image of the given size that begins with head.
func sectionsOf(head []byte, size int64, content func(section) ([]byte, error)) (Sections, error) {
	var s Sections
	h, err := parse(head, size)
	if err != nil {
		return s, fmt.Errorf("uki: %w", err)
	}
	into := map[string]*[]byte{".osrel": &s.OSRel, ".cmdline": &s.Cmdline, ".uname": &s.Uname, ".initrd": &s.Initrd, ".linux": &s.Linux}
	linux := false
	for _, x := range h.sections {
		if p := into[x.name]; p != nil {
			if *p, err = content(x); err != nil {
				return Sections{}, err
			}
			linux = linux || x.name == ".linux" && x.rawSize > 0
		}
	}
	if !linux {
		return s, errors.New("uki: no .linux section; it is a plain EFI program")
	}
	return s, nil
}
