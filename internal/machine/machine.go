// Package machine finds out which row of its image's table a machine is.
//
// INPUTS: bootplan.Machines; sysfs, the device tree and SMBIOS below a root folder.
// OUTPUTS: one bootplan.Machine. The same hardware and table give the same row.
package machine

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/kiln-os/kiln/internal/bootplan"
)

// Hardware is what a machine is known by.
type Hardware struct {
	// Serials are those of the board, in the form of bootplan.Serial.
	Serials []string
	Links   []Link // network interfaces with hardware of their own, by Ethernet address
}

// Link is a network interface.
type Link struct {
	Name     string
	MAC      net.HardwareAddr
	Wireless bool
}

// serialFiles are where firmware says the serial number of a machine: the device tree,
// as on a Raspberry Pi, and SMBIOS.
var serialFiles = []string{"/proc/device-tree/serial-number", "/sys/class/dmi/id/product_serial", "/sys/class/dmi/id/board_serial"}

// placeholders are what boards say whose maker gave them no number.
var placeholders = []string{"", "0", "none", "not specified", "not applicable", "default string", "system serial number", "to be filled by o.e.m.", "0123456789"}

// Find reads what the machine below root is known by.
func Find(root string) (Hardware, error) {
	var hw Hardware
	for _, name := range serialFiles {
		b, err := os.ReadFile(filepath.Join(root, name))
		if absent(err) {
			continue
		}
		if err != nil {
			return hw, fmt.Errorf("serial number: %w", err)
		}
		s := bootplan.Serial(string(b))
		if !slices.Contains(placeholders, s) && !slices.Contains(hw.Serials, s) {
			hw.Serials = append(hw.Serials, s)
		}
	}
	dir := filepath.Join(root, "/sys/class/net")
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return hw, fmt.Errorf("network interfaces: %w", err)
	}
	for _, e := range entries {
		l, ok, err := link(filepath.Join(dir, e.Name()))
		if err != nil {
			return hw, fmt.Errorf("network interface %s: %w", e.Name(), err)
		}
		if ok {
			hw.Links = append(hw.Links, l)
		}
	}
	slices.SortFunc(hw.Links, func(a, b Link) int { return bytes.Compare(a.MAC, b.MAC) })
	return hw, nil
}

// absent says that a file is not there: a device that has gone, too, or a number that
// the board does not have.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.ENXIO) || errors.Is(err, syscall.ENOTDIR)
}

// link reads a network interface; ok is false for one without hardware of its own, or
// whose address is another at every start.
func link(dir string) (l Link, ok bool, err error) {
	if _, err := os.Lstat(filepath.Join(dir, "device")); err != nil {
		return l, false, missing(err)
	}
	attribute := func(name string) (string, error) {
		b, err := os.ReadFile(filepath.Join(dir, name))
		return strings.TrimSpace(string(b)), err
	}
	kind, err := attribute("type")
	if err != nil || kind != "1" { // ARPHRD_ETHER
		return l, false, missing(err)
	}
	// NET_ADDR_RANDOM of include/uapi/linux/netdevice.h.
	if how, err := attribute("addr_assign_type"); err != nil || how == "1" {
		return l, false, missing(err)
	}
	text, err := attribute("address")
	if err != nil {
		return l, false, missing(err)
	}
	mac, err := net.ParseMAC(text)
	if err != nil || len(mac) != 6 || bytes.Equal(mac, make([]byte, 6)) {
		return l, false, nil
	}
	l = Link{Name: filepath.Base(dir), MAC: mac}
	for _, sign := range []string{"wireless", "phy80211"} {
		if _, err := os.Lstat(filepath.Join(dir, sign)); err == nil {
			l.Wireless = true
		}
	}
	return l, true, nil
}

func missing(err error) error {
	if absent(err) {
		return nil
	}
	return err
}

// ErrNoNetwork says that a machine which is not in the table has no Ethernet address
// of which a name could be made.
var ErrNoNetwork = errors.New("no network device, of whose Ethernet address a name could be made, and no serial number of the table")

// Choose returns the row of the machine: the first that names one of its serial
// numbers or Ethernet addresses. Without one, found is false and the name is made of
// the lowest address of its wired interfaces, or of all if it has no wired one.
func (hw Hardware) Choose(t bootplan.Machines) (row bootplan.Machine, found bool, err error) {
	for _, m := range t.Machines {
		mine := slices.ContainsFunc(hw.Links, func(l Link) bool { return l.MAC.String() == m.MAC })
		if mine || m.Serial != "" && slices.Contains(hw.Serials, m.Serial) {
			return m, true, nil
		}
	}
	links := hw.Links
	if wired := slices.DeleteFunc(slices.Clone(links), func(l Link) bool { return l.Wireless }); len(wired) > 0 {
		links = wired
	}
	if len(links) == 0 {
		return bootplan.Machine{}, false, ErrNoNetwork
	}
	mac := links[0].MAC
	return bootplan.Machine{MAC: mac.String(), Name: bootplan.FallbackName(t.NamePrefix, mac)}, false, nil
}
