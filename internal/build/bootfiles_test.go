package build

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/images/deb"
	"github.com/kiln-os/kiln/images/osbase"
	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/testtools"
	"github.com/kiln-os/kiln/profiles"
)

func TestBootFiles(t *testing.T) {
	packages := tree.New()
	packages.AddFile("usr/lib/fw/start.elf", 0o644, []byte("start"))
	packages.AddFile("usr/lib/fw/start4.elf", 0o644, []byte("start4"))
	packages.AddSymlink("usr/lib/fw/start5.elf", "start4.elf")
	packages.AddDir("usr/lib/fw/start.d", 0o755)
	names := func(list []profiles.BootFile) string {
		files, err := bootFiles(packages, list)
		if err != nil {
			return err.Error()
		}
		var out []string
		for _, f := range files {
			out = append(out, f.Path)
		}
		return strings.Join(out, " ")
	}
	for _, tc := range []struct {
		list []profiles.BootFile
		want string
	}{
		{[]profiles.BootFile{{From: "usr/lib/fw/start*"}, {From: "usr/lib/fw/start.elf", To: "other/name"}, {To: "config.txt", Text: "x"}}, "start.elf start4.elf start5.elf other/name config.txt"},
		{[]profiles.BootFile{{From: "usr/lib/*/none"}}, "boot partition: the packages have 0 files usr/lib/*/none; the profile has to name others"},
		{[]profiles.BootFile{{From: "usr/lib/fw/start*", To: "one"}}, "boot partition: the packages have 3 files usr/lib/fw/start*; the profile has to name others"},
	} {
		if got := names(tc.list); got != tc.want {
			t.Errorf("%v\ngot  %s\nwant %s", tc.list, got, tc.want)
		}
	}
}

// TestRaspberryPiBootChain follows what each model reads from the boot partition, in
// that order, through Debian's packages as they are in the archive.
func TestRaspberryPiBootChain(t *testing.T) {
	p, err := profiles.Load("rpi-arm64")
	if err != nil {
		t.Fatal(err)
	}
	a, err := arch.Get(p.Arch)
	if err != nil {
		t.Fatal(err)
	}
	packages := testtools.Packages(t, a, p.Components, deb.Request{
		Roots: []string{p.Kernel, "raspi-firmware", "u-boot-rpi", "systemd-boot-efi", "firmware-brcm80211", "wireless-regdb"}, Exclude: append([]string{"libc6", "kmod", "dosfstools"}, osbase.Excluded...),
	})
	files, err := bootFiles(packages, p.BootFiles)
	if err != nil {
		t.Fatal(err)
	}
	content := map[string][]byte{}
	for _, f := range files {
		r, err := f.Content.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil || r.Close() != nil || len(b) == 0 {
			t.Fatalf("%s: %d bytes, %v", f.Path, len(b), err)
		}
		if _, twice := content[f.Path]; twice {
			t.Errorf("%s is there twice", f.Path)
		}
		content[f.Path] = b
	}
	rom := []string{"bootcode.bin", "start.elf", "fixup.dat", "config.txt"}
	eeprom := []string{"start4.elf", "fixup4.dat", "config.txt"}
	for _, m := range []struct {
		model string // in the device tree
		reads []string
	}{
		{"Raspberry Pi 3 Model B", append(rom[:4:4], "bcm2837-rpi-3-b.dtb")},
		{"Raspberry Pi 3 Model B+", append(rom[:4:4], "bcm2837-rpi-3-b-plus.dtb")},
		{"Raspberry Pi 3 Model A+", append(rom[:4:4], "bcm2837-rpi-3-a-plus.dtb")},
		{"Raspberry Pi Zero 2 W", append(rom[:4:4], "bcm2837-rpi-zero-2-w.dtb")},
		{"Raspberry Pi Compute Module 3", append(rom[:4:4], "bcm2837-rpi-cm3.dtb")},
		{"Raspberry Pi 4 Model B", append(eeprom[:3:3], "bcm2711-rpi-4-b.dtb")},
		{"Raspberry Pi 400", append(eeprom[:3:3], "bcm2711-rpi-400.dtb")},
		{"Raspberry Pi Compute Module 4", append(eeprom[:3:3], "bcm2711-rpi-cm4.dtb")},
		{"Raspberry Pi 5", []string{"config.txt", "bcm2712-rpi-5-b.dtb"}},
	} {
		for _, f := range append(m.reads, "u-boot.bin") {
			b, ok := content[f]
			if !ok {
				t.Errorf("%s: no %s", m.model, f)
			}
			if strings.HasSuffix(f, ".dtb") && (!bytes.HasPrefix(b, []byte{0xd0, 0x0d, 0xfe, 0xed}) || !bytes.Contains(b, []byte(m.model))) {
				t.Errorf("%s: %s is not its device tree", m.model, f)
			}
		}
	}
	for _, line := range []string{"arm_64bit=1\n", "kernel=u-boot.bin\n", "upstream_kernel=1\n", "enable_uart=1\n"} {
		if !bytes.Contains(content["config.txt"], []byte(line)) {
			t.Errorf("config.txt has no %s", line)
		}
	}
	// U-Boot knows the boards, and looks for systemd-boot where it is.
	for _, word := range []string{"bcm2837-rpi-3-b.dtb", "bcm2837-rpi-zero-2-w.dtb", "bcm2711-rpi-4-b.dtb", "/EFI/BOOT/", "BOOTAA64.EFI"} {
		if !bytes.Contains(bytes.ToLower(content["u-boot.bin"]), []byte(strings.ToLower(word))) {
			t.Errorf("U-Boot does not have the word %s", word)
		}
	}
	for _, f := range []string{
		"usr/lib/systemd/boot/efi/" + a.EFIBoot, "usr/lib/firmware/brcm/brcmfmac43455-sdio.raspberrypi,4-model-b.txt",
		"usr/lib/firmware/brcm/brcmfmac43430-sdio.raspberrypi,3-model-b.txt",
	} {
		if _, _, err := packages.Lookup(f); err != nil {
			t.Error(err)
		}
	}
	addProfileFiles(packages, p)
	for l := range p.Links {
		if _, _, err := packages.Lookup(l); err != nil {
			t.Errorf("link %s: %v", l, err)
		}
	}
}
