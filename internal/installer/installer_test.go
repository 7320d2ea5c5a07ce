package installer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/images/disk"
	"github.com/kiln-os/kiln/images/format"
	"github.com/kiln-os/kiln/images/live"
	"github.com/kiln-os/kiln/internal/flash"
	"github.com/kiln-os/kiln/internal/nodeimage"
	"github.com/kiln-os/kiln/internal/nodeimage/nodeimagetest"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/internal/testtools"
)

const gib = 1 << 30

// TestChoose: only a disk that is empty, free and large enough is taken unasked, and
// only if it is the only one.
func TestChoose(t *testing.T) {
	free := func(path string, size int64) candidate { return candidate{Disk: flash.Disk{Path: path, Size: size}} }
	full := candidate{Disk: flash.Disk{Path: "/dev/sda", Size: 100 * gib, Model: "Old"}, holds: "2 partitions"}
	mounted := candidate{Disk: flash.Disk{Path: "/dev/sdb", Size: 100 * gib, Mounts: []string{"/mnt"}}}
	unknown := candidate{Disk: flash.Disk{Path: "/dev/sdc", Size: 100 * gib}, holds: "cannot be looked at: input/output error"}
	stick := candidate{Disk: flash.Disk{Path: "/dev/sdd", Size: 100 * gib}, never: "what this machine has booted from"}
	locked := candidate{Disk: flash.Disk{Path: "/dev/sde", Size: 100 * gib, ReadOnly: true}}
	others := []candidate{full, mounted, unknown, stick, locked, free("/dev/vda", gib)}
	for name, c := range map[string]struct {
		disks []candidate
		want  string // the disk
		err   []string
	}{
		"one":           {append(others, free("/dev/vdb", 8*gib)), "/dev/vdb", nil},
		"one, alone":    {[]candidate{free("/dev/nvme0n1", 9*gib)}, "/dev/nvme0n1", nil},
		"none at all":   {nil, "", []string{"shows no disks"}},
		"none fits":     {others, "", []string{"no disk of this machine is empty and has the 8192 MiB", "kiln.install=/dev/…", "/dev/sda  102400  Old    not empty: 2 partitions\n", "mounted at /mnt\n", "cannot be looked at: input/output error\n", "what this machine has booted from\n", "read-only\n", "/dev/vda  1024    -      too small: 1024 MiB of 8192"}},
		"several would": {[]candidate{free("/dev/vda", 8*gib), full, free("/dev/vdb", 8*gib)}, "", []string{"2 disks of this machine are empty", "/dev/vda  8192    -      empty and large enough\n", "/dev/sda  102400  Old    not empty: 2 partitions\n"}},
	} {
		got, err := choose(c.disks, 8*gib)
		if got.Path != c.want || (err == nil) != (c.err == nil) {
			t.Errorf("%s: %q, %v; want %q", name, got.Path, err, c.want)
			continue
		}
		for _, want := range c.err {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %q, want %q", name, err, want)
			}
		}
	}
}

// room is a machine with the initramfs of a node.
type room struct {
	Machine
	src   Source
	raw   string // the node's raw image
	disks []flash.Disk
	said  []string
}

const config = `{"ignition":{"version":"3.3.0"},"storage":{"files":[{"path":"/etc/hostname","contents":{"source":"data:,worker-7%0A"}}]}}`

func newRoom(t *testing.T) *room {
	t.Helper()
	dir := t.TempDir()
	if err := nodeimagetest.WriteBase(dir, 2); err != nil {
		t.Fatal(err)
	}
	base, err := nodeimage.LoadBase(dir)
	if err != nil {
		t.Fatal(err)
	}
	r := &room{raw: filepath.Join(dir, "worker-7.img")}
	id := nodeimage.Identity{Node: "worker-7", Profile: nodeimagetest.Profile, Config: secret.FromString(config)}
	if _, err := base.Create(t.Context(), r.raw, id, nil); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(r.raw)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	booted, err := live.Open(t.Context(), f, format.Epoch)
	if err != nil {
		t.Fatal(err)
	}
	in, err := booted.Initramfs.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	initramfs := t.TempDir()
	cmd := testtools.Command(t, "cpio", "-id", "--quiet", "--no-absolute-filenames")
	cmd.Dir, cmd.Stdin = initramfs, in
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cpio: %v\n%s", err, out)
	}
	r.src = Source{Dir: filepath.Join(initramfs, live.Dir), Usr: filepath.Join(initramfs, live.Dir, live.UsrFile)}
	r.Machine = Machine{Root: t.TempDir(), List: func() ([]flash.Disk, error) { return r.disks, nil }}
	return r
}

// put writes a file of the machine.
func (r *room) put(t *testing.T, path, text string) {
	t.Helper()
	path = filepath.Join(r.Root, path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// add adds an empty disk to the machine, which udev has seen with properties.
func (r *room) add(t *testing.T, name, number string, size int64, properties string) (file string) {
	t.Helper()
	r.put(t, "dev/"+name, "")
	r.put(t, "sys/block/"+name+"/dev", number+"\n")
	r.put(t, "sys/block/"+name+"/queue/logical_block_size", "512\n")
	r.put(t, "run/udev/data/b"+number, "I:123\nE:ID_PATH=pci-1\n"+properties)
	file = filepath.Join(r.Root, "dev", name)
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	r.disks = append(r.disks, flash.Disk{Path: "/dev/" + name, Size: size})
	return file
}

func (r *room) install(ctx context.Context, o Options) error {
	return Install(ctx, o, r.src, r.Machine, func(s string) { r.said = append(r.said, s) })
}

// checkDisk fails unless the disk is the raw image, byte for byte, and empty behind it.
func (r *room) checkDisk(t *testing.T, file string) {
	t.Helper()
	want, err := os.ReadFile(r.raw)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, len(want)+1<<20)
	if _, err := io.ReadFull(f, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got[:len(want)], want) {
		t.Error("the disk is not what imagegen build writes as a raw image")
	}
	if len(bytes.Trim(got[len(want):], "\x00")) > 0 {
		t.Error("something was written behind the image")
	}
	if table, err := disk.Read(f); err != nil || len(table.Partitions) != 3 {
		t.Errorf("partition table: %+v, %v", table, err)
	}
}

func TestInstall(t *testing.T) {
	r := newRoom(t)
	r.put(t, "sys/block/sda/sda1/partition", "1\n")
	r.add(t, "sda", "8:0", 8*gib, "")
	r.add(t, "sdb", "8:16", 8*gib, "E:ID_FS_TYPE=LVM2_member\n")
	r.add(t, "loop0", "7:0", 8*gib, "")
	file := r.add(t, "vda", "254:0", 8*gib, "E:ID_PART_TABLE_TYPE=gpt\n")
	if err := r.install(t.Context(), Options{Then: PowerOff}); err != nil {
		t.Fatal(err)
	}
	r.checkDisk(t, file)
	said := strings.Join(r.said, "\n")
	for _, want := range []string{"installing on /dev/vda (8.6 GB); what was on it is lost", "read back and compare", "node worker-7 is installed on /dev/vda (8.6 GB): "} {
		if !strings.Contains(said, want) {
			t.Errorf("it does not say %q:\n%s", want, said)
		}
	}
}

// TestInstallByName: a disk that was named is taken with what is on it, unless nobody
// can mean it.
func TestInstallByName(t *testing.T) {
	r := newRoom(t)
	r.put(t, "sys/block/sda/sda1/partition", "1\n")
	file := r.add(t, "sda", "8:0", 8*gib, "")
	r.add(t, "sdb", "8:16", 8*gib, "")
	r.add(t, "sdc", "8:32", gib, "")
	r.add(t, "loop0", "7:0", 8*gib, "")
	r.add(t, "nvme0n1", "259:0", 8*gib, "")
	r.put(t, "sys/block/nvme0n1/queue/logical_block_size", "4096\n")
	r.put(t, "dev/sda1", "")
	stick := r.add(t, "sdd", "8:48", 0, "")
	if err := os.Remove(stick); err != nil {
		t.Fatal(err)
	}
	iso, err := format.Get("iso")
	if err == nil {
		err = iso.Convert(t.Context(), stick, r.raw, format.Options{Name: "worker-7"})
	}
	if err != nil {
		t.Fatal(err)
	}
	byID := filepath.Join(r.Root, "dev/disk/by-id")
	if err := errors.Join(os.MkdirAll(byID, 0o755), os.Symlink("../../sda", filepath.Join(byID, "ata-Old"))); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"/dev/sdc":     "needs 8192: take a larger disk",
		"/dev/sdd":     "/dev/sdd will not do: what this machine has booted from",
		"/dev/sda1":    "/dev/sda1 is no disk",
		"/dev/nvme0n1": "/dev/nvme0n1 will not do: sectors of 4096 bytes, and an image has 512",
		"/dev/loop0":   "/dev/loop0 is no disk",
		"/dev/sdx":     "there is no /dev/sdx. Name the disk",
	} {
		if err := r.install(t.Context(), Options{Disk: name}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", name, err, want)
		}
	}
	if err := r.install(t.Context(), Options{Disk: "/dev/disk/by-id/ata-Old"}); err != nil {
		t.Fatal(err)
	}
	r.checkDisk(t, file)
}

// TestInstallWaits: some controllers take their time.
func TestInstallWaits(t *testing.T) {
	r := newRoom(t)
	r.Patience = time.Minute
	ctx, cancel := context.WithCancel(t.Context())
	list, asked := r.List, 0
	var file string
	r.List = func() ([]flash.Disk, error) {
		if asked++; asked == 2 {
			file = r.add(t, "vda", "254:0", 8*gib, "")
		}
		return list()
	}
	if err := r.install(ctx, Options{}); err != nil {
		t.Fatal(err)
	}
	r.checkDisk(t, file)
	if !strings.Contains(r.said[0], "waiting for 1m0s") {
		t.Errorf("it says %q", r.said)
	}
	cancel()
	if err := r.install(ctx, Options{Disk: "/dev/sdx"}); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

// TestInstallRefuses: an initramfs that is not what was built is installed nowhere.
func TestInstallRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		file, text, want string
	}{
		"boot partition damaged": {live.RestFile, "x", "the boot partition in this initramfs is not what was written"},
		"list damaged":           {live.DiskFile, "{", "disk.json is damaged"},
		"no part":                {live.DiskFile, `{"bytes": 1000000}`, "in 0 parts"},
		"hash tree missing":      {live.VerityFile, "", "unexpected EOF"},
	} {
		r := newRoom(t)
		file := r.add(t, "vda", "254:0", 8*gib, "")
		path := filepath.Join(r.src.Dir, c.file)
		if err := errors.Join(os.Remove(path), os.WriteFile(path, []byte(c.text), 0o600)); err != nil {
			t.Fatal(err)
		}
		if err := r.install(t.Context(), Options{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
		// Nothing starts from it.
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := disk.Read(f); !errors.Is(err, disk.ErrNoTable) {
			t.Errorf("%s: the disk has a partition table: %v", name, err)
		}
		f.Close()
	}
}

// TestHolds: what udev has found on a disk, or has not looked at.
func TestHolds(t *testing.T) {
	for properties, want := range map[string]string{
		"":                                 "",
		"E:ID_PART_TABLE_TYPE=dos\n":       "",
		"E:ID_FS_TYPE=\n":                  "",
		"E:ID_FS_TYPE=crypto_LUKS\n":       "crypto_LUKS",
		"E:ID_FS_AMBIVALENT=a:xfs a:ext\n": "several file systems at once",
		"E:ID_PART_TABLE_TYPE=mac\n":       "a partition table of type mac",
	} {
		r := &room{Machine: Machine{Root: t.TempDir()}}
		r.add(t, "vda", "254:0", gib, properties)
		if got, err := r.holds("vda"); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", properties, got, err, want)
		}
	}
	r := &room{Machine: Machine{Root: t.TempDir()}}
	r.add(t, "cciss!c0d0", "104:0", gib, "")
	r.disks[0].Path = "/dev/cciss/c0d0"
	r.List = func() ([]flash.Disk, error) { return r.disks, nil }
	if all, err := r.candidates(); err != nil || !strings.HasPrefix(all[0].holds, "cannot be looked at: ") {
		t.Errorf("a disk without its file: %+v, %v", all, err)
	}
	if err := os.Remove(filepath.Join(r.Root, "run/udev/data/b104:0")); err != nil {
		t.Fatal(err)
	}
	if got, err := r.holds("cciss!c0d0"); err == nil || err.Error() != "udev has not seen it yet" {
		t.Errorf("without udev: %q, %v", got, err)
	}
}
