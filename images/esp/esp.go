// Package esp writes the FAT32 file system of a boot partition in one go from a
// list of files: contiguous, deterministic, without mounting anything; and it
// replaces the files of one folder of such a file system, in a way that a crash at
// any instant leaves the old files or the new ones (Microsoft, "FAT32 File System
// Specification", version 1.03; long names as in its section "FAT Long Directory
// Entries").
package esp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"
	"time"

	"github.com/kiln-os/kiln/images/tree"
)

// File is one file of the volume. Path has slashes ("EFI/BOOT/BOOTX64.EFI");
// folders are made as needed, and one whose path ends in a slash is an empty
// folder. Names that differ in case only collide.
type File struct {
	Path    string
	Content tree.Content
}

// Options of a volume.
type Options struct {
	Label    string // up to 11 characters of A-Z, 0-9, space, - and _
	VolumeID uint32
	Time     time.Time // of all entries, in UTC; FAT counts from 1980 in steps of 2 seconds
}

const (
	sector      = 512
	reserved    = 32      // sectors before the first FAT, as mkfs.fat has them
	minClusters = 65525   // fewer would be FAT16 to every driver
	maxClusters = 1 << 28 // 28-bit cluster numbers
	endOfChain  = 0x0fffffff
	firstData   = 2 // number of the first cluster
)

// Write makes a FAT32 volume of size bytes at offset of w, which reads as zeros
// there: what is free is not written. size is a multiple of 512.
func Write(w io.WriterAt, offset, size int64, o Options, files []File) error {
	v, err := newVolume(size, o)
	if err != nil {
		return err
	}
	root, err := arrange(files)
	if err != nil {
		return err
	}
	out := func(b []byte, off int64) error {
		_, err := w.WriteAt(b, offset+off)
		return err
	}
	if err := v.place(root, nil); err != nil {
		return err
	}
	if err := v.writeTree(out, root); err != nil {
		return err
	}
	fat := make([]byte, 4*len(v.fat))
	for i, n := range v.fat {
		binary.LittleEndian.PutUint32(fat[4*i:], n)
	}
	for i := range int64(2) {
		if err := out(fat, (reserved+i*v.fatSectors)*sector); err != nil {
			return err
		}
	}
	boot, info := v.bootSector(), v.infoSector()
	for _, at := range []int64{0, 6} { // the originals and their backups
		if err := out(boot, at*sector); err != nil {
			return err
		}
		if err := out(info, (at+1)*sector); err != nil {
			return err
		}
	}
	return nil
}

type volume struct {
	o          Options
	sectors    int64
	perCluster int64 // sectors
	fatSectors int64
	clusters   int64
	fat        []uint32 // as far as it is used
}

func newVolume(size int64, o Options) (*volume, error) {
	if size%sector != 0 || size < 33<<20 || size >= 1<<41 {
		return nil, fmt.Errorf("boot partition: %d bytes; FAT32 takes a multiple of 512 from 33 MiB to 2 TiB", size)
	}
	if len(o.Label) > 11 || strings.Trim(o.Label, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 -_") != "" {
		return nil, fmt.Errorf("boot partition: label %q; it has up to 11 of A-Z, 0-9, space, - and _", o.Label)
	}
	if y := o.Time.UTC().Year(); y < 1980 || y > 2107 {
		return nil, fmt.Errorf("boot partition: year %d; FAT has 1980 to 2107", y)
	}
	v := &volume{o: o, sectors: size / sector}
	// The largest clusters up to 4 KiB that still leave enough of them.
	for v.perCluster = 8; ; v.perCluster /= 2 {
		v.fatSectors = (4*((v.sectors-reserved)/v.perCluster+firstData) + sector - 1) / sector
		v.clusters = (v.sectors - reserved - 2*v.fatSectors) / v.perCluster
		if v.clusters >= minClusters || v.perCluster == 1 {
			break
		}
	}
	if v.clusters < minClusters || v.clusters >= maxClusters {
		return nil, fmt.Errorf("boot partition: %d bytes give %d clusters, no FAT32", size, v.clusters)
	}
	v.fat = []uint32{0x0ffffff8, endOfChain}
	return v, nil
}

// node is a file or folder of the volume.
type node struct {
	name    string
	short   [11]byte
	long    bool // the short name alone does not say the name
	content tree.Content
	kids    []*node // sorted; only of folders
	first   uint32
	length  int64 // clusters
}

func (n *node) isDir() bool { return n.content == nil }

// arrange turns the list into a tree with short names.
func arrange(files []File) (*node, error) {
	root := &node{}
	for _, f := range files {
		name, folder := strings.CutSuffix(f.Path, "/")
		if folder != (f.Content == nil) {
			return nil, fmt.Errorf("boot partition: %s: a file has content, and a folder (with a slash at the end) none", f.Path)
		}
		at := root
		parts := strings.Split(name, "/")
		for i, p := range parts {
			if p == "" || p == "." || p == ".." || len(p) > 255 || strings.ContainsAny(p, "\"*:<>?\\|") || strings.TrimRight(p, " .") != p || !ascii(p) {
				return nil, fmt.Errorf("boot partition: %q is no name for a file: FAT allows no \" * : < > ? \\ |, nothing outside of ASCII, no space or dot at the end", f.Path)
			}
			last := i == len(parts)-1
			var next *node
			for _, k := range at.kids {
				if strings.EqualFold(k.name, p) {
					next = k
				}
			}
			switch {
			case next != nil && (last || !next.isDir() || next.name != p):
				return nil, fmt.Errorf("boot partition: %s collides with %s", f.Path, next.name)
			case next == nil:
				next = &node{name: p}
				if last {
					next.content = f.Content
				}
				at.kids = append(at.kids, next)
			}
			at = next
		}
	}
	return root, root.nameKids()
}

func ascii(s string) bool {
	for _, c := range []byte(s) {
		if c < 0x20 || c > 0x7e {
			return false
		}
	}
	return true
}

// nameKids sorts and gives each entry a short name that is unique in its folder.
func (n *node) nameKids() error {
	sort.Slice(n.kids, func(i, j int) bool { return n.kids[i].name < n.kids[j].name })
	taken := map[[11]byte]bool{}
	for _, k := range n.kids {
		if s, ok := plainShort(k.name); ok {
			k.short = s
			taken[s] = true
		}
	}
	// A name that is short but for its case has that short name, beside the long one:
	// the boot ROM of a Raspberry Pi reads no long names, and looks for BOOTCODE.BIN.
	for _, k := range n.kids {
		if s, ok := plainShort(strings.ToUpper(k.name)); ok && !taken[s] {
			k.short, taken[s], k.long = s, true, true
		}
	}
	for _, k := range n.kids {
		if err := k.nameKids(); err != nil {
			return err
		}
		if k.short != [11]byte{} {
			continue
		}
		k.long = true
		base, ext := k.name, ""
		if i := strings.LastIndexByte(k.name, '.'); i > 0 {
			base, ext = k.name[:i], k.name[i+1:]
		}
		b, x := shortChars(base), shortChars(ext)
		for i := 1; ; i++ {
			if i > 99999 {
				return fmt.Errorf("boot partition: too many names like %s in a folder", k.name)
			}
			tail := fmt.Sprintf("~%d", i)
			s := pad11(b[:min(len(b), 8-len(tail))]+tail, x[:min(len(x), 3)])
			if !taken[s] {
				k.short, taken[s] = s, true
				break
			}
		}
	}
	return nil
}

// plainShort returns the short name of a name that is one already: 8.3, upper case.
func plainShort(name string) ([11]byte, bool) {
	base, ext, _ := strings.Cut(name, ".")
	if base == "" || len(base) > 8 || len(ext) > 3 || base != shortChars(base) || ext != shortChars(ext) || strings.HasSuffix(name, ".") {
		return [11]byte{}, false
	}
	return pad11(base, ext), true
}

func shortChars(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("-_~!#$%&'()@^`{}", r):
			return r
		case r == '.' || r == ' ':
			return -1
		}
		return '_'
	}, s)
}

func pad11(base, ext string) (s [11]byte) {
	copy(s[:], fmt.Sprintf("%-8s%-3s", base, ext))
	return s
}

// entries returns how many directory entries of 32 bytes k takes.
func (n *node) entries() int {
	if !n.long {
		return 1
	}
	return 1 + (len(n.name)+12)/13
}

// place gives n and everything below it contiguous clusters, in order. The root
// comes first, as its number is in the boot sector.
func (v *volume) place(n, parent *node) error {
	bytes := int64(0)
	if n.isDir() {
		count := 1 // the volume's label, in the root
		if parent != nil {
			count = 2 // . and ..
		}
		for _, k := range n.kids {
			count += k.entries()
		}
		bytes = int64(count) * 32
	} else if bytes = n.content.Size(); bytes > 1<<32-1 {
		return fmt.Errorf("boot partition: %s has %d bytes; FAT holds files below 4 GiB", n.name, bytes)
	}
	per := v.perCluster * sector
	n.length = (bytes + per - 1) / per
	if n.length > 0 {
		n.first = uint32(len(v.fat))
		if int64(len(v.fat))+n.length > v.clusters+firstData {
			return fmt.Errorf("boot partition: %s does not fit any more into %d MiB", n.name, v.sectors*sector>>20)
		}
		for i := range n.length {
			next := uint32(len(v.fat) + 1)
			if i == n.length-1 {
				next = endOfChain
			}
			v.fat = append(v.fat, next)
		}
	}
	for _, k := range n.kids {
		if err := v.place(k, n); err != nil {
			return err
		}
	}
	return nil
}

func (v *volume) at(cluster uint32) int64 {
	return (reserved + 2*v.fatSectors + int64(cluster-firstData)*v.perCluster) * sector
}

func (v *volume) writeTree(out func([]byte, int64) error, root *node) error {
	var walk func(n, parent *node) error
	walk = func(n, parent *node) error {
		if !n.isDir() {
			return v.writeFile(out, n)
		}
		if err := out(v.dirBytes(n, parent, root), v.at(n.first)); err != nil {
			return err
		}
		for _, k := range n.kids {
			if err := walk(k, n); err != nil {
				return err
			}
		}
		return nil
	}
	return walk(root, nil)
}

func (v *volume) writeFile(out func([]byte, int64) error, n *node) error {
	r, err := n.content.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	buf := make([]byte, 1<<20)
	for done := int64(0); ; {
		m, err := io.ReadFull(r, buf)
		if done+int64(m) > n.content.Size() {
			return fmt.Errorf("boot partition: %s has more than its %d bytes", n.name, n.content.Size())
		}
		if m > 0 {
			if err := out(buf[:m], v.at(n.first)+done); err != nil {
				return err
			}
		}
		done += int64(m)
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			if done != n.content.Size() {
				return fmt.Errorf("boot partition: %s has %d bytes, expected %d", n.name, done, n.content.Size())
			}
			return nil
		case err != nil:
			return fmt.Errorf("boot partition: %s: %w", n.name, err)
		}
	}
}
