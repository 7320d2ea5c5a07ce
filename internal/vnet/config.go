package vnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// Config describes a network.
type Config struct {
	// Subnets share the one Ethernet; the gateway routes between them. The first
	// one of IPv4 is what DHCP gives addresses of.
	Subnets []Subnet
	// Nameservers are further addresses that the gateway answers DNS at: those the
	// machines were told to ask, wherever they are.
	Nameservers []netip.Addr
	// Hosts are the names that DNS knows, in lower case without a dot at the end.
	Hosts map[string][]netip.Addr
	// Leases are what DHCP gives to certain Ethernet addresses. Others get an
	// address that is not in Reserved.
	Leases []Lease
	// Reserved are addresses that DHCP must not give away: machines have them.
	Reserved []netip.Addr
	// Internet lets the machines reach what this host reaches, and its names.
	// Without it, what they send to other addresses is answered as unreachable.
	Internet bool
}

// Subnet is a range of addresses on the network.
type Subnet struct {
	Prefix netip.Prefix
	// Gateway is the address of the gateway there.
	Gateway netip.Addr
}

// Lease is a fixed address for DHCP.
type Lease struct {
	MAC     net.HardwareAddr
	Address netip.Addr
}

func (c Config) check() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf("network: "+format, a...)) }
	if len(c.Subnets) == 0 {
		bad("there is no subnet")
	}
	for _, s := range c.Subnets {
		if !s.Prefix.IsValid() || !s.Gateway.IsValid() || s.Prefix.Addr().Is4() != s.Gateway.Is4() {
			bad("subnet %s with gateway %s: both are needed, of one address family", s.Prefix, s.Gateway)
		}
	}
	prefixes := map[netip.Prefix]bool{}
	for _, s := range c.Subnets {
		prefixes[s.Prefix] = true
	}
	if c.Internet && len(prefixes) > 1 {
		bad("with a way to the Internet there can be one subnet, not %d: what goes to another subnet could not be told from what leaves", len(prefixes))
	}
	for _, a := range c.Nameservers {
		if !a.IsValid() {
			bad("a name server without address")
		}
	}
	v4, _ := c.dhcpSubnet()
	for _, l := range c.Leases {
		if len(l.MAC) != 6 || !l.Address.Is4() || !v4.Prefix.Contains(l.Address) {
			bad("DHCP cannot give %s to %s: want an Ethernet address, and an address in the first IPv4 subnet", l.Address, l.MAC)
		}
	}
	return errors.Join(errs...)
}

// dhcpSubnet is the first one of IPv4.
func (c Config) dhcpSubnet() (Subnet, bool) {
	for _, s := range c.Subnets {
		if s.Prefix.Addr().Is4() {
			return s, true
		}
	}
	return Subnet{}, false
}
