// Package profiles holds what differs between the platforms Kiln builds images
// for, one YAML file per platform. What follows from the processor alone stands
// in internal/arch.
package profiles

import (
	"embed"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"sort"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/images/format"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/platform"
)

//go:embed *.yaml
var files embed.FS

// Profile describes a platform.
type Profile struct {
	Name string `json:"-"` // the file's name without .yaml
	// Arch is the Go name of the architecture.
	Arch string `json:"arch"`
	// Kernel is the Debian package of the kernel; Packages are further Debian
	// packages of this platform: firmware, agents.
	Kernel   string   `json:"kernel"`
	Packages []string `json:"packages"`
	// Components are those of the Debian archive that the packages are in; none means main.
	Components []string `json:"components"`
	// Suite is the release of Debian they are from; "" is the default one.
	Suite string `json:"suite"`
	// InitrdModules are kernel modules that reach the disk; those that the kernel
	// has built in may be named too.
	InitrdModules []string `json:"initrdModules"`
	// KernelArguments go to the end of the kernel's command line, in this order.
	KernelArguments []string `json:"kernelArguments"`
	// IgnitionPlatform is the value of ignition.platform.id.
	IgnitionPlatform string `json:"ignitionPlatform"`
	Disk             Disk   `json:"disk"`
	// BootFiles are on the boot partition besides systemd-boot and the unified kernel image.
	BootFiles []BootFile `json:"bootFiles"`
	// Files and Links are laid over the operating system, by path: text, and targets of
	// symbolic links.
	Files map[string]string `json:"files"`
	Links map[string]string `json:"links"`
	// WiFi says that its machines have a wireless interface, and that the packages have
	// what it takes.
	WiFi bool `json:"wifi"`
	// Zram is how the swap space in memory that its machines have is compressed, one of
	// ZramAlgorithms; "" says that they have none.
	Zram string `json:"zram"`
	// UnmanagedDrivers are drivers of network interfaces that are part of another one
	// and get no address.
	UnmanagedDrivers []string `json:"unmanagedDrivers"`
	// Formats are what imagegen build writes unless --format says otherwise; see
	// images/format.
	Formats []string `json:"formats"`
	// Upload are the commands that take an image of the first of Formats to the platform
	// and start a machine with it; see Commands for what is put in.
	Upload string `json:"upload"`
}

// Cloud says whether machines of the platform have user data that Kiln reads.
func (p Profile) Cloud() bool { return platform.Cloud(p.IgnitionPlatform) }

// ZramAlgorithms are those that Debian's kernels compress memory with.
var ZramAlgorithms = []string{"lz4", "lz4hc", "zstd", "deflate"}

// Disk holds the sizes of the disk and its partitions, in MiB.
type Disk struct {
	// PReP is the size of the partition that Open Firmware starts GRUB from; 0 where UEFI boots.
	PReP int `json:"prepMiB"`
	ESP  int `json:"espMiB"`
	// Usr and Verity are the sizes of one /usr slot and its hash partition; a disk has two of each.
	Usr    int `json:"usrMiB"`
	Verity int `json:"verityMiB"`
	// Minimum is the smallest disk the image can grow into.
	Minimum int `json:"minimumMiB"`
	// HybridMBR lists the boot partition in the master boot record too.
	HybridMBR bool `json:"hybridMBR"`
}

// BootFile is a file of the boot partition, or several.
type BootFile struct {
	// From is a pattern of paths in the packages (path.Match); each file that it matches
	// is put into the root by its own name, or if there is one only by the name To.
	From string `json:"from"`
	To   string `json:"to"`
	// Text is instead of From the content of the file To.
	Text string `json:"text"`
	// ReserveMiB is for device trees: so much of the memory, from address 0, they shall
	// reserve. 0 leaves them as they are.
	ReserveMiB int `json:"reserveMiB"`
}

// Names lists all profiles, sorted.
func Names() []string {
	entries, err := files.ReadDir(".")
	if err != nil {
		panic("profiles: the embedded files cannot be listed: " + err.Error()) // cannot happen: the folder is in the program
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	sort.Strings(names)
	return names
}

// Clouds lists the profiles of clouds, sorted.
func Clouds() []string { return which(Profile.Cloud) }

// WithWiFi lists the profiles whose machines have Wi-Fi that Kiln drives, sorted.
func WithWiFi() []string { return which(func(p Profile) bool { return p.WiFi }) }

func which(is func(Profile) bool) []string {
	var out []string
	for _, name := range Names() {
		if p, err := Load(name); err == nil && is(p) {
			out = append(out, name)
		}
	}
	return out
}

// Load reads the profile with the given name.
func Load(name string) (Profile, error) {
	for _, n := range Names() {
		if n != name {
			continue
		}
		data, err := files.ReadFile(path.Base(name) + ".yaml")
		if err != nil {
			return Profile{}, fmt.Errorf("profile %s: %w", name, err)
		}
		return parse(name, data)
	}
	return Profile{}, fmt.Errorf("unknown profile %q; Kiln knows %s", name, strings.Join(Names(), ", "))
}

var (
	packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`) // Debian Policy, section 5.6.1
	driver      = regexp.MustCompile(`^[a-z0-9_-]+$`)
	suite       = regexp.MustCompile(`^[a-z]+$`)
	argument    = regexp.MustCompile(`^[!-~]+$`)
)

// parse reads a profile strictly and reports every mistake.
func parse(name string, data []byte) (Profile, error) {
	p := Profile{Name: name}
	if err := yaml.UnmarshalStrict(data, &p); err != nil {
		return Profile{}, fmt.Errorf("profile %s: %w", name, err)
	}
	var errs []error
	bad := func(format string, a ...any) {
		errs = append(errs, fmt.Errorf("profile %s: "+format, append([]any{name}, a...)...))
	}
	if _, err := arch.Get(p.Arch); err != nil {
		bad("arch: %w", err)
	}
	for _, s := range append([]string{p.Kernel}, p.Packages...) {
		if !packageName.MatchString(s) {
			bad("kernel and packages: %q is not the name of a Debian package", s)
		}
	}
	for _, s := range p.Components {
		if !packageName.MatchString(s) {
			bad("components: %q is not the name of a component of the Debian archive", s)
		}
	}
	if len(p.Components) == 0 {
		p.Components = []string{"main"}
	}
	for i, f := range p.BootFiles {
		if _, err := path.Match(f.From, ""); err != nil {
			bad("bootFiles: item %d: from: %w", i+1, err)
		}
		if (f.From == "") == (f.Text == "") || f.Text != "" && f.To == "" {
			bad("bootFiles: item %d: want from, or text and to", i+1)
		}
		if f.ReserveMiB < 0 || f.ReserveMiB > 0 && f.From == "" {
			bad("bootFiles: item %d: reserveMiB: %d: want a positive number, with from", i+1, f.ReserveMiB)
		}
	}
	for _, m := range []map[string]string{p.Files, p.Links} {
		for name := range m {
			if name != path.Clean(name) || !strings.HasPrefix(name, "usr/") {
				bad("files and links: %q is not a path that begins with usr/", name)
			}
		}
	}
	if p.Suite != "" && !suite.MatchString(p.Suite) {
		bad("suite: %q is not the name of a release of Debian", p.Suite)
	}
	for _, s := range p.KernelArguments {
		if !argument.MatchString(s) {
			bad("kernelArguments: %q is not one kernel argument", s)
		}
	}
	for _, s := range p.UnmanagedDrivers {
		if !driver.MatchString(s) {
			bad("unmanagedDrivers: %q is not the name of a driver", s)
		}
	}
	if p.Zram != "" && !slices.Contains(ZramAlgorithms, p.Zram) {
		bad("zram: %q is none of %s", p.Zram, strings.Join(ZramAlgorithms, ", "))
	}
	if p.IgnitionPlatform == "" {
		bad("ignitionPlatform is empty")
	}
	d := p.Disk
	// A FAT32 file system has at least 65525 clusters: no less than 33 MiB.
	if d.ESP < 34 {
		bad("disk.espMiB is %d; the boot partition is FAT32 and takes at least 34", d.ESP)
	}
	if d.Usr < 1 || d.Verity*127 < d.Usr {
		bad("disk: %d MiB of verity cannot hold the hash tree of %d MiB of /usr; want at least 1/127", d.Verity, d.Usr)
	}
	if a, err := arch.Get(p.Arch); err == nil && (a.Boot == arch.BootPReP) != (d.PReP > 0) {
		bad("disk.prepMiB is %d; machines of %s boot by %s", d.PReP, a.Go, a.Boot)
	}
	if used := d.PReP + d.ESP + 2*(d.Usr+d.Verity); d.Minimum < used+1024 {
		bad("disk.minimumMiB is %d; boot partition and slots take %d, and the state needs 1024 more", d.Minimum, used)
	}
	if len(p.Formats) == 0 {
		bad("formats is empty; want some of %s", strings.Join(format.Names(), ", "))
	}
	for _, f := range p.Formats {
		if _, err := format.Get(f); err != nil {
			bad("formats: %w", err)
		}
	}
	if _, err := p.Commands(UploadVars{Name: "kiln-1", File: "out/kiln-1.img", Base: "kiln-1.img"}); err != nil {
		bad("upload: %w", err)
	}
	return p, errors.Join(errs...)
}
