package host

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// NetworkDevice is a network device of the hardware: not the loopback, and none of
// the bridges and pod interfaces that software makes.
type NetworkDevice struct {
	Name, MAC string
	// Link says that the other end of the cable answers.
	Link bool
	// Wireless says that its link is a wireless network.
	Wireless bool
	// Addresses are the global unicast ones.
	Addresses []netip.Prefix
}

// String is what a person needs to find the device.
func (d NetworkDevice) String() string { return fmt.Sprintf("%s (%s)", d.Name, d.MAC) }

// NetworkDevices lists the network devices by name.
func (p Paths) NetworkDevices() ([]NetworkDevice, error) {
	const dir = "/sys/class/net"
	entries, err := os.ReadDir(p.At(dir))
	if err != nil {
		return nil, err
	}
	var out []NetworkDevice
	for _, e := range entries {
		name := e.Name()
		// Only hardware, a virtual machine's included, has a device behind it.
		_, err := os.Stat(p.At(filepath.Join(dir, name, "device")))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		d := NetworkDevice{Name: name}
		if err == nil {
			d.MAC, err = p.attribute(dir, name, "address")
		}
		if err == nil {
			// A device that is switched off has a carrier file that cannot be read.
			carrier, e := p.attribute(dir, name, "carrier")
			d.Link = e == nil && carrier == "1"
			_, e = os.Lstat(p.At(filepath.Join(dir, name, "phy80211")))
			d.Wireless = e == nil
			d.Addresses, err = globalAddresses(name)
		}
		if errors.Is(err, fs.ErrNotExist) { // unplugged in between
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("network device %s: %w", name, err)
		}
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b NetworkDevice) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

func (p Paths) attribute(dir, device, name string) (string, error) {
	b, err := os.ReadFile(p.At(filepath.Join(dir, device, name)))
	return strings.TrimSpace(string(b)), err
}

// globalAddresses returns the interface's global unicast addresses; an interface
// that is gone has none.
func globalAddresses(name string) ([]netip.Prefix, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(i net.Interface) bool { return i.Name == name })
	if i < 0 {
		return nil, nil
	}
	addrs, err := all[i].Addrs()
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		if ones, _ := n.Mask.Size(); ok && ip.Unmap().IsGlobalUnicast() {
			out = append(out, netip.PrefixFrom(ip.Unmap(), ones))
		}
	}
	return out, nil
}

// NameServers are the real name servers of the node, not systemd-resolved's own
// address; nil if it has none.
func (p Paths) NameServers() ([]netip.Addr, error) {
	data, err := os.ReadFile(p.ResolvConf())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, line := range strings.Split(string(data), "\n") {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		a, err := netip.ParseAddr(f[1])
		if err != nil {
			return nil, fmt.Errorf("%s: nameserver: %w", p.ResolvConf(), err)
		}
		out = append(out, a)
	}
	return out, nil
}
