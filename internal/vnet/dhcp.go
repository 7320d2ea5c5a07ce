package vnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// leaseTime is how long an address is lent; a machine asks again after half of it.
const leaseTime = time.Hour

// pool has the addresses that DHCP gives away.
type pool struct {
	subnet Subnet

	mu     sync.Mutex
	leases map[mac]netip.Addr
	taken  map[netip.Addr]bool
}

func newPool(c Config, s Subnet) *pool {
	p := &pool{subnet: s, leases: map[mac]netip.Addr{}, taken: map[netip.Addr]bool{s.Gateway: true, lastOf(s.Prefix): true}}
	for _, a := range c.Reserved {
		p.taken[a] = true
	}
	for _, l := range c.Leases {
		p.lend(mac(l.MAC), l.Address)
	}
	return p
}

func (p *pool) lend(to mac, a netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leases[to], p.taken[a] = a, true
}

// address returns a machine's address: the one that it had, or the first free one.
func (p *pool) address(of mac) (netip.Addr, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a, ok := p.leases[of]; ok {
		return a, true
	}
	for a := p.subnet.Prefix.Masked().Addr().Next(); p.subnet.Prefix.Contains(a); a = a.Next() {
		if !p.taken[a] {
			p.leases[of], p.taken[a] = a, true
			return a, true
		}
	}
	return netip.Addr{}, false
}

// answer returns the reply to a message; nil if there is none.
func (p *pool) answer(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	var kind dhcpv4.MessageType
	switch m.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		kind = dhcpv4.MessageTypeOffer
	case dhcpv4.MessageTypeRequest:
		kind = dhcpv4.MessageTypeAck
	default:
		return nil // addresses are kept when they are released
	}
	if len(m.ClientHWAddr) != 6 {
		return nil
	}
	a, ok := p.address(mac(m.ClientHWAddr))
	if !ok {
		return nil
	}
	gateway := net.IP(p.subnet.Gateway.AsSlice())
	options := []dhcpv4.Modifier{
		dhcpv4.WithMessageType(kind), dhcpv4.WithYourIP(a.AsSlice()),
		dhcpv4.WithServerIP(gateway), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(gateway)),
		dhcpv4.WithNetmask(net.CIDRMask(p.subnet.Prefix.Bits(), 32)), dhcpv4.WithRouter(gateway), dhcpv4.WithDNS(gateway),
		dhcpv4.WithLeaseTime(uint32(leaseTime.Seconds())),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, binary.BigEndian.AppendUint16(nil, mtu))),
	}
	// A machine that asks for another address, from another network, is told so.
	if want := m.RequestedIPAddress(); kind == dhcpv4.MessageTypeAck && want != nil && !want.Equal(a.AsSlice()) {
		options = []dhcpv4.Modifier{dhcpv4.WithMessageType(dhcpv4.MessageTypeNak), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(gateway))}
	}
	reply, err := dhcpv4.NewReplyFromRequest(m, options...)
	if err != nil {
		return nil // it was no request
	}
	return reply
}

// serveDHCP answers the machines without an address, if there is a subnet of IPv4.
func (n *Network) serveDHCP() error {
	s, ok := n.cfg.dhcpSubnet()
	if !ok {
		return nil
	}
	n.pool = newPool(n.cfg, s)
	conn, err := n.listenBroadcast(dhcpv4.ServerPort)
	if err != nil {
		return fmt.Errorf("network: DHCP: %w", err)
	}
	server, err := server4.NewServer("", nil, func(c net.PacketConn, to net.Addr, m *dhcpv4.DHCPv4) {
		if reply := n.pool.answer(m); reply != nil {
			_, _ = c.WriteTo(reply.ToBytes(), to) // who does not hear it asks again
		}
	}, server4.WithConn(conn))
	if err != nil {
		return errors.Join(fmt.Errorf("network: DHCP: %w", err), conn.Close())
	}
	return n.serve(conn, func() { _ = server.Serve() }) // ends when its socket is closed
}

// listenBroadcast opens a UDP port that takes and sends broadcasts.
func (n *Network) listenBroadcast(port uint16) (net.PacketConn, error) {
	var queue waiter.Queue
	ep, err := n.stack.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, &queue)
	if err != nil {
		return nil, errors.New(err.String())
	}
	ep.SocketOptions().SetBroadcast(true)
	if err := ep.Bind(tcpip.FullAddress{NIC: nic, Port: port}); err != nil {
		ep.Close()
		return nil, errors.New(err.String())
	}
	return gonet.NewUDPConn(&queue, ep), nil
}

// Lease gives DHCP an address for a machine that is new.
func (n *Network) Lease(l Lease) error {
	cfg := n.cfg
	cfg.Leases = []Lease{l}
	if err := cfg.check(); err != nil {
		return err
	}
	n.pool.lend(mac(l.MAC), l.Address)
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
