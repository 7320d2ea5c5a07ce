package flash

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// machine builds the files in which a machine tells of its disks: an NVMe disk with
// an encrypted system in LVM, a card that is mounted, a free stick, a disk of a RAID,
// and devices that are no disks.
func machine(t *testing.T) host {
	t.Helper()
	dir := t.TempDir()
	h := host{filepath.Join(dir, "sys"), filepath.Join(dir, "proc"), filepath.Join(dir, "dev")}
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to, from string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(from), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, from); err != nil {
			t.Fatal(err)
		}
	}
	device := func(path, number, sectors string) string {
		dir := filepath.Join(h.sys, "devices", path)
		name := filepath.Base(path)
		write(filepath.Join(dir, "size"), sectors+"\n")
		write(filepath.Join(h.dev, name), "")
		link(dir, filepath.Join(h.sys, "class/block", name))
		link(dir, filepath.Join(h.sys, "dev/block", number))
		return dir
	}
	whole := func(name, number, sectors string) string {
		dir := device(name, number, sectors)
		link(dir, filepath.Join(h.sys, "block", name))
		return dir
	}
	part := func(disk, name, number string) string {
		dir := device(disk+"/"+name, number, "2048")
		write(filepath.Join(dir, "partition"), "1\n")
		return dir
	}
	nvme := whole("nvme0n1", "259:0", "1000215216")
	write(filepath.Join(nvme, "device/model"), "Samsung SSD 970   \n")
	part("nvme0n1", "nvme0n1p1", "259:1")
	p2 := part("nvme0n1", "nvme0n1p2", "259:2")
	crypt := whole("dm-0", "253:0", "1000")
	write(filepath.Join(p2, "holders/dm-0"), "")
	write(filepath.Join(crypt, "slaves/nvme0n1p2"), "")
	root := whole("dm-1", "253:1", "1000")
	write(filepath.Join(root, "slaves/dm-0"), "")

	card := whole("mmcblk0", "179:0", "62333952")
	write(filepath.Join(card, "device/name"), "SC32G\n")
	write(filepath.Join(card, "removable"), "1\n")
	part("mmcblk0", "mmcblk0p1", "179:1")
	whole("mmcblk0boot0", "179:8", "8192")

	stick := whole("sda", "8:0", "60604416")
	write(filepath.Join(stick, "device/vendor"), "SanDisk \n")
	write(filepath.Join(stick, "device/model"), "Ultra           \n")
	write(filepath.Join(stick, "removable"), "1\n")
	write(filepath.Join(stick, "ro"), "1\n")
	write(filepath.Join(stick, "queue/logical_block_size"), "4096\n")

	raid := whole("sdb", "8:16", "7814037168")
	write(filepath.Join(raid, "device/vendor"), "ATA     \n")
	write(filepath.Join(raid, "device/model"), "WDC WD40\n")
	p := part("sdb", "sdb1", "8:17")
	write(filepath.Join(p, "holders/md0"), "")

	whole("loop0", "7:0", "0")
	whole("zram0", "252:0", "4096")
	whole("sr0", "11:0", "2097151")
	swap := whole("sdc", "8:32", "4096")
	_ = swap
	btrfs := whole("vdb", "254:16", "4096")
	write(filepath.Join(btrfs, "device/vendor"), "0x1af4\n")

	write(filepath.Join(h.proc, "self/mountinfo"), strings.ReplaceAll(`22 1 253:1 / / rw,relatime shared:1 - ext4 /dev/mapper/vg-root rw
23 22 0:21 / /proc rw - proc proc rw
24 22 259:1 / /boot/efi rw - vfat DEV/nvme0n1p1 rw
25 22 179:1 / /media/my\040card rw - vfat DEV/mmcblk0p1 rw
26 22 0:50 /@data /data rw - btrfs DEV/vdb rw
`, "DEV", h.dev))
	write(filepath.Join(h.proc, "swaps"), "Filename\tType\tSize\tUsed\tPriority\n"+h.dev+"/sdc partition 1 0 -2\n")
	return h
}

func TestList(t *testing.T) {
	h := machine(t)
	disks, err := h.list()
	if err != nil {
		t.Fatal(err)
	}
	dev := func(name string) string { return filepath.Join(h.dev, name) }
	want := []Disk{
		{Path: dev("mmcblk0"), Size: 62333952 * 512, Model: "SC32G", Removable: true, Mounts: []string{"/media/my card"}},
		{Path: dev("nvme0n1"), Size: 1000215216 * 512, Model: "Samsung SSD 970", System: true, Mounts: []string{"/", "/boot/efi"}, Holders: []string{"dm-0"}},
		{Path: dev("sda"), Size: 60604416 * 512, Model: "SanDisk Ultra", Removable: true, ReadOnly: true, sector: 4096},
		{Path: dev("sdb"), Size: 7814037168 * 512, Model: "WDC WD40", Holders: []string{"md0"}},
		{Path: dev("sdc"), Size: 4096 * 512, System: true, Mounts: []string{"swap"}},
		{Path: dev("vdb"), Size: 4096 * 512, Mounts: []string{"/data"}},
	}
	if !reflect.DeepEqual(disks, want) {
		t.Errorf("disks\n%+v\nwant\n%+v", disks, want)
	}
	var b bytes.Buffer
	if err := Print(&b, disks); err != nil {
		t.Fatal(err)
	}
	got := strings.ReplaceAll(b.String(), h.dev, "/dev")
	for _, line := range []string{"mounted at /media/my card", "512.1 GB", "SanDisk Ultra (removable)", "read-only", "this machine's system", "in use by md0"} {
		if !strings.Contains(got, line) {
			t.Errorf("the table lacks %q:\n%s", line, got)
		}
	}
}

func TestFind(t *testing.T) {
	h := machine(t)
	for name, want := range map[string]string{
		"loop0":     "there is nothing in", // as a reader without a card
		"mmcblk0p1": "is a partition: an image has its own, so name the whole disk, /dev/mmcblk0",
		"zram0":     "is no disk that an image can be written to",
		"gone":      "is no disk that an image can be written to",
	} {
		path := filepath.Join(h.dev, name)
		if d, err := h.find(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %+v, error %v, want %q", name, d, err, want)
		}
	}
	if d, err := h.find(filepath.Join(h.dev, "sda")); err != nil || d.Model != "SanDisk Ultra" {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestBelow(t *testing.T) {
	h := machine(t)
	for name, want := range map[string]string{
		"nvme0n1p2": "[nvme0n1]", "dm-1": "[dm-1 dm-0 nvme0n1]", "sda": "[sda]", "gone": "[]",
	} {
		if got, err := h.below(name, 0); err != nil || fmt.Sprint(got) != want {
			t.Errorf("%s: %v, %v, want %s", name, got, err, want)
		}
	}
	loop := filepath.Join(h.sys, "class/block/sda/slaves/sda")
	if err := os.MkdirAll(loop, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := h.below("sda", 0); err == nil || !strings.Contains(err.Error(), "lies on itself") {
		t.Errorf("error %v", err)
	}
}

// TestThisMachine: whatever machine this is, its root is never free.
func TestThisMachine(t *testing.T) {
	disks, err := List()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range disks {
		for _, m := range d.Mounts {
			if m == "/" && (!d.System || d.check() == nil) {
				t.Errorf("%+v is not taken for the system's", d)
			}
		}
	}
}
