package flash

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

// List returns the disks of this machine, as diskutil(8) tells.
func List() ([]Disk, error) {
	all, err := diskutil("list", "-plist", "physical")
	if err != nil {
		return nil, err
	}
	system, err := diskutil("info", "-plist", "/")
	if err != nil {
		return nil, err
	}
	var disks []Disk
	for _, name := range texts(all["WholeDisks"]) {
		info, err := diskutil("info", "-plist", name)
		if err != nil {
			return nil, err
		}
		disks = append(disks, macDisk(name, info, all, system))
	}
	sort.Slice(disks, func(i, j int) bool { return disks[i].Path < disks[j].Path })
	return disks, nil
}

func diskutil(args ...string) (map[string]any, error) {
	out, err := exec.Command("diskutil", args...).Output()
	if err != nil {
		return nil, fmt.Errorf("diskutil %s: %w", strings.Join(args, " "), err)
	}
	return parsePlist(out)
}

func find(path string) (Disk, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return Disk{}, err
	}
	// /dev/rdisk4 is /dev/disk4 without a cache.
	name := strings.TrimPrefix(filepath.Base(real), "r")
	disks, err := List()
	if err != nil {
		return Disk{}, err
	}
	for _, d := range disks {
		if filepath.Base(d.Path) == name {
			return d, nil
		}
	}
	return Disk{}, noDisk(path)
}

func startWriting(*os.File, int64, int64, int64, int64) {}

// dropCache makes reads come from the disk, not from memory.
func dropCache(f *os.File) error {
	_, err := unix.FcntlInt(f.Fd(), unix.F_NOCACHE, 1)
	return err
}

func reread(*os.File) {}
