package render

import (
	"strings"
	"testing"

	"github.com/kiln-os/kiln/internal/spec"
)

// families is a cluster of a control plane and a worker with the given address lines.
func families(t *testing.T, cp, worker string) *spec.Cluster {
	t.Helper()
	text := "apiVersion: kiln-os.dev/v1alpha1\nkind: Cluster\nname: six\ncontrolPlaneEndpoint: api.example.org\nnodes:\n" +
		"- {name: cp, role: control-plane, profile: qemu-amd64, " + cp + "}\n"
	c, list := spec.Parse("cluster.yaml", []byte(text), known)
	if len(list) > 0 {
		t.Fatal(list)
	}
	// This worker stands in a file of its own so that a version that builds single
	// nodes only takes it too.
	w, list := spec.Parse("cluster.yaml", []byte(strings.NewReplacer("cp,", "w,", cp, worker).Replace(text)), known)
	if len(list) > 0 {
		t.Fatal(list)
	}
	n := w.Nodes[0]
	n.Role = spec.RoleWorker
	c.Nodes = append(c.Nodes, n)
	return c
}

// TestFamilies: what nodes get in clusters with IPv6.
func TestFamilies(t *testing.T) {
	const head = "[Match]\nType=ether\nKind=!*\n\n[Network]\n"
	for name, tc := range map[string]struct {
		cp, worker      string
		units           [2]string
		hosts           string
		ips, advertised string
		subnets         string
	}{
		"IPv6": {
			"address: 'fd00::15/64', gateway: 'fe80::1'", "address: 'fd00::16/64', gateway: 'fd00::1'",
			[2]string{"Address=fd00::15/64\nGateway=fe80::1\nIPv6AcceptRA=false\n", "Address=fd00::16/64\nGateway=fd00::1\nIPv6AcceptRA=false\n"},
			"\nfd00::15 api.example.org\n", "fd00::15", "fd00::15", "fd00:10:244::/56 fd00:10:96::/112",
		},
		"dual": {
			"addresses: [10.0.2.15/24, 'fd00::15/64'], gateways: [10.0.2.2, 'fd00::1']", "addresses: [10.0.2.16/24, 'fd00::16/64'], gateways: [10.0.2.2]",
			[2]string{"Address=10.0.2.15/24\nAddress=fd00::15/64\nGateway=10.0.2.2\nGateway=fd00::1\nIPv6AcceptRA=false\n", "Address=10.0.2.16/24\nAddress=fd00::16/64\nGateway=10.0.2.2\nIPv6AcceptRA=true\n"},
			"\n10.0.2.15 api.example.org\nfd00::15 api.example.org\n", "10.0.2.15 fd00::15", "10.0.2.15", "10.244.0.0/16 fd00:10:244::/56 10.96.0.0/12 fd00:10:96::/112",
		},
		"dual, IPv6 first": {
			"addresses: ['fd00::15/64', 10.0.2.15/24], gateways: ['fd00::1', 10.0.2.2]", "addresses: ['fd00::16/64', 10.0.2.16/24], gateways: ['fd00::1', 10.0.2.2]",
			[2]string{"Address=fd00::15/64\nAddress=10.0.2.15/24\nGateway=fd00::1\nGateway=10.0.2.2\nIPv6AcceptRA=false\n", "Address=fd00::16/64\nAddress=10.0.2.16/24\nGateway=fd00::1\nGateway=10.0.2.2\nIPv6AcceptRA=false\n"},
			"\nfd00::15 api.example.org\n10.0.2.15 api.example.org\n", "fd00::15 10.0.2.15", "fd00::15", "fd00:10:244::/56 10.244.0.0/16 fd00:10:96::/112 10.96.0.0/12",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := families(t, tc.cp, tc.worker)
			for i, want := range tc.units {
				r, _, files := render(t, c, i)
				if got := files["/etc/systemd/network/10-kiln.network"]; got != head+want {
					t.Errorf("node %d: got\n%s\nwant\n%s", i, got, head+want)
				}
				if !strings.HasSuffix(files["/etc/hosts"], "ip6-loopback"+tc.hosts) {
					t.Errorf("node %d: /etc/hosts is %q", i, files["/etc/hosts"])
				}
				p := r.Plan
				if got := strings.Join(append(p.Cluster.PodSubnets, p.Cluster.ServiceSubnets...), " "); got != tc.subnets {
					t.Errorf("subnets %s", got)
				}
				if i == 0 && (strings.Join(p.Node.NodeIPs, " ") != tc.ips || p.Node.AdvertiseAddress != tc.advertised) {
					t.Errorf("%+v", p.Node)
				}
			}
		})
	}
}
