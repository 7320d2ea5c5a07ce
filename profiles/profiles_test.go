package profiles

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/images/format"
)

func TestEveryProfileLoads(t *testing.T) {
	names := Names()
	if !slices.Contains(names, "qemu-amd64") {
		t.Errorf("names %v", names)
	}
	for _, n := range names {
		p, err := Load(n)
		if err != nil {
			t.Error(err)
		}
		if p.Name != n || !strings.HasSuffix(n, "-"+p.Arch) && p.Arch == "" {
			t.Errorf("profile %+v", p)
		}
	}
}

func TestUnknownProfile(t *testing.T) {
	for _, n := range []string{"qemu", "", "../profiles/qemu-amd64", "qemu-amd64.yaml"} {
		if _, err := Load(n); err == nil || !strings.Contains(err.Error(), "qemu-amd64") {
			t.Errorf("%q: error %v does not list what there is", n, err)
		}
	}
}

func TestMistakes(t *testing.T) {
	good, err := files.ReadFile("qemu-amd64.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ old, new, want string }{
		"unknown key":        {"arch: amd64", "arch: amd64\ncolour: red", "colour"},
		"arch":               {"arch: amd64", "arch: x86_64", "unknown architecture"},
		"no kernel":          {"kernel: linux", "kernel: ''\n#", "Debian package"},
		"argument":           {"console=tty0", "a b", "kernel argument"},
		"platform":           {"ignitionPlatform: qemu", "ignitionPlatform: ''", "ignitionPlatform"},
		"component":          {"formats: [raw]", "formats: [raw]\ncomponents: ['a b']", "component"},
		"no boot file":       {"formats: [raw]", "formats: [raw]\nbootFiles: [{to: a}]", "want from"},
		"text to reserve in": {"formats: [raw]", "formats: [raw]\nbootFiles: [{to: a, text: b, reserveMiB: 4}]", "reserveMiB: 4: want"},
		"less than nothing":  {"formats: [raw]", "formats: [raw]\nbootFiles: [{from: a, reserveMiB: -1}]", "reserveMiB: -1: want"},
		"boot pattern":       {"formats: [raw]", "formats: [raw]\nbootFiles: [{from: '['}]", "syntax error in pattern"},
		"file":               {"formats: [raw]", "formats: [raw]\nfiles: {etc/x: y}", "usr/"},
		"link":               {"formats: [raw]", "formats: [raw]\nlinks: {usr/../x: y}", "usr/"},
		"small ESP":          {"espMiB: 512", "espMiB: 32", "FAT32"},
		"PReP":               {"espMiB: 512", "espMiB: 512\n  prepMiB: 8", "machines of amd64 boot by efi"},
		"small verity":       {"verityMiB: 16", "verityMiB: 12", "hash tree"},
		"suite":              {"formats: [raw]", "formats: [raw]\nsuite: 13", "release of Debian"},
		"driver":             {"formats: [raw]", "formats: [raw]\nunmanagedDrivers: ['a b']", "name of a driver"},
		"zram":               {"formats: [raw]", "formats: [raw]\nzram: gzip", "none of lz4, lz4hc, zstd, deflate"},
		"no formats":         {"formats: [raw]", "formats: []", "formats is empty"},
		"format":             {"formats: [raw]", "formats: [dmg]", "unknown image format"},
		"commands":           {"formats: [raw]", "formats: [raw]\nupload: '{{.Colour}}'", "Colour"},
		"small disk":         {"minimumMiB: 8192", "minimumMiB: 4000", "minimumMiB"},
	} {
		_, err := parse("x", []byte(strings.Replace(string(good), tc.old, tc.new, 1)))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v does not say %q", name, err, tc.want)
		}
	}
}

// TestCommands compares the commands that are printed for an image with those in
// testdata, has a shell parse them, and checks that no variable of theirs is one that
// a shell has set already.
func TestCommands(t *testing.T) {
	for _, name := range Names() {
		p, err := Load(name)
		if err != nil {
			t.Fatal(err)
		}
		f, err := format.Get(p.Formats[0])
		if err != nil {
			t.Fatal(err)
		}
		lines, err := p.Commands(p.NewUploadVars("node-1.example", "out/node-1.example"+f.Ext))
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(lines, "\n") + "\n"
		want, err := os.ReadFile(filepath.Join("testdata", name+".sh"))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if len(lines) == 0 {
			got = ""
		}
		if got != string(want) {
			t.Errorf("%s prints\n%swant\n%s", name, got, want)
		}
		shell := exec.Command("sh", "-n")
		shell.Stdin = strings.NewReader(got)
		if out, err := shell.CombinedOutput(); err != nil {
			t.Errorf("%s: sh: %v\n%s", name, err, out)
		}
		// On a profile of a cloud the image gets there, and nothing calls another cloud's program.
		if len(lines) > 0 && !strings.Contains(got, "out/node-1.example"+f.Ext) {
			t.Errorf("%s: the commands do not name the image", name)
		}
	}
}

func TestQuote(t *testing.T) {
	p := Profile{Upload: "cat {{.File}} {{.Base}} {{.Name}}"}
	lines, err := p.Commands(p.NewUploadVars("a.b", "my 'out'/-a $(b).img"))
	if want := `cat 'my '\''out'\''/-a $(b).img' './-a $(b).img' a-b`; err != nil || len(lines) != 1 || lines[0] != want {
		t.Errorf("%q, %v, want %q", lines, err, want)
	}
}

// TestClouds: what the images of clouds have to be for their platforms.
func TestClouds(t *testing.T) {
	for name, want := range map[string]struct {
		format, platform, console string
		modules                   []string
	}{
		"aws-amd64":       {"vmdk", "aws", "ttyS0", []string{"nvme", "ena"}},
		"azure-amd64":     {"vhd", "azure", "ttyS0", []string{"hv_storvsc", "hv_vmbus", "sd_mod", "hv_netvsc"}},
		"gcp-amd64":       {"gce", "gcp", "ttyS0", []string{"virtio_scsi", "sd_mod", "nvme", "virtio_net", "gve"}},
		"metal-amd64":     {"raw.zst", "metal", "tty0", []string{"ahci", "nvme", "sd_mod", "usb_storage", "mmc_block"}},
		"rpi-arm":         {"raw.zst", "metal", "ttyS1", []string{"bcm2835", "sdhci_iproc", "mmc_block", "usb_storage"}},
		"rpi-arm64":       {"raw.zst", "metal", "ttyS1", []string{"bcm2835", "sdhci_iproc", "mmc_block", "gpio_regulator", "usb_storage"}},
		"openstack-amd64": {"qcow2-compressed", "openstack", "ttyS0", []string{"virtio_blk", "virtio_scsi", "virtio_net", "sr_mod"}},
		"vmware-amd64":    {"ova", "vmware", "tty0", []string{"vmw_pvscsi", "sd_mod"}},
		"powervs-ppc64le": {"powervs", "powervs", "hvc0", []string{"ibmvscsi", "ibmvfc", "sd_mod", "sr_mod", "ibmveth"}},
		"aws-arm64":       {"vmdk", "aws", "ttyS0", []string{"nvme", "ena"}},
		"azure-arm64":     {"vhd", "azure", "ttyAMA0", []string{"hv_storvsc", "hv_vmbus", "sd_mod", "hv_netvsc"}},
		"gcp-arm64":       {"gce", "gcp", "ttyAMA0", []string{"virtio_scsi", "sd_mod", "nvme", "gve"}},
		"metal-arm64":     {"raw.zst", "metal", "ttyAMA0", []string{"ahci", "nvme", "sd_mod", "usb_storage", "mmc_block"}},
		"openstack-arm64": {"qcow2-compressed", "openstack", "ttyAMA0", []string{"virtio_blk", "virtio_scsi", "virtio_net"}},
	} {
		p, err := Load(name)
		if err != nil {
			t.Error(err)
			continue
		}
		last := ""
		for _, a := range p.KernelArguments {
			if c, ok := strings.CutPrefix(a, "console="); ok {
				last, _, _ = strings.Cut(c, ",")
			}
		}
		if p.Formats[0] != want.format || p.IgnitionPlatform != want.platform || last != want.console {
			t.Errorf("%s: %+v", name, p)
		}
		if p.Cloud() != (want.platform != "metal" && want.platform != "vmware") {
			t.Errorf("%s: user data of a cloud: %v", name, p.Cloud())
		}
		for _, m := range want.modules {
			if !slices.Contains(p.InitrdModules, m) {
				t.Errorf("%s has no %s in its initramfs", name, m)
			}
		}
	}
}
