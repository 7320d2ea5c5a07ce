package installer

import (
	"fmt"
	"strings"
)

// Words of the kernel's command line that ask for an installation.
const (
	word     = "kiln.install"
	wordThen = "kiln.install.then"
)

// What a machine does once the node is installed.
const (
	PowerOff = "poweroff"
	Reboot   = "reboot"
)

// Options are what the kernel's command line says.
type Options struct {
	// Disk is where to install; "" is the only disk that is empty and large enough.
	Disk string
	Then string // PowerOff or Reboot
}

// ParseOptions reads a kernel's command line. Somebody may have added a disk to a line
// that has the word without one.
func ParseOptions(line string) (Options, error) {
	o := Options{Then: PowerOff}
	asked := false
	for _, w := range strings.Fields(line) {
		key, value, _ := strings.Cut(w, "=")
		value = strings.Trim(value, `"`)
		switch {
		case key == word:
			asked = true
			if value == "" {
				break
			}
			if !strings.HasPrefix(value, "/dev/") {
				return o, fmt.Errorf("%s: want the path of a disk, such as %s=/dev/sda or %s=/dev/disk/by-id/…", w, word, word)
			}
			if o.Disk != "" && o.Disk != value {
				return o, fmt.Errorf("the kernel's command line names two disks, %s and %s: want one", o.Disk, value)
			}
			o.Disk = value
		case key == wordThen:
			if value != PowerOff && value != Reboot {
				return o, fmt.Errorf("%s: want %s=%s or %s=%s", w, wordThen, PowerOff, wordThen, Reboot)
			}
			o.Then = value
		case strings.HasPrefix(key, word+"."):
			return o, fmt.Errorf("%s: there is no such setting; Kiln knows %s and %s", w, word, wordThen)
		}
	}
	if !asked {
		return o, fmt.Errorf("the kernel's command line does not ask for an installation: want %s on it", word)
	}
	return o, nil
}
