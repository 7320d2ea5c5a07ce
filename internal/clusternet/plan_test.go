package clusternet

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/internal/vnet"
)

// parse reads the nodes of a cluster file; other settings may come first.
func parse(t *testing.T, text string) *spec.Cluster {
	t.Helper()
	c, mistakes := spec.Parse("cluster.yaml", []byte("apiVersion: kiln-os.dev/v1alpha1\nkind: Cluster\nname: t\n"+text),
		spec.Known{Profiles: []string{"p"}, Versions: []string{spec.DefaultKubernetesVersion}})
	if len(mistakes) != 0 {
		t.Fatalf("%v\n%s", mistakes, text)
	}
	return c
}

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func TestPlan(t *testing.T) {
	const static = `controlPlaneEndpoint: 10.1.0.50
nodes:
  - {name: c1, role: control-plane, profile: p, address: 10.1.0.11/24, gateway: 10.1.0.1, nameservers: [10.1.0.3, 192.0.2.53]}
  - {name: c2, role: control-plane, profile: p, address: 10.1.0.12/24, gateway: 10.1.0.1, nameservers: [192.0.2.53, 10.1.0.11]}
  - {name: w1, role: worker, profile: p, interface: {mac: "52:54:00:00:00:01"}}
`
	p, err := NewPlan(parse(t, static))
	if err != nil {
		t.Fatal(err)
	}
	if want := []vnet.Subnet{{Prefix: netip.MustParsePrefix("10.1.0.0/24"), Gateway: netip.MustParseAddr("10.1.0.1")}}; !reflect.DeepEqual(p.Config.Subnets, want) {
		t.Errorf("subnets %v", p.Config.Subnets)
	}
	if want := addrs("10.1.0.3", "192.0.2.53"); !reflect.DeepEqual(p.Config.Nameservers, want) {
		t.Errorf("name servers %v, want %v: 10.1.0.11 is a node", p.Config.Nameservers, want)
	}
	if want := addrs("10.1.0.11", "10.1.0.12"); !reflect.DeepEqual(p.Config.Reserved, want) {
		t.Errorf("reserved %v", p.Config.Reserved)
	}
	w, _ := p.Node("w1")
	if len(p.Config.Leases) != 1 || w.MAC.String() != "52:54:00:00:00:01" || !w.DHCP || p.Config.Leases[0].Address != w.Address || !p.Config.Subnets[0].Prefix.Contains(w.Address) {
		t.Errorf("w1 %+v, leases %v", w, p.Config.Leases)
	}
	if cps := p.ControlPlanes(); len(cps) != 2 || cps[1].String() != "10.1.0.12:6443" || p.Endpoint.IsValid() {
		t.Errorf("control planes %v, endpoint %s", cps, p.Endpoint)
	}
	c1, _ := p.Node("c1")
	c2, _ := p.Node("c2")
	if c1.MAC[0] != 2 || len(c1.MAC) != 6 || c1.MAC.String() == c2.MAC.String() {
		t.Errorf("addresses %s and %s", c1.MAC, c2.MAC)
	}
	again, err := NewPlan(parse(t, static))
	if err != nil || !reflect.DeepEqual(p, again) {
		t.Errorf("the same file gives another network: %v", err)
	}
	if _, ok := p.Node("w2"); ok {
		t.Error("there is no w2")
	}
}

func TestEndpoint(t *testing.T) {
	const nodes = `nodes:
  - {name: c1, role: control-plane, profile: p, address: 10.1.0.11/24, gateway: 10.1.0.1}
`
	for _, c := range []struct{ endpoint, at, host string }{
		{"10.1.0.11", "invalid AddrPort", ""},
		{"10.1.0.50:6443", "invalid AddrPort", ""}, // one that control planes share
		{"198.51.100.7:443", "198.51.100.7:443", ""},
		{"api.example.org:8443", "10.1.0.1:8443", "api.example.org"},
		{`"[fd00::7]:6443"`, "[fd00::7]:6443", ""},
	} {
		p, err := NewPlan(parse(t, "controlPlaneEndpoint: "+c.endpoint+"\n"+nodes))
		if err != nil {
			t.Fatal(err)
		}
		if p.Endpoint.String() != c.at || c.host != "" && !reflect.DeepEqual(p.Config.Hosts[c.host], addrs("10.1.0.1")) {
			t.Errorf("%s: at %s, names %v", c.endpoint, p.Endpoint, p.Config.Hosts)
		}
	}
}

func TestNoAddresses(t *testing.T) {
	const nodes = "nodes:\n  - {name: c1, role: control-plane, profile: p}\n  - {name: w1, role: worker, profile: p}\n"
	for _, c := range []struct{ before, subnet, c1 string }{
		{"controlPlaneEndpoint: api.example.org\n", "192.168.127.0/24", ""},
		{"controlPlaneEndpoint: 10.7.7.1\n", "10.7.7.0/24", "10.7.7.1"},
		{"controlPlaneEndpoint: 10.7.7.9\n", "10.7.7.0/24", "10.7.7.9"},
		{"controlPlaneEndpoint: api.example.org\nnetwork: {podSubnets: [192.168.0.0/16]}\n", "10.127.127.0/24", ""},
	} {
		p, err := NewPlan(parse(t, c.before+nodes))
		if err != nil {
			t.Fatal(err)
		}
		s := p.Config.Subnets
		if len(s) != 1 || s[0].Prefix.String() != c.subnet || !s[0].Prefix.Contains(s[0].Gateway) {
			t.Errorf("%q: subnets %v", c.before, s)
		}
		seen := map[netip.Addr]bool{s[0].Gateway: true}
		for _, n := range p.Nodes {
			if !n.DHCP || seen[n.Address] || !s[0].Prefix.Contains(n.Address) {
				t.Errorf("%q: %+v of %v", c.before, n, p.Nodes)
			}
			seen[n.Address] = true
		}
		if c.c1 != "" && p.Nodes[0].Address.String() != c.c1 {
			t.Errorf("%q: c1 has %s", c.before, p.Nodes[0].Address)
		}
		if p.Config.Leases[0].MAC.String() != p.Nodes[0].MAC.String() {
			t.Errorf("leases %v of %v", p.Config.Leases, p.Nodes)
		}
	}
	full := "controlPlaneEndpoint: api.example.org\nnetwork: {podSubnets: [10.0.0.0/8], serviceSubnets: [192.168.0.0/16]}\n"
	cl := parse(t, strings.Replace(full, "10.0.0.0/8", "10.112.0.0/12", 1)+nodes)
	cl.Network.PodSubnets = append(cl.Network.PodSubnets, netip.MustParsePrefix("172.16.0.0/12"))
	if _, err := NewPlan(cl); err == nil || !strings.Contains(err.Error(), "give the nodes addresses") {
		t.Error(err)
	}
}

// TestNodeIsGateway: a node that routes keeps its address.
func TestNodeIsGateway(t *testing.T) {
	p, err := NewPlan(parse(t, `nodes:
  - {name: c1, role: control-plane, profile: p, address: 10.1.0.1/24, gateway: 10.1.0.2}
  - {name: w1, role: worker, profile: p, address: 10.1.0.2/24, gateway: 10.1.0.1}
`))
	if err != nil {
		t.Fatal(err)
	}
	if s := p.Config.Subnets; len(s) != 1 || s[0].Gateway.String() != "10.1.0.3" {
		t.Errorf("subnets %v", s)
	}
	cl := parse(t, "nodes:\n  - {name: c1, role: control-plane, profile: p, address: 10.1.0.0/31, gateway: 10.1.0.1}\n")
	cl.Nodes[0].Gateway = netip.Addr{}
	p, err = NewPlan(cl)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := vnet.New(p.Config); err == nil {
		t.Error("a subnet without room for the gateway is taken")
	}
}
