package build

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
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
		{[]profiles.BootFile{{From: "usr/lib/fw/start.elf", ReserveMiB: 4}}, "boot partition: usr/lib/fw/start.elf: not a device tree"},
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
	rom := []string{"bootcode.bin", "start.elf", "fixup.dat", "config.txt"}
	eeprom := []string{"start4.elf", "fixup4.dat", "config.txt"}
	type model struct {
		name  string   // in the device tree
		stage []string // what is read before the device tree
		dtb   string
		uboot string
		light string // that firstboot lets blink
	}
	for _, tc := range []struct {
		profile string
		models  []model
		reserve uint64   // what the device trees reserve from address 0
		config  []string // lines of config.txt, in this order
		others  []string // files of the packages that are read later
	}{
		{
			"rpi-arm64", []model{
				{"Raspberry Pi 3 Model B", rom, "bcm2837-rpi-3-b.dtb", "u-boot.bin", "ACT"},
				{"Raspberry Pi 3 Model B+", rom, "bcm2837-rpi-3-b-plus.dtb", "u-boot.bin", "ACT"},
				{"Raspberry Pi 3 Model A+", rom, "bcm2837-rpi-3-a-plus.dtb", "u-boot.bin", "ACT"},
				{"Raspberry Pi Zero 2 W", rom, "bcm2837-rpi-zero-2-w.dtb", "u-boot.bin", "ACT"},
				{"Raspberry Pi Compute Module 3", rom, "bcm2837-rpi-cm3.dtb", "u-boot.bin", ""},
				{"Raspberry Pi 4 Model B", eeprom, "bcm2711-rpi-4-b.dtb", "u-boot.bin", "ACT"},
				{"Raspberry Pi 400", eeprom, "bcm2711-rpi-400.dtb", "u-boot.bin", "PWR"},
				{"Raspberry Pi Compute Module 4", eeprom, "bcm2711-rpi-cm4.dtb", "u-boot.bin", "ACT"},
				{"Raspberry Pi 5", eeprom[2:], "bcm2712-rpi-5-b.dtb", "u-boot.bin", ""},
			},
			4 << 10,
			[]string{"arm_64bit=1", "kernel=u-boot.bin", "upstream_kernel=1", "enable_uart=1"},
			[]string{
				"usr/lib/firmware/brcm/brcmfmac43455-sdio.raspberrypi,4-model-b.txt",
				"usr/lib/firmware/brcm/brcmfmac43430-sdio.raspberrypi,3-model-b.txt",
			},
		},
		{
			"rpi-arm", []model{
				{"Raspberry Pi 2 Model B", rom, "bcm2836-rpi-2-b.dtb", "u-boot-2.bin", "ACT"},
				{"Raspberry Pi 3 Model B", rom, "bcm2837-rpi-3-b.dtb", "u-boot-3.bin", "ACT"},
				{"Raspberry Pi 3 Model B+", rom, "bcm2837-rpi-3-b-plus.dtb", "u-boot-3.bin", "ACT"},
				{"Raspberry Pi 3 Model A+", rom, "bcm2837-rpi-3-a-plus.dtb", "u-boot-3.bin", "ACT"},
				{"Raspberry Pi Zero 2 W", rom, "bcm2837-rpi-zero-2-w.dtb", "u-boot-3.bin", "ACT"},
				{"Raspberry Pi Compute Module 3", rom, "bcm2837-rpi-cm3.dtb", "u-boot-3.bin", ""},
			},
			4 << 20,
			[]string{
				"arm_64bit=0", "upstream_kernel=1", "enable_uart=1",
				"[pi2]", "kernel=u-boot-2.bin", "device_tree=bcm2836-rpi-2-b.dtb",
				"[pi3]", "kernel=u-boot-3.bin", "[pi02]", "kernel=u-boot-3.bin",
			},
			[]string{"usr/lib/firmware/brcm/brcmfmac43430-sdio.raspberrypi,3-model-b.txt"},
		},
	} {
		t.Run(tc.profile, func(t *testing.T) {
			p, a, packages := raspberryPiPackages(t, tc.profile)
			content := bootContent(t, packages, p.BootFiles)
			for _, m := range tc.models {
				for _, f := range append(append([]string{}, m.stage...), m.dtb, m.uboot) {
					if content[f] == nil {
						t.Errorf("%s: no %s", m.name, f)
					}
				}
				if b := content[m.dtb]; !bytes.HasPrefix(b, []byte{0xd0, 0x0d, 0xfe, 0xed}) || !bytes.Contains(b, []byte(m.name)) {
					t.Errorf("%s: %s is not its device tree", m.name, m.dtb)
				} else if at := binary.BigEndian.Uint32(b[fdtReserved:]); m.stage[0] == rom[0] && binary.BigEndian.Uint64(b[at:])|binary.BigEndian.Uint64(b[at+8:]) != tc.reserve {
					t.Errorf("%s: %s reserves something else than the first %d bytes", m.name, m.dtb, tc.reserve)
				}
				if got := lightOf(t, content[m.dtb]); got != m.light {
					t.Errorf("%s: the device tree has the light %q, want %q", m.name, got, m.light)
				}
				// U-Boot knows the board, and looks for systemd-boot where it is. Its name for a
				// Compute Module's device tree is the firmware's.
				for _, word := range []string{m.dtb, "/EFI/BOOT/", a.EFIName} {
					if !bytes.Contains(bytes.ToLower(content[m.uboot]), []byte(strings.ToLower(word))) {
						t.Errorf("%s: its U-Boot, %s, does not have the word %s", m.name, m.uboot, word)
					}
				}
			}
			var config []string
			for line := range strings.Lines(string(content["config.txt"])) {
				if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
					config = append(config, line)
				}
			}
			if !slices.Equal(config, tc.config) {
				t.Errorf("config.txt\ngot  %q\nwant %q", config, tc.config)
			}
			for _, f := range append(tc.others, "usr/lib/systemd/boot/efi/"+a.EFIBoot, "usr/lib/systemd/boot/efi/"+a.EFIStub) {
				if _, _, err := packages.Lookup(f); err != nil {
					t.Error(err)
				}
			}
			addProfileFiles(packages, p)
			for f, text := range p.Files {
				if !strings.HasPrefix(f, "usr/lib/modules-load.d/") {
					continue
				}
				for line := range strings.Lines(text) {
					if module := strings.TrimSpace(line); module != "" && module[0] != '#' && !hasModule(packages, module) {
						t.Errorf("%s: the kernel has no module %s", f, module)
					}
				}
			}
			for l := range p.Links {
				if _, _, err := packages.Lookup(l); err != nil {
					t.Errorf("link %s: %v", l, err)
				}
			}
		})
	}
}

// hasModule says whether the kernel has a module as a file of its own.
func hasModule(packages *tree.Tree, module string) bool {
	return slices.ContainsFunc(packages.Paths(), func(f string) bool {
		name, isModule := strings.CutSuffix(path.Base(f), ".ko.xz")
		return isModule && strings.ReplaceAll(name, "-", "_") == module
	})
}

// lightOf is the name of the light of a device tree that firstboot takes: that for activity,
// or the one that is there.
func lightOf(t *testing.T, dtb []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "dtb")
	if err := os.WriteFile(file, dtb, 0o600); err != nil {
		t.Fatal(err)
	}
	nodes, err := testtools.Command(t, "fdtget", "-l", file, "/leds").Output()
	if err != nil {
		return "" // no such node
	}
	var found string
	for _, n := range strings.Fields(string(nodes)) {
		label, err := testtools.Command(t, "fdtget", file, "/leds/"+n, "label").Output()
		if err != nil {
			t.Fatalf("fdtget label of %s: %v", n, err)
		}
		if found = strings.TrimSpace(string(label)); found == "ACT" {
			break
		}
	}
	return found
}

// raspberryPiPackages are the packages that a Raspberry Pi's boot files are from.
func raspberryPiPackages(t *testing.T, profile string) (profiles.Profile, arch.Arch, *tree.Tree) {
	t.Helper()
	p, err := profiles.Load(profile)
	if err != nil {
		t.Fatal(err)
	}
	a, err := arch.Get(p.Arch)
	if err != nil {
		t.Fatal(err)
	}
	return p, a, testtools.Packages(t, a, p.Components, deb.Request{
		Roots:   []string{p.Kernel, "raspi-firmware", "u-boot-rpi", "systemd-boot-efi", "firmware-brcm80211", "wireless-regdb"},
		Exclude: append([]string{"libc6", "kmod", "dosfstools"}, osbase.Excluded...),
	})
}

// bootContent is what is in the files that a list of the profile names.
func bootContent(t *testing.T, packages *tree.Tree, list []profiles.BootFile) map[string][]byte {
	t.Helper()
	files, err := bootFiles(packages, list)
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
	return content
}
