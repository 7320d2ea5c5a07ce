package esp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf16"
)

// Device is where a volume lies. Sync returns when everything that was written
// before is durable.
type Device interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// Limits of the volumes that are opened: far above those that Write makes, and low
// enough that bytes of unknown origin do not decide how much memory is used.
const (
	maxFAT   = 16 << 20 // bytes of one FAT
	maxDepth = 16       // folders in each other
)

// Volume is a FAT32 volume with two FATs that was opened to be changed.
type Volume struct {
	dev        Device
	offset     int64
	perCluster int64    // bytes
	fatAt      int64    // of the first FAT, from the volume's start
	fatBytes   int64    // of one FAT
	dataAt     int64    // of the first cluster
	fat        []uint32 // raw entries, the number of clusters and two more
	dirty      map[int64]bool
	info       []int64 // sectors with free space information: the original, the backup
	root       uint32
	mirrored   bool // both FATs are the same
	written    int64
}

// Open reads the structure of the volume of size bytes at offset of dev. What it
// cannot change safely is an error.
func Open(dev Device, offset, size int64) (*Volume, error) {
	v, err := open(dev, offset, size)
	if err != nil {
		return nil, fmt.Errorf("boot partition: %w", err)
	}
	return v, nil
}

func open(dev Device, offset, size int64) (*Volume, error) {
	v := &Volume{dev: dev, offset: offset, dirty: map[int64]bool{}}
	b := make([]byte, sector)
	if err := v.read(b, 0); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	u16 := func(at int) int64 { return int64(le.Uint16(b[at:])) }
	u32 := func(at int) int64 { return int64(le.Uint32(b[at:])) }
	per, front, fatSectors, total := int64(b[13]), u16(14), u32(36), u32(32)
	switch {
	case b[510] != 0x55 || b[511] != 0xaa || u16(11) != sector || b[16] != 2 || u16(17) != 0 || u16(19) != 0 || u16(22) != 0 || u16(42) != 0:
		return nil, errors.New("is no FAT32 file system of 512-byte sectors with two FATs")
	case u16(40)&0x80 != 0:
		return nil, errors.New("its two FATs are not kept the same")
	case per == 0 || per&(per-1) != 0 || front == 0 || fatSectors == 0 || fatSectors*sector > maxFAT || total*sector > size:
		return nil, fmt.Errorf("its boot sector does not fit a partition of %d MiB", size>>20)
	}
	clusters := (total - front - 2*fatSectors) / per
	if clusters < minClusters || fatSectors*sector/4 < clusters+firstData {
		return nil, fmt.Errorf("%d clusters are no FAT32 file system", clusters)
	}
	v.perCluster, v.fatAt, v.fatBytes = per*sector, front*sector, fatSectors*sector
	v.dataAt, v.root = (front+2*fatSectors)*sector, uint32(u32(44))
	first, second := make([]byte, v.fatBytes), make([]byte, v.fatBytes)
	if err := errors.Join(v.read(first, v.fatAt), v.read(second, v.fatAt+v.fatBytes)); err != nil {
		return nil, err
	}
	v.mirrored = string(first) == string(second)
	v.fat = make([]uint32, clusters+firstData)
	for i := range v.fat {
		v.fat[i] = le.Uint32(first[4*i:])
	}
	return v, v.findInfo(u16(48), u16(50), front)
}

// findInfo looks for the information sector and its backup.
func (v *Volume) findInfo(at, backup, front int64) error {
	for _, s := range []int64{at, backup + at} {
		b := make([]byte, sector)
		if s == 0 || s >= front {
			continue
		}
		if err := v.read(b, s*sector); err != nil {
			return err
		}
		if string(b[:4]) == "RRaA" && string(b[484:488]) == "rrAa" && (len(v.info) == 0 || v.info[0] != s) {
			v.info = append(v.info, s)
		}
	}
	return nil
}

func (v *Volume) read(b []byte, at int64) error {
	if _, err := v.dev.ReadAt(b, v.offset+at); err != nil {
		return fmt.Errorf("read at byte %d: %w", v.offset+at, err)
	}
	return nil
}

const clusterMask = 0x0fffffff // the upper four bits are reserved

func (v *Volume) next(c uint32) uint32 { return v.fat[c] & clusterMask }

func (v *Volume) position(c uint32) int64 {
	return v.dataAt + int64(c-firstData)*v.perCluster
}

// item is a file or folder that is there.
type item struct {
	name  string
	dir   bool
	size  int64
	chain []uint32
	index int // of the entry in its folder
}

// walk reads all folders. It returns the clusters that are part of a file or
// folder, and what is in the folder with the given path, which is nil if there is none.
func (v *Volume) walk(name string) (used []bool, folder *item, items []item, err error) {
	used = make([]bool, len(v.fat))
	var descend func(first uint32, path string, depth int) error
	descend = func(first uint32, path string, depth int) error {
		if depth > maxDepth {
			return fmt.Errorf("%s: more than %d folders in each other", path, maxDepth)
		}
		chain, err := v.chain(first, path, used)
		if err != nil {
			return err
		}
		found, err := v.list(chain, path)
		if err != nil {
			return err
		}
		wanted := depth > 0 && strings.EqualFold(path, "/"+name)
		if wanted {
			folder = &item{name: name, dir: true, chain: chain}
		}
		for _, i := range found {
			at := path + "/" + i.name
			switch {
			case i.dir:
				err = descend(i.chain[0], at, depth+1)
			case len(i.chain) > 0:
				i.chain, err = v.chain(i.chain[0], at, used)
			}
			if err == nil && !i.dir && int64(len(i.chain))*v.perCluster < i.size {
				err = fmt.Errorf("%s has %d bytes, but only %d clusters", at, i.size, len(i.chain))
			}
			if err != nil {
				return err
			}
			if wanted {
				items = append(items, i)
			}
		}
		return nil
	}
	if err := descend(v.root, "", 0); err != nil {
		return nil, nil, nil, fmt.Errorf("%w: fsck.vfat can repair it", err)
	}
	return used, folder, items, nil
}

// chain follows a file's clusters. One that is in two chains is an error.
func (v *Volume) chain(first uint32, path string, used []bool) ([]uint32, error) {
	var out []uint32
	for c := first; ; c = v.next(c) {
		if c < firstData || int64(c) >= int64(len(v.fat)) {
			return nil, fmt.Errorf("%s/: cluster %d does not exist", path, c)
		}
		if used[c] {
			return nil, fmt.Errorf("%s/: cluster %d belongs to two files", path, c)
		}
		used[c] = true
		out = append(out, c)
		if v.next(c) >= 0x0ffffff8 {
			return out, nil
		}
	}
}

// list reads the entries of a folder. The chain of an item is its first cluster.
func (v *Volume) list(chain []uint32, path string) ([]item, error) {
	var out []item
	var long longName
	b := make([]byte, v.perCluster)
	for n, c := range chain {
		if err := v.read(b, v.position(c)); err != nil {
			return nil, err
		}
		for at := 0; at < len(b); at += 32 {
			e := b[at : at+32]
			attr := e[11]
			switch {
			case e[0] == 0:
				return out, nil
			case e[0] == 0xe5:
				long = nil
				continue
			case attr&0x3f == attrLong:
				long.add(e)
				continue
			case attr&attrLabel != 0:
				long = nil
				continue
			}
			i := item{name: long.text(e), dir: attr&attrDir != 0, size: int64(binary.LittleEndian.Uint32(e[28:])), index: n*len(b)/32 + at/32}
			long = nil
			first := uint32(binary.LittleEndian.Uint16(e[20:]))<<16 | uint32(binary.LittleEndian.Uint16(e[26:]))
			if i.name == "." || i.name == ".." {
				continue
			}
			if first != 0 || i.dir {
				i.chain = []uint32{first}
			} else if i.size > 0 {
				return nil, fmt.Errorf("%s/%s has %d bytes, but no clusters", path, i.name, i.size)
			}
			out = append(out, i)
		}
	}
	return out, nil
}

// longName collects the entries of a long name, the last part first.
type longName [][]byte

func (l *longName) add(e []byte) {
	if e[0]&0x40 != 0 {
		*l = nil
	}
	*l = append(*l, append([]byte(nil), e...))
}

// text is the name of the short entry e: the long one if it belongs to e.
func (l longName) text(e []byte) string {
	sum := shortSum([11]byte(e[:11]))
	var name []uint16
	for i := range l {
		part := l[len(l)-1-i]
		if part[13] != sum || int(part[0]&0x3f) != i+1 {
			return shortText(e)
		}
		for _, s := range longSlots {
			c := binary.LittleEndian.Uint16(part[s:])
			if c == 0 {
				break
			}
			if c != 0xffff {
				name = append(name, c)
			}
		}
	}
	if len(name) == 0 {
		return shortText(e)
	}
	return string(utf16.Decode(name))
}

func shortText(e []byte) string {
	base, ext := strings.TrimRight(string(e[:8]), " "), strings.TrimRight(string(e[8:11]), " ")
	if ext == "" {
		return base
	}
	return base + "." + ext
}

// dosToTime is dosTime's inverse. A time that does not exist becomes the first.
func dosToTime(date, clock uint16) time.Time {
	month, day := int(date>>5&15), int(date&31)
	t := time.Date(1980+int(date>>9), time.Month(month), day, int(clock>>11), int(clock>>5&63), int(clock&31)*2, 0, time.UTC)
	if d, c := dosTime(t); d != date || c != clock {
		return time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	return t
}
