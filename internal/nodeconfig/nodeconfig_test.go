package nodeconfig

import (
	"net/netip"
	"testing"

	"github.com/kiln-os/kiln/internal/bootplan"
)

func TestServiceAddresses(t *testing.T) {
	for _, c := range []struct{ cidr, api, dns string }{
		{"10.96.0.0/12", "10.96.0.1", "10.96.0.10"},
		{"10.96.0.255/24", "10.96.0.1", "10.96.0.10"},
		{"fd00:10:96::/112", "fd00:10:96::1", "fd00:10:96::a"},
	} {
		cfg := Config{Plan: bootplan.Plan{Cluster: bootplan.Cluster{ServiceSubnets: []string{c.cidr}}}}
		api, err1 := cfg.APIServiceIP()
		dns, err2 := cfg.DNSServiceIP()
		if err1 != nil || err2 != nil || api.String() != c.api || dns.String() != c.dns {
			t.Errorf("%s: %v %v %v %v", c.cidr, api, err1, dns, err2)
		}
	}
	cfg := Config{Plan: bootplan.Plan{Cluster: bootplan.Cluster{ServiceSubnets: []string{"10.0.0.0/30"}}}}
	if a, err := cfg.DNSServiceIP(); err == nil {
		t.Errorf("a /30 has a tenth address: %v", a)
	}
}

func TestEndpoints(t *testing.T) {
	cfg := Config{AdvertiseAddress: netip.MustParseAddr("fd00::5")}
	if got := cfg.ControlPlaneEndpoint(); got != "[fd00::5]:6443" {
		t.Errorf("without an endpoint: %s", got)
	}
	cfg.Plan.Cluster.ControlPlaneEndpoint = "api.example"
	if got := cfg.ControlPlaneEndpoint(); got != "api.example:6443" {
		t.Errorf("endpoint without a port: %s", got)
	}
	if got := cfg.LocalAPIEndpoint(); got != "[fd00::5]:6443" {
		t.Errorf("local endpoint: %s", got)
	}
}

func TestFamilies(t *testing.T) {
	for _, tc := range []struct {
		pods, services []string
		v6First, both  bool
	}{
		{[]string{"10.244.0.0/16"}, []string{"10.96.0.0/12"}, false, false},
		{[]string{"fd00:1::/56"}, []string{"fd00:2::/112"}, true, false},
		{[]string{"10.244.0.0/16", "fd00:1::/56"}, []string{"10.96.0.0/12", "fd00:2::/112"}, false, true},
		{[]string{"fd00:1::/56", "10.244.0.0/16"}, []string{"fd00:2::/112"}, true, true},
	} {
		c := Config{Plan: bootplan.Plan{Cluster: bootplan.Cluster{PodSubnets: tc.pods, ServiceSubnets: tc.services}}}
		if v6, both := c.Families(); v6 != tc.v6First || both != tc.both {
			t.Errorf("%v %v: %t %t", tc.pods, tc.services, v6, both)
		}
	}
}
