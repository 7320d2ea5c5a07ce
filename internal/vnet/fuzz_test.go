package vnet

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/miekg/dns"
)

// FuzzFrames gives the switch and the gateway behind it what a machine may send.
func FuzzFrames(f *testing.F) {
	whole := func(frames ...[]byte) []byte {
		var out []byte
		for _, b := range frames {
			out = append(binary.BigEndian.AppendUint32(out, uint32(len(b))), b...)
		}
		return out
	}
	f.Add(whole(frame(everybody, macA, "hello"), []byte("runt")))
	// Who has 192.168.50.1? Tell 192.168.50.11.
	f.Add(whole([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x0a\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01\x02\x00\x00\x00\x00\x0a\xc0\xa8\x32\x0b\x00\x00\x00\x00\x00\x00\xc0\xa8\x32\x01")))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add(whole(append(append([]byte(nil), gatewayMAC[:]...), "\x02\x00\x00\x00\x00\x0a\x86\xdd\x60\x00\x00\x00\x00\x00\x3a\xff"...)))
	// Without Internet: a fuzzer must not open connections from this host.
	n, err := New(Config{Subnets: []Subnet{
		{netip.MustParsePrefix("192.168.50.0/24"), netip.MustParseAddr("192.168.50.1")},
		{netip.MustParsePrefix("fd00:76::/64"), netip.MustParseAddr("fd00:76::1")},
	}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = n.Close() })
	from, other := &port{deliver: func([]byte) {}}, &port{deliver: func([]byte) {}}
	n.wire.plug(from)
	n.wire.plug(other)
	open := Network{cfg: Config{Internet: true}, own: n.own}
	f.Fuzz(func(t *testing.T, stream []byte) {
		_ = n.wire.readFrames(bytes.NewReader(stream), from)
		open.claimsForeign(stream)
	})
}

// FuzzDNS gives the resolver what a machine may ask.
func FuzzDNS(f *testing.F) {
	for _, name := range []string{"api.example.org.", ".", "debian.org."} {
		b, err := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	r := &resolver{hosts: map[string][]netip.Addr{"api.example.org": {netip.MustParseAddr("192.0.2.1")}}}
	f.Fuzz(func(t *testing.T, b []byte) {
		q := new(dns.Msg)
		if q.Unpack(b) != nil {
			return
		}
		for _, network := range []string{"udp", "tcp"} {
			a := r.answer(q, network)
			a.Truncate(dns.MinMsgSize)
			if a.Id != q.Id || !a.Response {
				t.Errorf("answer %s to %s", a, q)
			}
		}
	})
}

// FuzzDHCP gives the pool what a machine may ask for.
func FuzzDHCP(f *testing.F) {
	discover, err := dhcpv4.NewDiscovery(net.HardwareAddr{2, 0, 0, 0, 0, 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(discover.ToBytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := dhcpv4.FromBytes(b)
		if err != nil {
			return
		}
		p := newPool(Config{}, Subnet{netip.MustParsePrefix("10.0.0.0/29"), netip.MustParseAddr("10.0.0.1")})
		if a := p.answer(m); a != nil {
			if _, err := dhcpv4.FromBytes(a.ToBytes()); err != nil {
				t.Errorf("the answer to %s cannot be read: %v", m, err)
			}
		}
	})
}
