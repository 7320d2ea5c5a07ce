// Package grub makes what boots a machine with Open Firmware from a PReP partition: GRUB's
// core image, which is GRUB's kernel with its modules behind it, and the files of the boot
// partition that it reads. Kernel and modules are those of Debian's grub-ieee1275-bin; no
// program of GRUB's is run.
//
// The image is laid out as grub-mkimage(1) does it for powerpc-ieee1275: an ELF file with a
// segment of the kernel, a segment of modules, and the note of the PowerPC CHRP binding to
// IEEE 1275 that says how firmware starts it.
package grub

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Parts are what a core image is made of.
type Parts struct {
	// Kernel is GRUB's kernel.img, Modules are its modules in the order in which they are
	// loaded: each behind those that it depends on.
	Kernel  []byte
	Modules [][]byte
	// Prefix is the folder with grub.cfg: "(,gpt2)/grub" is on the second partition of the
	// disk that the firmware has started GRUB from.
	Prefix string
}

// Types of the objects behind GRUB's kernel, and what stands before them.
const (
	objectELF    = 0
	objectPrefix = 3

	modulesMagic = 0x676d696d // "gmim"
	infoSize     = 12         // magic, offset of the first object, size of all with this
	objectHead   = 8          // type, size with this
)

// Where GRUB's kernel expects to be, and its modules behind it.
const (
	linkAddress = 0x200000
	moduleGap   = 0x8000
	moduleAlign = 0x1000
	maxAddress  = 0x4000000 // far more than GRUB has, and still in what firmware leaves free
)

// Sizes in an ELF file of 32 bits.
const (
	headerSize, segmentSize, sectionSize = 52, 32, 40

	word = 4
)

// names is the table of section names.
const names = "\x00.text\x00mods\x00"

// chrpNote is the note's name, padded, and what it says: nothing but where firmware may
// load files to is asked for. The values are those of every GRUB.
var chrpNote = []uint32{
	8, 24, 0x1275, // lengths of name and description, type
	0x506f7765, 0x72504300, // "PowerPC"
	0xffffffff, 0x00c00000, 0xffffffff, // real mode as the firmware likes; real base, real size
	0xffffffff, 0xffffffff, 0x00004000, // virtual base, virtual size; load base
}

// Core returns the core image.
func Core(p Parts) ([]byte, error) {
	k, err := readKernel(p.Kernel)
	if err != nil {
		return nil, fmt.Errorf("GRUB's kernel: %w", err)
	}
	objects, err := p.objects()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	put := func(values ...uint32) { _ = binary.Write(&out, binary.BigEndian, values) } // a buffer takes everything

	const segments, sections = 4, 4
	start := alignUp(headerSize+segments*segmentSize+sections*sectionSize+uint32(len(names)), k.align)
	size, more := uint32(len(k.image)), uint32(len(objects))
	modules := alignUp(linkAddress+k.memory+moduleGap, moduleAlign)
	note := alignUp(size+more, word) + start

	out.WriteString(elf.ELFMAG + "\x01\x02\x01") // 32 bits, big-endian, version 1
	out.Write(make([]byte, 9))
	put(uint32(elf.ET_EXEC)<<16|uint32(elf.EM_PPC), uint32(elf.EV_CURRENT), linkAddress)
	put(headerSize, headerSize+segments*segmentSize, 0) // segments, sections, flags
	put(headerSize<<16|segmentSize, segments<<16|sectionSize, sections<<16|1)

	rwx := uint32(elf.PF_R | elf.PF_W | elf.PF_X)
	put(uint32(elf.PT_LOAD), start, linkAddress, linkAddress, size, k.memory, rwx, max(k.align, word))
	put(uint32(elf.PT_GNU_STACK), start+size, 0, 0, 0, 0, rwx, word)
	put(uint32(elf.PT_LOAD), start+size, modules, modules, more, more, rwx, word)
	put(uint32(elf.PT_NOTE), note, 0, 0, uint32(len(chrpNote)*word), 0, uint32(elf.PF_R), word)

	put(make([]uint32, sectionSize/word)...)
	put(0, uint32(elf.SHT_STRTAB), 0, 0, headerSize+segments*segmentSize+sections*sectionSize, uint32(len(names)), 0, 0, k.align, 0)
	put(1, uint32(elf.SHT_PROGBITS), 0, linkAddress, start, size, 0, 0, k.align, 0)
	put(7, uint32(elf.SHT_PROGBITS), 0, linkAddress+size, start+size, more, 0, 0, word, 0)
	out.WriteString(names)

	pad := func(to uint32) { out.Write(make([]byte, to-uint32(out.Len()))) }
	pad(start)
	out.Write(k.image)
	out.Write(objects)
	pad(note)
	put(chrpNote...)
	return out.Bytes(), nil
}

func alignUp(n, a uint32) uint32 { return (n + a - 1) / a * a }

// kernel is GRUB's kernel as it lies in memory.
type kernel struct {
	image  []byte
	memory uint32 // with what is zero behind the image
	align  uint32
}

// readKernel reads kernel.img, an executable of one segment.
func readKernel(b []byte) (kernel, error) {
	f, err := readELF(b, elf.ET_EXEC)
	if err != nil {
		return kernel{}, err
	}
	var load []*elf.Prog
	for _, s := range f.Progs {
		if s.Type == elf.PT_LOAD {
			load = append(load, s)
		}
	}
	if len(load) != 1 {
		return kernel{}, fmt.Errorf("it has %d segments to load, one is right", len(load))
	}
	s := load[0]
	if s.Vaddr != linkAddress || f.Entry != linkAddress {
		return kernel{}, fmt.Errorf("it is for address %#x and starts at %#x, want %#x", s.Vaddr, f.Entry, linkAddress)
	}
	if s.Filesz == 0 || s.Filesz > s.Memsz || s.Memsz > maxAddress-linkAddress || s.Off > uint64(len(b)) || s.Filesz > uint64(len(b))-s.Off {
		return kernel{}, fmt.Errorf("its segment has %d bytes of %d at %d, in a file of %d", s.Filesz, s.Memsz, s.Off, len(b))
	}
	if s.Align == 0 || s.Align&(s.Align-1) != 0 || s.Align > moduleAlign {
		return kernel{}, fmt.Errorf("its segment is aligned to %d, want a power of two up to %d", s.Align, moduleAlign)
	}
	return kernel{b[s.Off:][:s.Filesz], uint32(s.Memsz), uint32(s.Align)}, nil
}

// readELF reads the headers of a file of GRUB's for this platform.
func readELF(b []byte, kind elf.Type) (*elf.File, error) {
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	if f.Class != elf.ELFCLASS32 || f.Data != elf.ELFDATA2MSB || f.Machine != elf.EM_PPC || f.Type != kind {
		return nil, fmt.Errorf("it is %s %s of %s, %s; want %s of 32 bits, big-endian, of %s", f.Class, f.Data, f.Machine, f.Type, kind, elf.EM_PPC)
	}
	return f, nil
}

// objects returns what comes behind the kernel: the modules, which GRUB relocates itself,
// and the prefix.
func (p Parts) objects() ([]byte, error) {
	out := make([]byte, infoSize)
	add := func(kind uint32, content []byte) {
		size := alignUp(uint32(len(content)), word)
		out = binary.BigEndian.AppendUint32(out, kind)
		out = binary.BigEndian.AppendUint32(out, objectHead+size)
		out = append(out, content...)
		out = append(out, make([]byte, size-uint32(len(content)))...)
	}
	for i, m := range p.Modules {
		if len(m)+len(out) > maxAddress {
			return nil, errors.New("GRUB's modules are larger than any GRUB has")
		}
		if _, err := readELF(m, elf.ET_REL); err != nil {
			return nil, fmt.Errorf("module %d of GRUB: %w", i+1, err)
		}
		add(objectELF, m)
	}
	if p.Prefix == "" {
		return nil, errors.New("no prefix: GRUB would not know where its configuration is")
	}
	add(objectPrefix, append([]byte(p.Prefix), 0))
	binary.BigEndian.PutUint32(out[0:], modulesMagic)
	binary.BigEndian.PutUint32(out[4:], infoSize)
	binary.BigEndian.PutUint32(out[8:], uint32(len(out)))
	return out, nil
}

// ReadPrefix returns the prefix of a core image.
func ReadPrefix(r io.ReaderAt) (string, error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return "", fmt.Errorf("core image: %w", err)
	}
	for _, s := range f.Progs {
		if s.Type != elf.PT_LOAD || s.Vaddr == linkAddress || s.Filesz > maxAddress {
			continue
		}
		b := make([]byte, s.Filesz)
		if _, err := s.ReadAt(b, 0); err != nil {
			return "", fmt.Errorf("core image: %w", err)
		}
		return findPrefix(b)
	}
	return "", errors.New("core image: it has no modules")
}

// findPrefix looks for the prefix among the objects behind the kernel.
func findPrefix(b []byte) (string, error) {
	be := binary.BigEndian
	if len(b) < infoSize || be.Uint32(b) != modulesMagic {
		return "", errors.New("core image: its second segment holds no modules of GRUB")
	}
	for at := uint64(be.Uint32(b[4:])); at+objectHead <= uint64(len(b)); {
		kind, size := be.Uint32(b[at:]), uint64(be.Uint32(b[at+4:]))
		if size < objectHead || at+size > uint64(len(b)) {
			break
		}
		if kind == objectPrefix {
			text, _, _ := bytes.Cut(b[at+objectHead:at+size], []byte{0})
			return string(text), nil
		}
		at += (size + word - 1) / word * word
	}
	return "", errors.New("core image: it has no prefix")
}
