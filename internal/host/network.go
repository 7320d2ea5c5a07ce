package host

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// DefaultRoute is a route to everywhere.
type DefaultRoute struct {
	Interface string
	Metric    uint32
}

// ErrNoDefaultRoute says that the node has no default route (yet).
var ErrNoDefaultRoute = errors.New("no default route")

// route flags of the kernel (linux/route.h).
const (
	routeUp     = 0x1
	routeReject = 0x200
)

// family is where the kernel shows the routes of an address family.
type family struct {
	file  string
	parse func(io.Reader) ([]DefaultRoute, error)
	want  func(netip.Addr) bool
}

var (
	family4 = family{"/proc/net/route", parseRoutes4, netip.Addr.Is4}
	family6 = family{"/proc/net/ipv6_route", parseRoutes6, netip.Addr.Is6}
)

// AdvertiseAddress returns the global unicast address of the interface with the
// default route of the lowest metric: IPv4 if there is such a route, else IPv6.
// This is the address that kubeadm advertises.
func (p Paths) AdvertiseAddress() (netip.Addr, error) {
	addr, err := p.addressOf(family4)
	if errors.Is(err, ErrNoDefaultRoute) {
		return p.addressOf(family6)
	}
	return addr, err
}

// AddressOf is AdvertiseAddress for one address family.
func (p Paths) AddressOf(v6 bool) (netip.Addr, error) {
	if v6 {
		return p.addressOf(family6)
	}
	return p.addressOf(family4)
}

func (p Paths) addressOf(f family) (netip.Addr, error) {
	route, err := p.defaultRoute(f.file, f.parse)
	if err != nil {
		return netip.Addr{}, err
	}
	return interfaceAddress(route.Interface, f.want)
}

func (p Paths) defaultRoute(file string, parse func(io.Reader) ([]DefaultRoute, error)) (DefaultRoute, error) {
	f, err := os.Open(p.At(file))
	if errors.Is(err, fs.ErrNotExist) { // a kernel without IPv6
		return DefaultRoute{}, ErrNoDefaultRoute
	}
	if err != nil {
		return DefaultRoute{}, err
	}
	defer f.Close()
	routes, err := parse(f)
	if err != nil {
		return DefaultRoute{}, fmt.Errorf("%s: %w", file, err)
	}
	if len(routes) == 0 {
		return DefaultRoute{}, ErrNoDefaultRoute
	}
	best := routes[0]
	for _, r := range routes[1:] {
		if r.Metric < best.Metric {
			best = r
		}
	}
	return best, nil
}

// parseRoutes4 reads the default routes of /proc/net/route, proc_pid_net(5): Iface
// Destination Gateway Flags RefCnt Use Metric Mask …, numbers in hexadecimal but
// for the metric.
func parseRoutes4(r io.Reader) ([]DefaultRoute, error) {
	var out []DefaultRoute
	s := bufio.NewScanner(r)
	for s.Scan() {
		f := strings.Fields(s.Text())
		if len(f) == 0 || f[0] == "Iface" {
			continue
		}
		if len(f) < 8 {
			return nil, fmt.Errorf("line %q has %d fields, want at least 8", s.Text(), len(f))
		}
		flags, err := strconv.ParseUint(f[3], 16, 32)
		if err != nil {
			return nil, fmt.Errorf("line %q: flags: %w", s.Text(), err)
		}
		metric, err := strconv.ParseUint(f[6], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("line %q: metric: %w", s.Text(), err)
		}
		if f[1] == "00000000" && f[7] == "00000000" && flags&routeUp != 0 && flags&routeReject == 0 {
			out = append(out, DefaultRoute{Interface: f[0], Metric: uint32(metric)})
		}
	}
	return out, s.Err()
}

// parseRoutes6 reads the default routes of /proc/net/ipv6_route: destination and
// its prefix length, source and its prefix length, next hop, metric, reference
// count, use, flags, interface; numbers in hexadecimal.
func parseRoutes6(r io.Reader) ([]DefaultRoute, error) {
	var out []DefaultRoute
	s := bufio.NewScanner(r)
	for s.Scan() {
		f := strings.Fields(s.Text())
		if len(f) == 0 {
			continue
		}
		if len(f) < 10 {
			return nil, fmt.Errorf("line %q has %d fields, want 10", s.Text(), len(f))
		}
		if b, err := hex.DecodeString(f[0]); err != nil || len(b) != 16 {
			return nil, fmt.Errorf("line %q: destination %q is not an IPv6 address", s.Text(), f[0])
		}
		flags, err := strconv.ParseUint(f[8], 16, 32)
		if err != nil {
			return nil, fmt.Errorf("line %q: flags: %w", s.Text(), err)
		}
		metric, err := strconv.ParseUint(f[5], 16, 32)
		if err != nil {
			return nil, fmt.Errorf("line %q: metric: %w", s.Text(), err)
		}
		// The kernel keeps an unreachable default route on lo.
		if strings.Trim(f[0], "0") == "" && f[1] == "00" && flags&routeUp != 0 && flags&routeReject == 0 && f[9] != "lo" {
			out = append(out, DefaultRoute{Interface: f[9], Metric: uint32(metric)})
		}
	}
	return out, s.Err()
}

// interfaceAddress returns the first global unicast address of the interface that
// is wanted.
func interfaceAddress(name string, want func(netip.Addr) bool) (netip.Addr, error) {
	ifc, err := net.InterfaceByName(name)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("interface %s of the default route: %w", name, err)
	}
	addrs, err := ifc.Addrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("interface %s: %w", name, err)
	}
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap().IsGlobalUnicast() && want(ip.Unmap()) {
			return ip.Unmap(), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("interface %s of the default route has no global unicast address", name)
}

// CheckLocal reports an error unless addr is an address of one of the node's
// interfaces that can be used: an IPv6 address cannot for the second in which the
// kernel asks whether another machine has it.
func CheckLocal(addr netip.Addr) error {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return err
	}
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap() == addr.Unmap() {
			return bindable(addr)
		}
	}
	return fmt.Errorf("no interface has the address %s", addr)
}

func bindable(addr netip.Addr) error {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
	if err != nil {
		return fmt.Errorf("the address %s cannot be used yet: %w", addr, err)
	}
	return c.Close()
}
