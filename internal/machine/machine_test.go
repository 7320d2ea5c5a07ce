package machine

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/kiln-os/kiln/internal/bootplan"
)

// tree writes files below a root, as the kernel shows them. A name that ends with a
// slash is a folder.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		dir := filepath.Dir(path)
		if name[len(name)-1] == '/' {
			dir = path
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if dir == path {
			continue
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// nic adds a network interface with a device.
func nic(files map[string]string, name, mac string, more ...string) {
	dir := "sys/class/net/" + name + "/"
	files[dir+"device/"] = ""
	files[dir+"address"], files[dir+"type"], files[dir+"addr_assign_type"] = mac+"\n", "1\n", "0\n"
	for _, m := range more {
		files[dir+m] = ""
	}
}

// board is a Raspberry Pi with wired and wireless network, beside interfaces that are
// none of its own.
func board() map[string]string {
	files := map[string]string{
		"proc/device-tree/serial-number":      "10000000ABCDEF01\x00",
		"sys/class/net/lo/address":            "00:00:00:00:00:00\n",
		"sys/class/net/lo/type":               "772\n",
		"sys/class/net/dummy0/address":        "00:00:00:00:00:01\n", // without a device
		"sys/class/net/dummy0/type":           "1\n",
		"sys/class/net/bonding_masters":       "\n", // a file
		"sys/class/dmi/id/board_serial":       "Default string\n",
		"sys/class/net/can0/type":             "280\n",
		"sys/class/net/can0/device/":          "",
		"sys/class/net/usb0/device/":          "",
		"sys/class/net/usb0/type":             "1\n",
		"sys/class/net/usb0/address":          "02:00:00:00:00:02\n",
		"sys/class/net/usb0/addr_assign_type": "1\n", // random
	}
	nic(files, "wlan0", "d8:3a:dd:00:00:01", "wireless/", "phy80211/")
	nic(files, "end0", "d8:3a:dd:aB:cd:ef")
	nic(files, "eth1", "fe:00:00:00:00:03")
	return files
}

func TestChoose(t *testing.T) {
	pc := map[string]string{"sys/class/dmi/id/product_serial": " CZC1234XYZ \n", "sys/class/dmi/id/board_serial": "0123456789\n"}
	wifi := map[string]string{}
	nic(wifi, "wlan0", "d8:3a:dd:00:00:01", "wireless/")
	row := func(m bootplan.Machine) []bootplan.Machine {
		return []bootplan.Machine{{MAC: "52:54:00:00:00:01", Name: "other"}, m}
	}
	for name, c := range map[string]struct {
		files map[string]string
		table []bootplan.Machine
		want  string
		found bool
		err   error
	}{
		"MAC address":            {files: board(), table: row(bootplan.Machine{MAC: "d8:3a:dd:ab:cd:ef", Name: "pi-1"}), want: "pi-1", found: true},
		"second interface":       {files: board(), table: row(bootplan.Machine{MAC: "fe:00:00:00:00:03", Name: "pi-1"}), want: "pi-1", found: true},
		"wireless":               {files: board(), table: row(bootplan.Machine{MAC: "d8:3a:dd:00:00:01", Name: "pi-1"}), want: "pi-1", found: true},
		"serial of the tree":     {files: board(), table: row(bootplan.Machine{Serial: "10000000abcdef01", Name: "pi-1"}), want: "pi-1", found: true},
		"serial of SMBIOS":       {files: pc, table: row(bootplan.Machine{Serial: "czc1234xyz", Name: "pc-1"}), want: "pc-1", found: true},
		"placeholder":            {files: pc, table: row(bootplan.Machine{Serial: "0123456789", Name: "pc-1"}), err: ErrNoNetwork},
		"two rows":               {files: board(), table: []bootplan.Machine{{Serial: "10000000abcdef01", Name: "a"}, {MAC: "d8:3a:dd:ab:cd:ef", Name: "b"}}, want: "a", found: true},
		"in no row":              {files: board(), table: row(bootplan.Machine{MAC: "d8:3a:dd:ab:cd:00", Name: "pi-1"}), want: "worker-abcdef"},
		"no table":               {files: board(), want: "worker-abcdef"},
		"wireless alone":         {files: wifi, want: "worker-000001"},
		"a dummy is no hardware": {files: board(), table: row(bootplan.Machine{MAC: "00:00:00:00:00:01", Name: "x"}), want: "worker-abcdef"},
		"a random address":       {files: board(), table: row(bootplan.Machine{MAC: "02:00:00:00:00:02", Name: "x"}), want: "worker-abcdef"},
		"nothing":                {files: map[string]string{"sys/": ""}, err: ErrNoNetwork},
	} {
		t.Run(name, func(t *testing.T) {
			hw, err := Find(tree(t, c.files))
			if err != nil {
				t.Fatal(err)
			}
			m, found, err := hw.Choose(bootplan.Machines{NamePrefix: "worker-", Machines: c.table})
			if m.Name != c.want || found != c.found || !errors.Is(err, c.err) {
				t.Errorf("%+v, %v, %v; hardware %+v", m, found, err, hw)
			}
		})
	}
}
