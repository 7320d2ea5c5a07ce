package vnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

const (
	nic = tcpip.NICID(1)
	mtu = 1500
)

// gatewayMAC is the gateway's Ethernet address, a locally administered one.
var gatewayMAC = mac{0x02, 'k', 'i', 'l', 'n', 0x01}

// Network is a running network.
type Network struct {
	cfg   Config
	wire  *lan
	stack *stack.Stack
	link  *channel.Endpoint
	pool  *pool // of DHCP; nil without a subnet of IPv4

	stop    chan struct{}
	cancel  context.CancelFunc
	ctx     context.Context
	wg      sync.WaitGroup
	mu      sync.Mutex
	own     map[netip.Addr]bool // the gateway's addresses
	closers []io.Closer
	closed  bool
}

// New starts a network. Close ends it.
func New(cfg Config) (*Network, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	n := &Network{cfg: cfg, wire: newLAN(), stop: make(chan struct{}), own: map[netip.Addr]bool{}}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	if err := n.start(); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func (n *Network) start() error {
	n.link = channel.New(portQueue, mtu+headerLen, tcpip.LinkAddress(gatewayMAC[:]))
	n.stack = stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{
			ipv4.NewProtocol, arp.NewProtocol,
			// The gateway's addresses are chosen so that nobody else has them: there is
			// nothing to detect, and they work at once.
			ipv6.NewProtocolWithOptions(ipv6.Options{DADConfigs: stack.DADConfigurations{}}),
		},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
	})
	sack := tcpip.TCPSACKEnabled(true) // a full queue drops frames
	if err := n.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &sack); err != nil {
		return fmt.Errorf("network: TCP: %s", err)
	}
	if err := n.stack.CreateNIC(nic, ethernet.New(n.link)); err != nil {
		return fmt.Errorf("network: %s", err)
	}
	p := &port{only: &gatewayMAC, deliver: func(frame []byte) {
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame)})
		n.link.InjectInbound(0, pkt)
		pkt.DecRef()
	}}
	n.wire.plug(p)
	n.wg.Go(func() { n.send(p) })

	routes := []tcpip.Route{{Destination: header.IPv6LinkLocalPrefix.Subnet(), NIC: nic}}
	for _, s := range n.cfg.Subnets {
		if err := n.addAddress(s.Gateway, s.Prefix.Bits()); err != nil {
			return err
		}
		routes = append(routes, tcpip.Route{Destination: subnetOf(s.Prefix), NIC: nic})
	}
	n.stack.SetRouteTable(routes)
	// A router: it forwards between its subnets, and says of everything else that
	// there is no way, so that nobody waits for an answer.
	for _, proto := range []tcpip.NetworkProtocolNumber{ipv4.ProtocolNumber, ipv6.ProtocolNumber} {
		if err := n.stack.SetForwardingDefaultAndAllNICs(proto, true); err != nil {
			return fmt.Errorf("network: forwarding: %s", err)
		}
	}
	if n.cfg.Internet {
		if err := n.openInternet(); err != nil {
			return err
		}
	}
	if err := n.serveDNS(); err != nil {
		return err
	}
	return n.serveDHCP()
}

// addAddress gives the gateway an address that it does not have yet.
func (n *Network) addAddress(a netip.Addr, bits int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.own[a] {
		return nil
	}
	err := n.stack.AddProtocolAddress(nic, tcpip.ProtocolAddress{
		Protocol:          protocolOf(a),
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: tcpip.AddrFromSlice(a.AsSlice()), PrefixLen: bits},
	}, stack.AddressProperties{})
	if err != nil {
		return fmt.Errorf("network: address %s: %s", a, err)
	}
	n.own[a] = true
	return nil
}

// send brings what the gateway's stack sends to the switch.
func (n *Network) send(p *port) {
	for {
		pkt := n.link.ReadContext(n.ctx)
		if pkt == nil {
			return
		}
		view := pkt.ToView()
		frame := append([]byte(nil), view.AsSlice()...)
		view.Release()
		pkt.DecRef()
		if !n.claimsForeign(frame) {
			n.wire.forward(p, frame)
		}
	}
}

// claimsForeign reports whether a frame answers for an address that is not the
// gateway's. With a way to the Internet the stack takes packets to any address, and
// would answer ARP and neighbour solicitations for all of them.
func (n *Network) claimsForeign(frame []byte) bool {
	if !n.cfg.Internet || len(frame) < headerLen {
		return false
	}
	body := frame[headerLen:]
	var claimed netip.Addr
	switch header.Ethernet(frame).Type() {
	case header.ARPProtocolNumber:
		a := header.ARP(body)
		if !a.IsValid() || a.Op() != header.ARPReply {
			return false
		}
		claimed, _ = netip.AddrFromSlice(a.ProtocolAddressSender())
	case header.IPv6ProtocolNumber:
		ip := header.IPv6(body)
		if !ip.IsValid(len(body)) || ip.TransportProtocol() != header.ICMPv6ProtocolNumber {
			return false
		}
		msg := header.ICMPv6(ip.Payload())
		if len(msg) < header.ICMPv6NeighborAdvertMinimumSize || msg.Type() != header.ICMPv6NeighborAdvert {
			return false
		}
		target := header.NDPNeighborAdvert(msg.MessageBody()).TargetAddress()
		claimed, _ = netip.AddrFromSlice(target.AsSlice())
	default:
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.own[claimed]
}

// Attach carries a machine's frames over conn, as QEMU's "-netdev stream" does,
// until the connection or the network ends.
func (n *Network) Attach(conn net.Conn) error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return errors.Join(net.ErrClosed, conn.Close())
	}
	n.wg.Add(1)
	n.mu.Unlock()
	defer n.wg.Done()
	return n.wire.attach(conn, n.stop)
}

// serve runs each function until Close closes c, which ends them.
func (n *Network) serve(c io.Closer, functions ...func()) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return errors.Join(net.ErrClosed, c.Close())
	}
	n.closers = append(n.closers, c)
	for _, f := range functions {
		n.wg.Go(f)
	}
	return nil
}

// Close ends the network: the machines lose their link, and forwarded ports close.
func (n *Network) Close() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil
	}
	n.closed = true
	closers := n.closers
	n.mu.Unlock()
	var errs []error
	for _, c := range closers {
		if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	close(n.stop)
	n.cancel()
	n.wire.close()
	if n.stack != nil {
		n.stack.Close() // ends every connection through the gateway
	}
	n.wg.Wait()
	if n.stack != nil {
		n.link.Close()
		n.stack.Wait()
	}
	return errors.Join(errs...)
}

func protocolOf(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

func subnetOf(p netip.Prefix) tcpip.Subnet {
	return tcpip.AddressWithPrefix{Address: tcpip.AddrFromSlice(p.Addr().AsSlice()), PrefixLen: p.Bits()}.Subnet()
}

func fullAddress(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFromSlice(a.Addr().AsSlice()), Port: a.Port()}
}
