package vnet

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/containers/gvisor-tap-vsock/pkg/services/dhcp"
	"github.com/containers/gvisor-tap-vsock/pkg/tap"
	"github.com/containers/gvisor-tap-vsock/pkg/types"
)

// serveDHCP answers the machines without an address, if there is a subnet of IPv4.
func (n *Network) serveDHCP() error {
	s, ok := n.cfg.dhcpSubnet()
	if !ok {
		return nil
	}
	pool := tap.NewIPPool(&net.IPNet{IP: s.Prefix.Addr().AsSlice(), Mask: net.CIDRMask(s.Prefix.Bits(), 32)})
	// Whoever has an address without asking has no Ethernet address in the pool.
	for _, a := range append([]netip.Addr{s.Gateway, lastOf(s.Prefix)}, n.cfg.Reserved...) {
		pool.Reserve(a.AsSlice(), a.String())
	}
	for _, l := range n.cfg.Leases {
		pool.Reserve(l.Address.AsSlice(), l.MAC.String())
	}
	n.pool = pool
	server, err := dhcp.New(&types.Configuration{Subnet: s.Prefix.String(), GatewayIP: s.Gateway.String(), MTU: mtu}, n.stack, pool)
	if err != nil {
		return fmt.Errorf("network: DHCP: %w", err)
	}
	return n.serve(server.Underlying, func() { _ = server.Serve() }) // ends when it is closed
}

// Lease gives DHCP an address for a machine that is new.
func (n *Network) Lease(l Lease) error {
	cfg := n.cfg
	cfg.Leases = []Lease{l}
	if err := cfg.check(); err != nil {
		return err
	}
	n.pool.Reserve(l.Address.AsSlice(), l.MAC.String())
	return nil
}

// lastOf is the broadcast address of an IPv4 subnet.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}
