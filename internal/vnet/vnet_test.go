package vnet

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/miekg/dns"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
)

func network(t *testing.T, change func(*Config)) *Network {
	t.Helper()
	cfg := Config{Subnets: []Subnet{{netip.MustParsePrefix("192.168.50.0/24"), netip.MustParseAddr("192.168.50.1")}}}
	if change != nil {
		change(&cfg)
	}
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if err := n.Close(); err != nil {
			t.Errorf("closed again: %v", err)
		}
	})
	return n
}

func frame(to, from, body string) []byte {
	m := func(s string) []byte {
		hw, err := net.ParseMAC(s)
		if err != nil {
			panic(err)
		}
		return hw
	}
	// A type that is for local experiments (IEEE 802).
	return append(append(append(m(to), m(from)...), 0x88, 0xb5), body...)
}

const (
	macA, macB, macC = "02:00:00:00:00:0a", "02:00:00:00:00:0b", "02:00:00:00:00:0c"
	everybody        = "ff:ff:ff:ff:ff:ff"
)

func TestSwitch(t *testing.T) {
	n := network(t, nil)
	a, b, c := cable(t, n), cable(t, n), cable(t, n)
	heard := func(step string, conn net.Conn, want []byte) {
		t.Helper()
		if got := get(conn, 10*time.Second); !bytes.Equal(got, want) {
			t.Errorf("%s: got %x, want %x", step, got, want)
		}
	}
	// The first frame of each says who is where; it also shows that all are plugged in.
	for _, x := range []struct {
		from net.Conn
		mac  string
		to   []net.Conn
	}{{a, macA, []net.Conn{b, c}}, {b, macB, []net.Conn{a, c}}, {c, macC, []net.Conn{a, b}}} {
		f := frame(everybody, x.mac, "here I am")
		for len(n.ports()) < 4 { // with the gateway's
			time.Sleep(time.Millisecond)
		}
		put(t, x.from, f)
		for _, to := range x.to {
			heard("broadcast", to, f)
		}
	}
	direct := frame(macB, macA, "to B alone")
	put(t, a, direct)
	heard("known address", b, direct)
	// IPv6 finds its neighbours and VRRP its routers by multicast.
	for _, group := range []string{"33:33:ff:00:00:0b", "01:00:5e:00:00:12"} {
		f := frame(group, macA, "to a group")
		put(t, a, f)
		heard("group "+group, b, f)
		heard("group "+group, c, f)
	}
	unknown := frame("02:00:00:00:00:99", macA, "is anybody there?")
	put(t, a, unknown)
	heard("unknown address", b, unknown)
	heard("unknown address", c, unknown)
	put(t, a, []byte("runt")) // is dropped
	put(t, a, frame(macA, macA, "to myself"))
	put(t, a, direct)
	heard("after what is dropped", b, direct)
	if f := get(c, 50*time.Millisecond); f != nil {
		t.Errorf("a third machine heard %x", f)
	}

	// A machine that moves to another port, as one that starts again does.
	_ = b.Close()
	d := cable(t, n)
	for len(n.ports()) != 4 {
		time.Sleep(time.Millisecond)
	}
	put(t, d, frame(everybody, macB, "back"))
	heard("a machine that is back", c, frame(everybody, macB, "back"))
	put(t, c, frame(macB, macC, "hello"))
	heard("a machine that is back", d, frame(macB, macC, "hello"))
}

func (n *Network) ports() []*port {
	n.wire.mu.Lock()
	defer n.wire.mu.Unlock()
	var out []*port
	for p := range n.wire.ports {
		out = append(out, p)
	}
	return out
}

// TestStuckMachine: a machine that takes no frames loses them and stops nobody.
func TestStuckMachine(t *testing.T) {
	n := network(t, nil)
	a, b := cable(t, n), cable(t, n)
	_ = cable(t, n) // is never read
	for len(n.ports()) < 4 {
		time.Sleep(time.Millisecond)
	}
	go func() {
		for i := 0; ; i++ {
			f := frame(everybody, macA, fmt.Sprintf("%09d", i))
			if _, err := a.Write(append([]byte{0, 0, 0, byte(len(f))}, f...)); err != nil {
				return
			}
		}
	}()
	for last := ""; last < fmt.Sprintf("%09d", 3*portQueue); {
		f := get(b, 10*time.Second)
		if f == nil {
			t.Fatalf("nothing after frame %q", last)
		}
		last = string(f[headerLen:])
	}
}

// TestTooLong: a length that no device sends ends the port instead of taking memory.
func TestTooLong(t *testing.T) {
	n := network(t, nil)
	theirs, ours := net.Pipe()
	result := make(chan error)
	go func() { result <- n.Attach(theirs) }()
	if _, err := ours.Write([]byte{0xff, 0xff, 0xff, 0xff}); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err == nil || !strings.Contains(err.Error(), "frame of 4294967295 bytes") {
		t.Error(err)
	}
}

func TestMachines(t *testing.T) {
	n := network(t, func(c *Config) {
		c.Subnets = append(c.Subnets,
			Subnet{netip.MustParsePrefix("10.9.0.0/16"), netip.MustParseAddr("10.9.0.1")},
			Subnet{netip.MustParsePrefix("fd00:76::/64"), netip.MustParseAddr("fd00:76::1")})
	})
	a := boot(t, n, 0xa, "192.168.50.1", "192.168.50.11/24")
	b := boot(t, n, 0xb, "192.168.50.1", "192.168.50.12/24")
	far := boot(t, n, 0xc, "10.9.0.1", "10.9.3.4/16")
	six, seven := boot(t, n, 6, "fd00:76::1", "fd00:76::6/64"), boot(t, n, 7, "fd00:76::1", "fd00:76::7/64")
	b.greets(t, 80, "I am B")
	far.greets(t, 80, "I am far")
	seven.greets(t, 80, "I am seven")

	c, err := a.dial(t, "192.168.50.12:80")
	if got := hears(t, c, err); got != "I am B" {
		t.Errorf("A heard %q", got)
	}
	c, err = six.dial(t, "[fd00:76::7]:80")
	if got := hears(t, c, err); got != "I am seven" {
		t.Errorf("six heard %q", got)
	}
	c, err = a.dial(t, "10.9.3.4:80") // over the gateway
	if got := hears(t, c, err); got != "I am far" {
		t.Errorf("A heard %q", got)
	}

	for want, at := range map[string]netip.AddrPort{"I am B": netip.AddrPortFrom(b.addr, 80), "I am seven": netip.AddrPortFrom(seven.addr, 80)} {
		port, err := n.Forward(at)
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if got := hears(t, c, err); got != want {
			t.Errorf("forwarded: heard %q, want %q", got, want)
		}
	}
	if _, err := n.Forward(); err == nil {
		t.Error("a forward to nothing")
	}
}

// TestBalance: what is sent to the cluster's address reaches a machine that answers,
// from the host and from the network, and another one when that is gone.
func TestBalance(t *testing.T) {
	n := network(t, nil)
	client := boot(t, n, 9, "192.168.50.1", "192.168.50.19/24")
	a := boot(t, n, 0xa, "192.168.50.1", "192.168.50.11/24")
	b := boot(t, n, 0xb, "192.168.50.1", "192.168.50.12/24")
	targets := []netip.AddrPort{netip.AddrPortFrom(a.addr, 6443), netip.AddrPortFrom(b.addr, 6443)}
	port, err := n.Forward(targets...)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{"192.168.50.1:6443", "203.0.113.9:443"} {
		if err := n.Balance(netip.MustParseAddrPort(at), targets...); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(want string) {
		t.Helper()
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if got := hears(t, c, err); got != want {
			t.Errorf("from the host: heard %q, want %q", got, want)
		}
		for _, at := range []string{"192.168.50.1:6443", "203.0.113.9:443"} {
			c, err = client.dial(t, at)
			if got := hears(t, c, err); got != want {
				t.Errorf("from the network, at %s: heard %q, want %q", at, got, want)
			}
		}
	}
	ask("") // nobody is there: the connection ends
	l, err := gonet.ListenTCP(b.stack, fullAddress(targets[1]), protocolOf(b.addr))
	if err != nil {
		t.Fatal(err)
	}
	go greet(l, "I am B")
	ask("I am B")
	_ = l.Close()
	a.greets(t, 6443, "I am A")
	ask("I am A")

	off := netip.MustParseAddrPort("192.168.50.13:6443") // refuses nothing, it is just not there
	if port, err = n.Forward(off, targets[0]); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if got := hears(t, c, err); got != "I am A" {
		t.Errorf("with a machine that is off: heard %q", got)
	}
}

// outside is an address of this host that is none of the loopback's.
func outside(t *testing.T) netip.Addr {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && p.Addr().IsGlobalUnicast() {
			return p.Addr()
		}
	}
	t.Fatal("this test needs a host with an IPv4 address besides 127.0.0.1")
	return netip.Addr{}
}

// TestIsolation: without Internet a machine reaches neither this host nor anything
// behind it, and hears so at once; with it, it does.
func TestIsolation(t *testing.T) {
	host := outside(t)
	l, err := net.Listen("tcp", netip.AddrPortFrom(host, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go greet(l, "I am the host")
	at := l.Addr().String()

	closed := boot(t, network(t, nil), 0xa, "192.168.50.1", "192.168.50.11/24")
	start := time.Now()
	if c, err := closed.dial(t, at); err == nil {
		_ = c.Close()
		t.Error("an isolated machine reaches the host")
	} else if took := time.Since(start); took > 5*time.Second || !strings.Contains(err.Error(), "unreachable") {
		t.Errorf("an isolated machine gets %v after %s, want at once that the network is unreachable", err, took)
	}
	if c, err := closed.dial(t, "192.168.50.1:22"); err == nil {
		_ = c.Close()
		t.Error("the gateway is the host")
	}

	open := network(t, func(c *Config) { c.Internet = true })
	a := boot(t, open, 0xa, "192.168.50.1", "192.168.50.11/24")
	b := boot(t, open, 0xb, "192.168.50.1", "192.168.50.12/24")
	b.greets(t, 80, "I am B")
	c, err := a.dial(t, at)
	if got := hears(t, c, err); got != "I am the host" {
		t.Errorf("heard %q", got)
	}
	c, err = a.dial(t, "192.168.50.12:80") // the gateway does not pretend to be B
	if got := hears(t, c, err); got != "I am B" {
		t.Errorf("heard %q", got)
	}
}

func TestDNS(t *testing.T) {
	elsewhere := netip.MustParseAddr("198.51.100.53")
	n := network(t, func(c *Config) {
		c.Nameservers = []netip.Addr{elsewhere, c.Subnets[0].Gateway}
		c.Hosts = map[string][]netip.Addr{"api.example.org": {netip.MustParseAddr("192.168.50.1"), netip.MustParseAddr("fd00::1")}}
	})
	a := boot(t, n, 0xa, "192.168.50.1", "192.168.50.11/24")
	ask := func(server netip.Addr, proto, name string, kind uint16) *dns.Msg {
		t.Helper()
		at := fullAddress(netip.AddrPortFrom(server, 53))
		var c net.Conn
		var err error
		if proto == "udp" {
			c, err = gonet.DialUDP(a.stack, nil, &at, protocolOf(server))
		} else {
			c, err = a.dial(t, netip.AddrPortFrom(server, 53).String())
		}
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conn := &dns.Conn{Conn: c}
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		if err := conn.WriteMsg(new(dns.Msg).SetQuestion(dns.Fqdn(name), kind)); err != nil {
			t.Fatal(err)
		}
		m, err := conn.ReadMsg()
		if err != nil {
			t.Fatalf("%s at %s over %s: %v", name, server, proto, err)
		}
		return m
	}
	for _, server := range []netip.Addr{netip.MustParseAddr("192.168.50.1"), elsewhere} {
		m := ask(server, "udp", "API.example.org", dns.TypeA)
		if len(m.Answer) != 1 || !strings.HasSuffix(m.Answer[0].String(), "192.168.50.1") {
			t.Errorf("%s: %s", server, m)
		}
		m = ask(server, "tcp", "api.example.org", dns.TypeAAAA)
		if len(m.Answer) != 1 || !strings.HasSuffix(m.Answer[0].String(), "fd00::1") {
			t.Errorf("%s: %s", server, m)
		}
		if m = ask(server, "udp", "api.example.org", dns.TypeMX); m.Rcode != dns.RcodeSuccess || len(m.Answer) != 0 {
			t.Errorf("%s: %s", server, m)
		}
		if m = ask(server, "udp", "debian.org", dns.TypeA); m.Rcode != dns.RcodeNameError {
			t.Errorf("%s: an isolated network knows debian.org: %s", server, m)
		}
	}
}

func TestDHCP(t *testing.T) {
	hw, _ := net.ParseMAC("02:00:00:00:00:44")
	n := network(t, func(c *Config) {
		c.Leases = []Lease{{hw, netip.MustParseAddr("192.168.50.44")}}
		c.Reserved = []netip.Addr{netip.MustParseAddr("192.168.50.2"), netip.MustParseAddr("192.168.50.3")}
	})
	stranger, _ := net.ParseMAC(macA)
	for _, c := range []struct {
		mac  net.HardwareAddr
		want string
	}{{hw, "192.168.50.44"}, {stranger, "192.168.50.4"}} {
		wire := cable(t, n)
		discover, err := dhcpv4.NewDiscovery(c.mac)
		if err != nil {
			t.Fatal(err)
		}
		offer := exchange(t, wire, c.mac, discover)
		request, err := dhcpv4.NewRequestFromOffer(offer)
		if err != nil {
			t.Fatal(err)
		}
		ack := exchange(t, wire, c.mac, request)
		if ack.MessageType() != dhcpv4.MessageTypeAck || ack.YourIPAddr.String() != c.want || ack.Router()[0].String() != "192.168.50.1" ||
			ack.DNS()[0].String() != "192.168.50.1" || net.IP(ack.SubnetMask()).String() != "255.255.255.0" {
			t.Errorf("want %s: %s", c.want, ack.Summary())
		}
	}
}

func TestPool(t *testing.T) {
	c := Config{Leases: []Lease{{net.HardwareAddr{2, 0, 0, 0, 0, 1}, netip.MustParseAddr("10.0.0.2")}}, Reserved: []netip.Addr{netip.MustParseAddr("10.0.0.3")}}
	p := newPool(c, Subnet{netip.MustParsePrefix("10.0.0.0/29"), netip.MustParseAddr("10.0.0.1")})
	for i, want := range []string{"10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6", "invalid IP", "invalid IP"} {
		got, ok := p.address(mac{2, 0, 0, 0, 0, byte(i + 1)})
		if got.String() != want || ok != got.IsValid() {
			t.Errorf("machine %d gets %s, want %s", i+1, got, want)
		}
	}
	if a, _ := p.address(mac{2, 0, 0, 0, 0, 3}); a.String() != "10.0.0.5" {
		t.Errorf("machine 3 gets %s the second time", a)
	}
	ask := func(m ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
		q, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(net.HardwareAddr{2, 0, 0, 0, 0, 3})}, m...)...)
		if err != nil {
			t.Fatal(err)
		}
		return p.answer(q)
	}
	foreign := dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(192, 168, 1, 7)))
	if a := ask(dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), foreign); a == nil || a.MessageType() != dhcpv4.MessageTypeNak {
		t.Errorf("a request for an address of another network: %v", a)
	}
	if a := ask(dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), foreign); a == nil || a.YourIPAddr.String() != "10.0.0.5" {
		t.Errorf("a wish for an address of another network: %v", a)
	}
	if a := ask(dhcpv4.WithMessageType(dhcpv4.MessageTypeRelease)); a != nil {
		t.Errorf("a release: %v", a)
	}
	if a := ask(dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), dhcpv4.WithHwAddr(net.HardwareAddr{2, 0, 0, 0, 0, 99})); a != nil {
		t.Errorf("an empty pool: %v", a)
	}
}

// exchange broadcasts a DHCP message and returns the answer to it.
func exchange(t *testing.T, c net.Conn, from net.HardwareAddr, m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	t.Helper()
	ip := &layers.IPv4{Version: 4, IHL: 5, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.IPv4zero, DstIP: net.IPv4bcast}
	udp := &layers.UDP{SrcPort: 68, DstPort: 67}
	if err := udp.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: from, DstMAC: layers.EthernetBroadcast, EthernetType: layers.EthernetTypeIPv4}, ip, udp, gopacket.Payload(m.ToBytes()))
	if err != nil {
		t.Fatal(err)
	}
	put(t, c, buf.Bytes())
	for {
		f := get(c, 10*time.Second)
		if f == nil {
			t.Fatal("no answer from DHCP")
		}
		p := gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.Default)
		u, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
		if !ok || u.DstPort != 68 {
			continue
		}
		answer, err := dhcpv4.FromBytes(u.Payload)
		if err != nil {
			t.Fatal(err)
		}
		if answer.TransactionID == m.TransactionID {
			return answer
		}
	}
}

func TestConfig(t *testing.T) {
	v4 := Subnet{netip.MustParsePrefix("192.168.50.0/24"), netip.MustParseAddr("192.168.50.1")}
	v6 := Subnet{netip.MustParsePrefix("fd00::/64"), netip.MustParseAddr("fd00::1")}
	hw, _ := net.ParseMAC(macA)
	for want, c := range map[string]Config{
		"there is no subnet":              {},
		"of one address family":           {Subnets: []Subnet{{v4.Prefix, v6.Gateway}}},
		"one subnet, not 2":               {Subnets: []Subnet{v4, v6}, Internet: true},
		"cannot give 10.0.0.1":            {Subnets: []Subnet{v4}, Leases: []Lease{{hw, netip.MustParseAddr("10.0.0.1")}}},
		"cannot give 192.168.50.9 to ":    {Subnets: []Subnet{v4}, Leases: []Lease{{nil, netip.MustParseAddr("192.168.50.9")}}},
		"a name server without address":   {Subnets: []Subnet{v4}, Nameservers: make([]netip.Addr, 1)},
		"cannot give fd00::9 to 02:00:00": {Subnets: []Subnet{v6}, Leases: []Lease{{hw, netip.MustParseAddr("fd00::9")}}},
	} {
		n, err := New(c)
		if err == nil {
			_ = n.Close()
			t.Errorf("%+v is taken", c)
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
