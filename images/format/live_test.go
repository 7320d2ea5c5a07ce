package format_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/images/disk"
	"github.com/kiln-os/kiln/images/format"
	"github.com/kiln-os/kiln/internal/nodeimage"
	"github.com/kiln-os/kiln/internal/nodeimage/nodeimagetest"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/internal/testtools"
)

// nodeImage makes the small disk image of a node, and its /usr.
func nodeImage(t *testing.T) (image string, usr []byte) {
	t.Helper()
	return nodeImageFor(t, nodeimagetest.Profile)
}

func nodeImageFor(t *testing.T, profile string) (image string, usr []byte) {
	t.Helper()
	dir := t.TempDir()
	if err := nodeimagetest.WriteBaseFor(dir, profile, 2); err != nil {
		t.Fatal(err)
	}
	base, err := nodeimage.LoadBase(dir)
	if err != nil {
		t.Fatal(err)
	}
	image = filepath.Join(dir, "node.img")
	id := nodeimage.Identity{Node: "node", Profile: profile, Config: secret.New([]byte(`{"a": "config"}`))}
	if _, err := base.Create(t.Context(), image, id, nil); err != nil {
		t.Fatal(err)
	}
	return image, partition(t, image, "kiln-usr-a")
}

func partition(t *testing.T, image, name string) []byte {
	t.Helper()
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := disk.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range table.Partitions {
		if p.Name == name {
			b := make([]byte, p.Size)
			if _, err := f.ReadAt(b, p.Offset); err != nil {
				t.Fatal(err)
			}
			return b
		}
	}
	t.Fatalf("%s has no partition %s", image, name)
	return nil
}

func write(t *testing.T, name, image string) string {
	t.Helper()
	f, err := format.Get(name)
	if err != nil {
		t.Fatal(err)
	}
	dst := filepath.Join(t.TempDir(), "node"+f.Ext)
	if err := f.Convert(t.Context(), dst, image, format.Options{Name: "node"}); err != nil {
		t.Fatal(err)
	}
	return dst
}

func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := testtools.Command(t, name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func read(t *testing.T, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// checkInitramfs unpacks an initramfs by cpio: it has the whole /usr and the stamp.
func checkInitramfs(t *testing.T, file string, usr []byte) {
	t.Helper()
	dir := t.TempDir()
	run(t, dir, "cpio", "-id", "--quiet", "--no-absolute-filenames", "-F", file)
	got := read(t, dir, "kiln/usr")
	if len(got) < 2<<20 || len(got)%4096 != 0 || !bytes.HasPrefix(usr, got) || len(bytes.Trim(usr[len(got):], "\x00")) > 0 {
		t.Errorf("/usr has %d bytes that are not those of the image", len(got))
	}
	command := read(t, dir, "etc/systemd/system/kiln-live.service")
	if !strings.Contains(string(command), "/dev/loop0 /kiln/usr\n") {
		t.Errorf("%s", command)
	}
	if got := read(t, dir, "kiln/boot/kiln/config.ign"); string(got) != `{"a": "config"}` {
		t.Errorf("the stamp is %q", got)
	}
	if got := string(read(t, dir, "kiln/boot/kiln/config.ign.sha256")); got != fmt.Sprintf("%x  config.ign\n", sha256.Sum256([]byte(`{"a": "config"}`))) {
		t.Errorf("the stamp's checksum is %q", got)
	}
	for _, secret := range []string{"config.ign", "config.ign.sha256"} {
		if st, err := os.Stat(filepath.Join(dir, "kiln/boot/kiln", secret)); err != nil || st.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", secret, st.Mode(), err)
		}
	}
}

const commandLine = "root=tmpfs rootflags=size=60% systemd.verity_usr_data=/dev/loop0 systemd.verity_usr_hash=/dev/loop1 usrhash="

// TestPXE: tar unpacks three files, which refer to each other.
func TestPXE(t *testing.T) {
	image, usr := nodeImage(t)
	dir := t.TempDir()
	run(t, dir, "tar", "-xf", write(t, "pxe", image))
	script := string(read(t, dir, "node.ipxe"))
	if !strings.HasPrefix(script, "#!ipxe\nkernel node-vmlinuz initrd=node-initramfs.img "+commandLine) || !strings.HasSuffix(script, " quiet\ninitrd node-initramfs.img\nboot\n") {
		t.Errorf("script:\n%s", script)
	}
	if !bytes.HasPrefix(read(t, dir, "node-vmlinuz"), []byte("a kernela kernel")) {
		t.Error("the kernel is another one")
	}
	checkInitramfs(t, filepath.Join(dir, "node-initramfs.img"), usr)
}

// TestISO: xorriso finds what a CD boots from, and sgdisk what a USB stick does; mtools
// and fsck.fat read the volume that both lead to.
func TestISO(t *testing.T) {
	image, usr := nodeImage(t)
	dir := t.TempDir()
	iso := write(t, "iso", image)
	report := run(t, dir, "xorriso", "-indev", iso, "-report_el_torito", "plain", "-lsl", "/", "-pvd_info")
	for _, want := range []string{"El Torito catalog", "UEFI", "/EFI.IMG", "NODE"} {
		if !strings.Contains(report, want) {
			t.Errorf("xorriso does not say %q:\n%s", want, report)
		}
	}
	run(t, dir, "xorriso", "-osirrox", "on", "-indev", iso, "-extract", "/EFI.IMG", filepath.Join(dir, "efi.img"))
	volume := partition(t, iso, "kiln-live")
	if !bytes.Equal(read(t, dir, "efi.img"), volume) {
		t.Error("a CD boots from other bytes than a USB stick")
	}
	if out := run(t, dir, "sgdisk", "-v", iso); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk: %s", out)
	}
	run(t, dir, "fsck.fat", "-n", "efi.img")
	for _, f := range []string{"EFI/BOOT/BOOTX64.EFI", "loader/loader.conf", "loader/entries/live.conf", "loader/entries/install.conf", "kiln/vmlinuz", "kiln/initramfs.img"} {
		run(t, dir, "mcopy", "-i", "efi.img", "::"+f, filepath.Base(f))
	}
	for file, ends := range map[string][2]string{
		"live.conf":    {"title node, without a disk\nsort-key kiln-1", " quiet\n"},
		"install.conf": {"title Install node on the empty disk\nsort-key kiln-2", " quiet kiln.install\n"},
	} {
		entry := string(read(t, dir, file))
		if !strings.HasPrefix(entry, ends[0]+"\nlinux /kiln/vmlinuz\ninitrd /kiln/initramfs.img\noptions "+commandLine) || !strings.HasSuffix(entry, ends[1]) {
			t.Errorf("%s:\n%s", file, entry)
		}
	}
	if conf := string(read(t, dir, "loader.conf")); !strings.HasPrefix(conf, "default live.conf\n") {
		t.Errorf("a stick that somebody has left in a machine would install:\n%s", conf)
	}
	checkInitramfs(t, filepath.Join(dir, "initramfs.img"), usr)
	if f, err := os.Open(iso); err != nil {
		t.Error(err)
	} else if kind, err := format.Detect(f); err != nil || kind != format.ISO {
		t.Errorf("it is taken for %s, %v", kind, err)
	}
}

// TestLiveGolden: the same image gives the same bytes.
func TestLiveGolden(t *testing.T) {
	image, _ := nodeImage(t)
	for name, want := range map[string]string{
		"pxe": "2afffae6e6c58653fb5934d0164c729a8a591ad827ad4a04de067dea71603c5c",
		"iso": "dcc6e482d701353f454df88486d8347afd2daa71f453e9554826ddeb47c0b3b8",
	} {
		for range 2 {
			f, err := os.Open(write(t, name, image))
			if err != nil {
				t.Fatal(err)
			}
			h := sha256.New()
			_, err = io.Copy(h, f)
			if got := fmt.Sprintf("%x", h.Sum(nil)); errors.Join(err, f.Close()) != nil || got != want {
				t.Errorf("%s: digest %s, want %s; %v", name, got, want, err)
			}
		}
	}
}

// TestLiveRefuses: what is no node's image, or has been booted, boots in no memory.
func TestLiveRefuses(t *testing.T) {
	dir := t.TempDir()
	if err := nodeimagetest.WriteBase(dir, 1); err != nil {
		t.Fatal(err)
	}
	empty, other, booted := filepath.Join(dir, "empty.img"), filepath.Join(dir, "other.img"), filepath.Join(dir, "booted.img")
	if err := errors.Join(os.WriteFile(empty, nil, 0o600), os.Truncate(empty, 8<<20)); err != nil {
		t.Fatal(err)
	}
	for path, name := range map[string]string{other: "data", booted: "kiln-state"} {
		d := disk.Disk{Partitions: []disk.Partition{{Name: name, Type: disk.ESPType, UUID: disk.DerivedUUID(name), Size: 1 << 20}}}
		if err := disk.Create(t.Context(), path, d, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	power, _ := nodeImageFor(t, "qemu-ppc64le")
	for _, name := range []string{"pxe", "iso"} {
		f, err := format.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		for image, want := range map[string]string{
			filepath.Join(dir, "disk.img"): "it has no stamp",
			empty:                          "no GUID partition table",
			other:                          "it has no partition kiln-esp",
			booted:                         "has been booted",
			power:                          "GRUB starts this image from a PReP partition, and without a disk Kiln starts nodes by UEFI only",
		} {
			dst := filepath.Join(dir, "out")
			if err := f.Convert(t.Context(), dst, image, format.Options{Name: "a"}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s of %s: error %v, want %q", name, image, err, want)
			}
			if _, err := os.Stat(dst); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: left behind: %v", name, err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		image, _ := nodeImage(t)
		err = f.Convert(ctx, filepath.Join(dir, "out"), image, format.Options{Name: "a", Progress: func(int64) { cancel() }})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s, interrupted: %v", name, err)
		}
	}
}
