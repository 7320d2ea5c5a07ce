package main

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
)

func TestWaitForNodeIPs(t *testing.T) {
	const v4 = "127.0.0.1" // an address that every machine has
	for name, tc := range map[string]struct {
		pods, services, ips []string
		want                string
		err                 string
	}{
		"IPv4":             {[]string{"10.244.0.0/16"}, []string{"10.96.0.0/12"}, nil, "", ""},
		"static":           {[]string{"10.244.0.0/16", "fd00:1::/56"}, []string{"10.96.0.0/12", "fd00:2::/112"}, []string{v4, v4}, v4 + " " + v4, ""},
		"IPv6, found":      {[]string{"fd00:1::/56"}, []string{"fd00:2::/112"}, nil, v4, ""},
		"no such address":  {[]string{"fd00:1::/56"}, []string{"fd00:2::/112"}, []string{"2001:db8::1"}, "", "the address 2001:db8::1"},
		"no IPv6 anywhere": {[]string{"10.244.0.0/16", "fd00:1::/56"}, []string{"10.96.0.0/12"}, nil, "", "for an IPv6 address with a default route"},
		"no address":       {[]string{"fd00:1::/56"}, []string{"fd00:2::/112"}, []string{"x"}, "", "boot plan: node.nodeIPs"},
	} {
		t.Run(name, func(t *testing.T) {
			paths := host.Paths{Root: t.TempDir()}
			var p bootplan.Plan
			p.Cluster.PodSubnets, p.Cluster.ServiceSubnets, p.Node.NodeIPs = tc.pods, tc.services, tc.ips
			p.Timeouts.Network = bootplan.Duration(10 * time.Millisecond)
			cfg := nodeconfig.Config{Plan: p, AdvertiseAddress: netip.MustParseAddr(v4)}
			got, err := waitForNodeIPs(context.Background(), cfg, paths, phase.NewPrinter(&bytes.Buffer{}))
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("error %v", err)
				}
				return
			}
			var texts []string
			for _, a := range got {
				texts = append(texts, a.String())
			}
			if err != nil || strings.Join(texts, " ") != tc.want {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

// In a cluster whose first subnet is IPv6 an IPv4 route is no answer.
func TestDefaultAddress(t *testing.T) {
	paths := host.Paths{Root: t.TempDir()}
	route := paths.At("/proc/net/route")
	if err := os.MkdirAll(filepath.Dir(route), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(route, []byte("Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\nkiln-none\t00000000\t0202000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var p bootplan.Plan
	p.Cluster.ServiceSubnets = []string{"10.96.0.0/12"}
	if _, err := defaultAddress(p, paths); err == nil || !strings.Contains(err.Error(), "kiln-none") {
		t.Errorf("IPv4: %v", err)
	}
	p.Cluster.ServiceSubnets = []string{"fd00:2::/112"}
	if _, err := defaultAddress(p, paths); err != host.ErrNoDefaultRoute {
		t.Errorf("IPv6: %v", err)
	}
}
