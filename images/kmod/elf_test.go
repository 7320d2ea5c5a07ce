package kmod

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// testModule describes a kernel module that bytes makes.
type testModule struct {
	class   elf.Class // ELFCLASS64 if 0
	order   binary.ByteOrder
	typ     elf.Type // ET_REL if 0
	info    []string // key=value
	crcs    []string // exported symbols, with a __crc_ symbol each
	strings []string // exported symbols in __ksymtab_strings only
	needs   []string // undefined symbols
	weak    []string // undefined weak symbols
	// versions are the names in __versions.
	versions []string
	noSymtab bool
	extra    map[string][]byte // further sections, whole
}

// bytes makes the ELF file: header, sections' contents, section headers.
func (m testModule) bytes() []byte {
	if m.class == 0 {
		m.class = elf.ELFCLASS64
	}
	if m.order == nil {
		m.order = binary.LittleEndian
	}
	if m.typ == 0 {
		m.typ = elf.ET_REL
	}
	var w elfWriter
	w.testModule = m
	w.section("", elf.SHT_NULL, 0, nil)
	if m.info != nil {
		// Some compilers put zero bytes between the strings.
		w.section(".modinfo", elf.SHT_PROGBITS, 0, []byte("\x00"+strings.Join(m.info, "\x00\x00")+"\x00"))
	}
	if m.strings != nil {
		w.section("__ksymtab_strings", elf.SHT_PROGBITS, 0, []byte(strings.Join(m.strings, "\x00")+"\x00"))
	}
	if m.versions != nil {
		w.section("__versions", elf.SHT_PROGBITS, 0, w.versionData())
	}
	for name, b := range m.extra {
		w.section(name, elf.SHT_PROGBITS, 0, b)
	}
	if !m.noSymtab {
		symbols, names := w.symbols()
		w.section(".symtab", elf.SHT_SYMTAB, len(w.headers)+1, symbols)
		w.section(".strtab", elf.SHT_STRTAB, 0, names)
	}
	return w.finish()
}

type elfWriter struct {
	testModule
	headers []elf.Section64
	body    bytes.Buffer
	names   bytes.Buffer
}

func (w *elfWriter) wide() bool { return w.class == elf.ELFCLASS64 }

// put writes v in the module's byte order; elf's structures are the file's.
func (w *elfWriter) put(to *bytes.Buffer, v any) {
	if err := binary.Write(to, w.order, v); err != nil {
		panic(err)
	}
}

func (w *elfWriter) headerSize() int {
	if w.wide() {
		return binary.Size(elf.Header64{})
	}
	return binary.Size(elf.Header32{})
}

func (w *elfWriter) section(name string, typ elf.SectionType, link int, data []byte) {
	h := elf.Section64{Name: uint32(w.names.Len()), Type: uint32(typ), Link: uint32(link), Addralign: 1}
	w.names.WriteString(name + "\x00")
	if typ != elf.SHT_NULL {
		h.Off, h.Size = uint64(w.headerSize()+w.body.Len()), uint64(len(data))
	}
	if typ == elf.SHT_SYMTAB {
		h.Entsize = elf.Sym64Size
		if !w.wide() {
			h.Entsize = elf.Sym32Size
		}
	}
	w.body.Write(data)
	w.headers = append(w.headers, h)
}

func (w *elfWriter) versionData() []byte {
	var b bytes.Buffer
	for _, v := range w.versions {
		entry := make([]byte, 64)
		n := 4
		if w.wide() {
			n = 8
		}
		copy(entry[n:], v)
		b.Write(entry)
	}
	return b.Bytes()
}

func (w *elfWriter) symbols() (table, names []byte) {
	var t, n bytes.Buffer
	n.WriteByte(0)
	add := func(name string, bind elf.SymBind, section elf.SectionIndex) {
		at := uint32(0)
		if name != "" {
			at = uint32(n.Len())
			n.WriteString(name + "\x00")
		}
		info := elf.ST_INFO(bind, elf.STT_NOTYPE)
		if w.wide() {
			w.put(&t, elf.Sym64{Name: at, Info: info, Shndx: uint16(section)})
		} else {
			w.put(&t, elf.Sym32{Name: at, Info: info, Shndx: uint16(section)})
		}
	}
	add("", elf.STB_LOCAL, elf.SHN_UNDEF)
	add("init_module", elf.STB_GLOBAL, elf.SHN_ABS)
	for _, s := range w.needs {
		add(s, elf.STB_GLOBAL, elf.SHN_UNDEF)
	}
	for _, s := range w.weak {
		add(s, elf.STB_WEAK, elf.SHN_UNDEF)
	}
	for _, s := range w.crcs {
		add("__crc_"+s, elf.STB_GLOBAL, elf.SHN_ABS)
	}
	return t.Bytes(), n.Bytes()
}

func (w *elfWriter) finish() []byte {
	// The names hold this section's own before they are written.
	h := len(w.headers)
	name := w.names.Len()
	w.names.WriteString(".shstrtab\x00")
	names := bytes.Clone(w.names.Bytes())
	w.section("", elf.SHT_STRTAB, 0, names)
	w.headers[h].Name = uint32(name)

	var out bytes.Buffer
	ident := [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(w.class), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)}
	if w.order == binary.BigEndian {
		ident[elf.EI_DATA] = byte(elf.ELFDATA2MSB)
	}
	table := uint64(w.headerSize() + w.body.Len())
	if w.wide() {
		w.put(&out, elf.Header64{
			Ident: ident, Type: uint16(w.typ), Machine: uint16(elf.EM_PPC64), Version: 1, Shoff: table,
			Ehsize: uint16(w.headerSize()), Shentsize: uint16(binary.Size(elf.Section64{})), Shnum: uint16(len(w.headers)), Shstrndx: uint16(h),
		})
	} else {
		w.put(&out, elf.Header32{
			Ident: ident, Type: uint16(w.typ), Machine: uint16(elf.EM_ARM), Version: 1, Shoff: uint32(table),
			Ehsize: uint16(w.headerSize()), Shentsize: uint16(binary.Size(elf.Section32{})), Shnum: uint16(len(w.headers)), Shstrndx: uint16(h),
		})
	}
	out.Write(w.body.Bytes())
	for _, s := range w.headers {
		if w.wide() {
			w.put(&out, s)
		} else {
			w.put(&out, elf.Section32{
				Name: s.Name, Type: s.Type, Off: uint32(s.Off), Size: uint32(s.Size), Link: s.Link, Addralign: 1, Entsize: uint32(s.Entsize),
			})
		}
	}
	return out.Bytes()
}

// compress returns b as a file with the extension ext has it.
func compress(t testing.TB, ext string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w interface {
		Write([]byte) (int, error)
		Close() error
	}
	var err error
	switch ext {
	case ".xz":
		w, err = xz.NewWriter(&out)
	case ".zst":
		w, err = zstd.NewWriter(&out)
	case ".gz":
		w = gzip.NewWriter(&out)
	default:
		return b
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
