package installer

import (
	"strings"
	"testing"
)

func TestParseOptions(t *testing.T) {
	for line, want := range map[string]Options{
		"quiet kiln.install\n":                             {"", PowerOff},
		"kiln.install=/dev/vda rw":                         {"/dev/vda", PowerOff},
		"kiln.install kiln.install=/dev/disk/by-id/nvme-1": {"/dev/disk/by-id/nvme-1", PowerOff},
		`kiln.install="/dev/sda" kiln.install=/dev/sda`:    {"/dev/sda", PowerOff},
		"kiln.install kiln.install.then=reboot":            {"", Reboot},
		"kiln.install.then=poweroff kiln.install=":         {"", PowerOff},
	} {
		if got, err := ParseOptions(line); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", line, got, err, want)
		}
	}
	for line, want := range map[string]string{
		"quiet":            "want kiln.install on it",
		"kiln.install=sda": "want the path of a disk, such as kiln.install=/dev/sda",
		"kiln.install=/dev/sda kiln.install=/dev/sdb":   "names two disks, /dev/sda and /dev/sdb",
		"kiln.install kiln.install.then=halt":           "want kiln.install.then=poweroff or kiln.install.then=reboot",
		"kiln.install kiln.install.disk=/dev/disk/by-x": "there is no such setting; Kiln knows kiln.install and kiln.install.then",
	} {
		if o, err := ParseOptions(line); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, error %v, want %q", line, o, err, want)
		}
	}
}
