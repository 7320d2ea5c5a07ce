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
	"sort"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/images/format"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/userdata"
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
	// InitrdModules are kernel modules that reach the disk; those that the kernel
	// has built in may be named too.
	InitrdModules []string `json:"initrdModules"`
	// KernelArguments go to the end of the kernel's command line, in this order.
	KernelArguments []string `json:"kernelArguments"`
	// IgnitionPlatform is the value of ignition.platform.id.
	IgnitionPlatform string `json:"ignitionPlatform"`
	Disk             Disk   `json:"disk"`
	// UnmanagedDrivers are drivers of network interfaces that are part of another one
	// and get no address.
	UnmanagedDrivers []string `json:"unmanagedDrivers"`
	// Formats are what imagegen build writes unless --format says otherwise; see
	// images/format.
	Formats []string `json:"formats"`
	// Upload is a text/template of the commands that take an image of the first of
	// Formats to the platform and start a machine with it; see Commands.
	Upload string `json:"upload"`
}

// Cloud says whether machines of the platform have user data that Kiln reads.
func (p Profile) Cloud() bool { return userdata.Known(p.IgnitionPlatform) }

// Disk holds the sizes of the disk and its partitions, in MiB.
type Disk struct {
	ESP int `json:"espMiB"`
	// Usr and Verity are the sizes of one /usr slot and its hash partition; a disk has two of each.
	Usr    int `json:"usrMiB"`
	Verity int `json:"verityMiB"`
	// Minimum is the smallest disk the image can grow into.
	Minimum int `json:"minimumMiB"`
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
func Clouds() []string {
	var clouds []string
	for _, name := range Names() {
		if p, err := Load(name); err == nil && p.Cloud() {
			clouds = append(clouds, name)
		}
	}
	return clouds
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
	if used := d.ESP + 2*(d.Usr+d.Verity); d.Minimum < used+1024 {
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
