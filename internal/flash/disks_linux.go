package flash

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// host is where Linux tells of its disks; tests have one of their own.
type host struct{ sys, proc, dev string }

var linux = host{"/sys", "/proc", "/dev"}

// List returns the disks of this machine, by path.
func List() ([]Disk, error) { return linux.list() }

// notDisks are block devices without a medium of their own, and those that hold
// parts of other disks.
var notDisks = []string{"ram", "zram", "dm-", "md", "sr", "fd", "mtdblock", "nbd"}

func (h host) list() ([]Disk, error) {
	entries, err := os.ReadDir(filepath.Join(h.sys, "block"))
	if err != nil {
		return nil, fmt.Errorf("disks of this machine: %w", err)
	}
	var disks []Disk
	byName := map[string]int{}
	for _, e := range entries {
		name := e.Name()
		if slices.ContainsFunc(notDisks, func(p string) bool { return strings.HasPrefix(name, p) }) {
			continue
		}
		// mmcblk0boot0: the boot areas of an eMMC.
		if strings.HasPrefix(name, "mmcblk") && (strings.Contains(name, "boot") || strings.Contains(name, "rpmb")) {
			continue
		}
		d, err := h.disk(name)
		if err != nil {
			return nil, err
		}
		if d.Size > 0 {
			byName[name] = len(disks)
			disks = append(disks, d)
		}
	}
	uses, err := h.uses()
	if err != nil {
		return nil, err
	}
	for _, u := range uses {
		below, err := h.below(u.device, 0)
		if err != nil {
			return nil, err
		}
		for _, name := range below {
			i, ok := byName[name]
			if !ok {
				continue
			}
			d := &disks[i]
			if d.System = d.System || u.system(); !slices.Contains(d.Mounts, u.where) {
				d.Mounts = append(d.Mounts, u.where)
			}
		}
	}
	sort.Slice(disks, func(i, j int) bool { return disks[i].Path < disks[j].Path })
	return disks, nil
}

// disk reads what sysfs says about one.
func (h host) disk(name string) (Disk, error) {
	dir := filepath.Join(h.sys, "block", name)
	d := Disk{Path: filepath.Join(h.dev, strings.ReplaceAll(name, "!", "/"))}
	read := func(file string) string {
		// A disk that was pulled out, or a kind that has no such file.
		b, _ := os.ReadFile(filepath.Join(dir, file))
		return strings.TrimSpace(string(b))
	}
	sectors, err := strconv.ParseInt(read("size"), 10, 64)
	if err != nil {
		return d, nil // gone by now: of no size
	}
	d.Size = sectors * 512 // in sysfs always
	d.Removable, d.ReadOnly = read("removable") == "1", read("ro") == "1"
	// Not there: as almost all disks have it.
	d.sector, _ = strconv.ParseInt(read("queue/logical_block_size"), 10, 64)
	vendor := read("device/vendor")
	if strings.HasPrefix(vendor, "0x") || vendor == "ATA" {
		vendor = "" // PCI's number of virtio; the bus
	}
	d.Model = strings.Join(strings.Fields(vendor+" "+read("device/model")+" "+read("device/name")), " ")
	if file := read("loop/backing_file"); file != "" {
		d.Model = "loop device of " + file
	}
	parts, err := filepath.Glob(filepath.Join(dir, name+"*", "holders"))
	if err != nil {
		return d, err
	}
	for _, p := range append(parts, filepath.Join(dir, "holders")) {
		holders, err := os.ReadDir(p)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return d, err
		}
		for _, e := range holders {
			d.Holders = append(d.Holders, e.Name())
		}
	}
	return d, nil
}

// use is a mount or swap space.
type use struct{ device, where string }

// systemPaths are what a machine runs from.
var systemPaths = []string{"/", "/usr", "/etc", "/var", "/boot", "/boot/efi", "/boot/firmware", "/efi", "/nix", "/home"}

func (u use) system() bool { return u.where == "swap" || slices.Contains(systemPaths, u.where) }

// uses lists what is mounted and swapped to, with the names of block devices.
func (h host) uses() (out []use, err error) {
	err = eachLine(filepath.Join(h.proc, "self/mountinfo"), func(f []string) error {
		// proc(5): 36 35 98:0 /root /mnt options … - ext4 /dev/sda1 …
		dash := slices.Index(f, "-")
		if len(f) < 7 || dash < 0 || dash+2 >= len(f) {
			return fmt.Errorf("mountinfo: unexpected line of %d words", len(f))
		}
		name, err := h.name(f[2])
		if err != nil {
			return err
		}
		if source := f[dash+2]; name == "" && strings.HasPrefix(source, h.dev+"/") {
			name = h.nameOf(source) // Btrfs gives each mount a number of its own
		}
		if name != "" {
			out = append(out, use{name, unescape(f[4])})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = eachLine(filepath.Join(h.proc, "swaps"), func(f []string) error {
		if len(f) > 1 && strings.HasPrefix(f[0], h.dev+"/") {
			if name := h.nameOf(f[0]); name != "" {
				out = append(out, use{name, "swap"})
			}
		}
		return nil
	})
	if errors.Is(err, os.ErrNotExist) { // a kernel without swap
		err = nil
	}
	return out, err
}

func eachLine(file string, f func(fields []string) error) error {
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	s := bufio.NewScanner(in)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if err := f(strings.Fields(s.Text())); err != nil {
			return err
		}
	}
	return s.Err()
}

// unescape undoes what the kernel does to spaces and the like in a path.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// name is the block device with the given number, "" if there is none.
func (h host) name(number string) (string, error) {
	to, err := os.Readlink(filepath.Join(h.sys, "dev/block", number))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return filepath.Base(to), err
}

// nameOf is the kernel's name of a device file, "" if it has gone.
func (h host) nameOf(path string) string {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return ""
	}
	return strings.ReplaceAll(strings.TrimPrefix(real, h.dev+"/"), "/", "!")
}

// below lists the disks that a block device lies on: itself, the disk of a
// partition, the disks of a logical volume.
func (h host) below(name string, depth int) ([]string, error) {
	if depth > 16 {
		return nil, fmt.Errorf("block device %s lies on itself", name)
	}
	dir, err := filepath.EvalSymlinks(filepath.Join(h.sys, "class/block", name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		return h.below(filepath.Base(filepath.Dir(dir)), depth+1)
	}
	slaves, err := os.ReadDir(filepath.Join(dir, "slaves"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	out := []string{name}
	for _, s := range slaves {
		more, err := h.below(s.Name(), depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	return out, nil
}

// find returns the disk at a path, which may be a link to it.
func find(path string) (Disk, error) { return linux.find(path) }

func (h host) find(path string) (Disk, error) {
	name := h.nameOf(path)
	disks, err := h.list()
	if err != nil {
		return Disk{}, err
	}
	for _, d := range disks {
		if h.nameOf(d.Path) == name {
			return d, nil
		}
	}
	below, err := h.below(name, 0)
	if err != nil {
		return Disk{}, err
	}
	if len(below) == 1 && below[0] != name {
		return Disk{}, fmt.Errorf("%s is a partition: an image has its own, so name the whole disk, /dev/%s", path, below[0])
	}
	if size, err := os.ReadFile(filepath.Join(h.sys, "block", name, "size")); err == nil && strings.TrimSpace(string(size)) == "0" {
		return Disk{}, fmt.Errorf("there is nothing in %s: put the card in, or attach a file to the loop device", path)
	}
	return Disk{}, noDisk(path)
}

// startWriting lets the kernel write a part of f to the disk, and waits for an
// earlier part, so that what is told is what is done.
func startWriting(f *os.File, at, n, before, length int64) {
	// Hints: the fsync that follows is what reports errors.
	_ = unix.SyncFileRange(int(f.Fd()), at, n, unix.SYNC_FILE_RANGE_WRITE)
	if length > 0 {
		_ = unix.SyncFileRange(int(f.Fd()), before, length, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
	}
}

// dropCache makes reads come from the disk. What was written must be synced.
func dropCache(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Mode()&os.ModeDevice != 0 {
		err = unix.IoctlSetInt(int(f.Fd()), unix.BLKFLSBUF, 0)
	} else {
		err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	}
	if err != nil {
		return fmt.Errorf("empty the cache of %s: %w", f.Name(), err)
	}
	return nil
}

// reread makes the kernel read the partition table anew. A loop device may have no
// partitions; those of a card are read again when it is put in.
func reread(f *os.File) { _ = unix.IoctlSetInt(int(f.Fd()), unix.BLKRRPART, 0) }
