package vnet

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
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

// cable plugs into the network what a test then holds the other end of.
func cable(t *testing.T, n *Network) net.Conn {
	t.Helper()
	theirs, ours := net.Pipe()
	go func() { _ = n.Attach(theirs) }()
	t.Cleanup(func() { _ = ours.Close() })
	return ours
}

// put sends a frame as QEMU does.
func put(t *testing.T, c net.Conn, frame []byte) {
	t.Helper()
	if err := c.SetWriteDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)); err != nil {
		t.Fatalf("sending a frame: %v", err)
	}
}

// get receives a frame, or nil when the connection ends or nothing comes for a while.
func get(c net.Conn, wait time.Duration) []byte {
	_ = c.SetReadDeadline(time.Now().Add(wait))
	var size [4]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil
	}
	frame := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(c, frame); err != nil {
		return nil
	}
	return frame
}

// guest is a machine with a real IP stack.
type guest struct {
	stack *stack.Stack
	addr  netip.Addr
}

// boot plugs in a machine with static addresses and a route over a gateway.
func boot(t *testing.T, n *Network, number byte, gateway string, prefixes ...string) *guest {
	t.Helper()
	conn := cable(t, n)
	link := channel.New(256, mtu+headerLen, tcpip.LinkAddress([]byte{0x02, 0, 0, 0, 0, number}))
	s := stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{
			ipv4.NewProtocol, arp.NewProtocol, ipv6.NewProtocolWithOptions(ipv6.Options{DADConfigs: stack.DADConfigurations{}}),
		},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
	})
	must := func(err tcpip.Error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.CreateNIC(nic, ethernet.New(link)))
	var routes []tcpip.Route
	g := &guest{stack: s}
	for _, text := range prefixes {
		p := netip.MustParsePrefix(text)
		g.addr = p.Addr()
		must(s.AddProtocolAddress(nic, tcpip.ProtocolAddress{
			Protocol:          protocolOf(p.Addr()),
			AddressWithPrefix: tcpip.AddressWithPrefix{Address: tcpip.AddrFromSlice(p.Addr().AsSlice()), PrefixLen: p.Bits()},
		}, stack.AddressProperties{}))
		routes = append(routes, tcpip.Route{Destination: subnetOf(p.Masked()), NIC: nic})
	}
	if gateway != "" {
		everywhere := header.IPv4EmptySubnet
		gw := netip.MustParseAddr(gateway)
		if gw.Is6() {
			everywhere = header.IPv6EmptySubnet
		}
		routes = append(routes, tcpip.Route{Destination: everywhere, Gateway: tcpip.AddrFromSlice(gw.AsSlice()), NIC: nic})
	}
	s.SetRouteTable(routes)

	ctx, cancel := context.WithCancel(context.Background())
	sent, received := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(sent)
		for {
			pkt := link.ReadContext(ctx)
			if pkt == nil {
				return
			}
			frame := pkt.ToView().AsSlice()
			_, err := conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...))
			pkt.DecRef()
			if err != nil {
				return
			}
		}
	}()
	go func() {
		defer close(received)
		for {
			frame := get(conn, time.Hour)
			if frame == nil {
				return
			}
			pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame)})
			link.InjectInbound(0, pkt)
			pkt.DecRef()
		}
	}()
	t.Cleanup(func() {
		cancel()
		_ = conn.Close()
		<-sent
		<-received
		s.Close()
		link.Close()
		s.Wait()
	})
	return g
}

// dial connects to a TCP port from the guest.
func (g *guest) dial(t *testing.T, to string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	at := netip.MustParseAddrPort(to)
	return gonet.DialContextTCP(ctx, g.stack, fullAddress(at), protocolOf(at.Addr()))
}

// greets serves a TCP port: every connection gets the text.
func (g *guest) greets(t *testing.T, port uint16, text string) netip.AddrPort {
	t.Helper()
	at := netip.AddrPortFrom(g.addr, port)
	l, err := gonet.ListenTCP(g.stack, fullAddress(at), protocolOf(g.addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go greet(l, text)
	return at
}

func greet(l net.Listener, text string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, text)
		_ = c.Close()
	}
}

// hears reads a connection to its end.
func hears(t *testing.T, c net.Conn, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
