package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/phase"
)

func TestNetworkFault(t *testing.T) {
	device := func(n string, link bool, addresses ...string) host.NetworkDevice {
		d := host.NetworkDevice{Name: "eth" + n, MAC: "52:54:00:00:00:0" + n, Link: link}
		for _, a := range addresses {
			d.Addresses = append(d.Addresses, netip.MustParsePrefix(a))
		}
		return d
	}
	const static = "10.0.2.15"
	broken := errors.New("/proc/net/route: line has 3 fields")
	for _, c := range []struct {
		name    string
		devices []host.NetworkDevice
		static  string
		err     error
		want    string
	}{
		{"no device", nil, "", host.ErrNoDefaultRoute, "this machine has no network device: none is plugged in, or the image has no driver for it"},
		{"no device, static", nil, static, host.CheckLocal(netip.MustParseAddr("192.0.2.1")), "this machine has no network device: none is plugged in, or the image has no driver for it"},
		{"no cable", []host.NetworkDevice{device("0", false), device("1", false)}, "", host.ErrNoDefaultRoute,
			"no link at eth0 (52:54:00:00:00:00), eth1 (52:54:00:00:00:01): plug in the cable, or look at the switch's port"},
		{"no wireless network", []host.NetworkDevice{device("0", false), {Name: "wlan0", MAC: "52:54:00:00:00:09", Wireless: true}}, "", host.ErrNoDefaultRoute,
			"no link at eth0 (52:54:00:00:00:00), wlan0 (52:54:00:00:00:09): plug in the cable, or look at the switch's port; on Wi-Fi look at wifi in the cluster file, and whether the network is within reach"},
		{"no DHCP server", []host.NetworkDevice{device("0", false), device("1", true)}, "", host.ErrNoDefaultRoute,
			"no address at eth1 (52:54:00:00:00:01): no DHCP server has answered there; it is asked until one does"},
		{"an address that is left without a cable", []host.NetworkDevice{device("0", false, "10.0.2.15/24"), device("1", true)}, "", host.ErrNoDefaultRoute,
			"no address at eth1 (52:54:00:00:00:01): no DHCP server has answered there; it is asked until one does"},
		{"no router", []host.NetworkDevice{device("0", true, "10.0.2.15/24", "fd00::15/64")}, "", host.ErrNoDefaultRoute,
			"no default route at eth0 (52:54:00:00:00:00) with 10.0.2.15/24 and fd00::15/64: the DHCP server names no router; it is asked again every minute. Correct it, or give the node an address and a gateway in the cluster file"},
		{"another interface than the cluster file's", []host.NetworkDevice{device("0", true), device("1", true, "10.0.9.7/24")}, static, errors.New("no interface has the address 10.0.2.15"),
			"no interface has the address 10.0.2.15; linked: eth0 (52:54:00:00:00:00), eth1 (52:54:00:00:00:01); addresses: eth1 (52:54:00:00:00:01) with 10.0.9.7/24. The node's interface in the cluster file must match one of them"},
		{"static and not there yet", []host.NetworkDevice{device("0", true)}, static, errors.New("no interface has the address 10.0.2.15"),
			"no interface has the address 10.0.2.15; linked: eth0 (52:54:00:00:00:00); addresses: none. The node's interface in the cluster file must match one of them"},
		{"something else", []host.NetworkDevice{device("0", true, "10.0.2.15/24")}, "", broken, broken.Error()},
	} {
		t.Run(c.name, func(t *testing.T) {
			var addr netip.Addr
			if c.static != "" {
				addr = netip.MustParseAddr(c.static)
			}
			if got := networkFault(c.devices, addr, c.err).Error(); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// TestRenewal: a DHCP server that named no router is asked again, once a minute, at
// each device that has an address of it.
func TestRenewal(t *testing.T) {
	var now time.Time
	var asked []string
	refused := errors.New("the bus is gone")
	r := routerRequest{every: time.Minute, now: func() time.Time { return now }, ask: func(_ context.Context, device string) error {
		asked = append(asked, device)
		if len(asked) > 2 {
			return refused
		}
		return nil
	}}
	lease := []netip.Prefix{netip.MustParsePrefix("10.0.2.15/24")}
	devices := []host.NetworkDevice{
		{Name: "eth0", Link: true, Addresses: lease}, {Name: "eth1", Link: true}, {Name: "eth2", Addresses: lease}, {Name: "eth3", Link: true, Addresses: lease},
	}
	for second := range 150 {
		now = time.Unix(int64(second), 0)
		if err := r.due(t.Context(), devices, host.ErrNoDefaultRoute); (err != nil) != (second == 120) || err != nil && !errors.Is(err, refused) {
			t.Fatalf("second %d: %v", second, err)
		}
		if want := second / 60 * 2; len(asked) != want {
			t.Fatalf("second %d: asked at %v, want %d", second, asked, want)
		}
	}
	if got := strings.Join(asked, " "); got != "eth0 eth3 eth0 eth3" {
		t.Error(got)
	}
	asked, r.last = nil, time.Time{}
	for second := range 150 {
		now = time.Unix(int64(second), 0)
		if err := r.due(t.Context(), devices, errors.New("no interface has the address 10.0.2.16")); err != nil || asked != nil {
			t.Fatalf("a static address is asked for: %v, %v", asked, err)
		}
	}
}

func TestNameFault(t *testing.T) {
	servers := []netip.Addr{netip.MustParseAddr("10.0.2.3"), netip.MustParseAddr("fd00::3")}
	const name, of = "api.example.com", "It is the cluster's controlPlaneEndpoint"
	for _, c := range []struct {
		servers []netip.Addr
		err     error
		want    string
	}{
		{nil, errors.New("x"), "the node has no name server; let DHCP name one, or set nameservers in the cluster file"},
		{servers, &net.DNSError{IsNotFound: true}, "name server 10.0.2.3, fd00::3 does not know it. " + of + ": add a record that leads to the control plane"},
		{servers, &net.DNSError{IsTimeout: true}, "no answer from name server 10.0.2.3, fd00::3. " + of},
		{servers, &net.DNSError{Err: "server misbehaving"}, "name server 10.0.2.3, fd00::3: server misbehaving. " + of},
		{servers, errors.New("boom"), "name server 10.0.2.3, fd00::3: boom"},
	} {
		if got, want := nameFault(name, c.servers, c.err).Error(), name+" does not resolve: "+c.want; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// nameServer answers on a loopback address, and knows the name once it is told so.
func nameServer(t *testing.T) (addr netip.AddrPort, known *atomic.Bool) {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	known = new(atomic.Bool)
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil { // closed
				return
			}
			var m dnsmessage.Message
			if err := m.Unpack(buf[:n]); err != nil || len(m.Questions) != 1 {
				t.Errorf("question: %v", err)
				return
			}
			q := m.Questions[0]
			answer := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true, RCode: dnsmessage.RCodeNameError}, Questions: m.Questions}
			if known.Load() {
				answer.RCode = dnsmessage.RCodeSuccess
				if q.Type == dnsmessage.TypeA {
					answer.Answers = []dnsmessage.Resource{{
						Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60},
						Body:   &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}},
					}}
				}
			}
			out, err := answer.Pack()
			if err == nil {
				_, err = c.WriteTo(out, from)
			}
			if err != nil {
				t.Errorf("answer: %v", err)
				return
			}
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort(), known
}

// TestResolver asks a real server: a record that is added is seen at the next
// question, whatever was answered before.
func TestResolver(t *testing.T) {
	addr, known := nameServer(t)
	servers := []netip.Addr{addr.Addr()}
	_, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	const name = "api.kiln-unknown.example."
	_, err = resolver(servers, port).LookupHost(ctx, name)
	if err == nil || !strings.Contains(nameFault(name, servers, err).Error(), "does not know it") {
		t.Fatalf("a name that no server knows: %v", err)
	}
	known.Store(true)
	if got, err := resolver(servers, port).LookupHost(ctx, name); err != nil || len(got) != 1 || got[0] != "192.0.2.1" {
		t.Errorf("once there is a record: %v, %v", got, err)
	}
	// This host's own names need no server.
	if _, err := resolver(nil, port).LookupHost(ctx, "localhost"); err != nil {
		t.Error(err)
	}
}

func TestWaitForEndpoint(t *testing.T) {
	paths := host.Paths{Root: t.TempDir()}
	plan := func(endpoint string) bootplan.Plan {
		return bootplan.Plan{Cluster: bootplan.Cluster{ControlPlaneEndpoint: endpoint}, Timeouts: bootplan.Timeouts{Network: bootplan.Duration(10 * time.Millisecond)}}
	}
	wait := func(endpoint string) (string, error) {
		var out bytes.Buffer
		err := waitForEndpoint(t.Context(), plan(endpoint), paths, phase.NewPrinter(&out))
		return out.String(), err
	}
	// Nothing to resolve.
	for _, e := range []string{"", "192.0.2.1", "[fd00::1]:6443", "localhost:6443"} {
		if out, err := wait(e); err != nil || out != "" {
			t.Errorf("%q: %v, %q", e, err, out)
		}
	}
	if _, err := wait("a:b:c"); !errors.As(err, new(planError)) {
		t.Errorf("an endpoint that is none: %v", err)
	}
	// It gives up after its bound, and the unit starts it again.
	file := paths.ResolvConf()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("nameserver 127.0.0.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := wait("api.kiln-unknown.invalid")
	if err == nil || errors.As(err, new(planError)) || !strings.Contains(err.Error(), "waited 0s for the name api.kiln-unknown.invalid: api.kiln-unknown.invalid does not resolve: ") {
		t.Errorf("a name that does not resolve: %v", err)
	}
}

// TestWaitingIsOnTheScreen: what the console says of a fault, the login screen says too.
func TestWaitingIsOnTheScreen(t *testing.T) {
	s, shown := testScreen(t)
	var out bytes.Buffer
	r := onScreen{phase.NewPrinter(&out), s}
	r.Waiting("a default route", 90*time.Second, 30*time.Minute, errors.New("this machine has no network device"))
	if got, want := shown(), head+"  state       first boot: waiting for a default route\n  last error  this machine has no network device\n"+tail; got != want {
		t.Errorf("screen:\n%s\nwant:\n%s", got, want)
	}
	if got, want := out.String(), "waiting for a default route (1m30s of 30m): this machine has no network device\n"; got != want {
		t.Errorf("console: %q, want %q", got, want)
	}
	r.Waiting("the name api.example.com", 0, time.Minute, nil)
	if got, want := shown(), head+"  state       first boot: waiting for the name api.example.com\n"+tail; got != want {
		t.Errorf("screen:\n%s\nwant:\n%s", got, want)
	}
}
