package spec

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// addressed is minimal with other address lines and a network.
func addressed(address, network string) string {
	text := strings.Replace(minimal, "  address: 10.0.2.15/24\n  gateway: 10.0.2.2\n", "  "+strings.Join(strings.Split(address, "\n"), "\n  ")+"\n", 1)
	if network != "" {
		text += "network: {" + network + "}\n"
	}
	return text
}

const dualSubnets = "podSubnets: [10.244.0.0/16, 'fd00:10:244::/56'], serviceSubnets: [10.96.0.0/16, 'fd00:10:96::/112']"

func TestAddressMistakes(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want []string
	}{
		"dual":                {addressed("addresses: [10.0.2.15/24, 'fd00::15/64']\ngateways: [10.0.2.2, 'fd00::2']", dualSubnets), nil},
		"router announces":    {addressed("addresses: [10.0.2.15/24, 'fd00::15/64']\ngateways: [10.0.2.2]", dualSubnets), nil},
		"one gateway":         {addressed("addresses: [10.0.2.15/24, 'fd00::15/64']\ngateway: 10.0.2.2", dualSubnets), nil},
		"IPv6 by router":      {addressed("address: 10.0.2.15/24\ngateway: 10.0.2.2", dualSubnets), nil},
		"IPv6":                {addressed("address: fd00::15/64\ngateway: fe80::1", ""), nil},
		"IPv6, list":          {addressed("addresses: ['fd00::15/64']\ngateways: ['fd00::1']", ""), nil},
		"both":                {addressed("address: 10.0.2.15/24\naddresses: ['fd00::15/64']\ngateway: 10.0.2.2", ""), []string{"f:9:3: nodes[0].addresses: address is there too; keep one of the two"}},
		"both gateways":       {addressed("address: 10.0.2.15/24\ngateway: 10.0.2.2\ngateways: [10.0.2.3]", ""), []string{"nodes[0].gateways: gateway is there too"}},
		"three":               {addressed("addresses: [10.0.2.15/24, 10.0.3.15/24, 'fd00::15/64']\ngateways: [10.0.2.2]", dualSubnets), []string{"f:8:3: nodes[0].addresses: there are 3 addresses; want one, or one IPv4 and one IPv6"}},
		"none":                {addressed("addresses: []", ""), []string{"there are 0 addresses"}},
		"one family":          {addressed("addresses: [10.0.2.15/24, 10.0.3.15/24]\ngateways: [10.0.2.2]", ""), []string{"f:8:29: nodes[0].addresses[1]: 10.0.3.15 is of the same address family as 10.0.2.15"}},
		"other order":         {addressed("addresses: ['fd00::15/64', 10.0.2.15/24]\ngateways: ['fd00::1', 10.0.2.2]", dualSubnets), []string{"f:8:15: nodes[0].addresses[0]: the API server cannot serve 10.96.0.0/16 from fd00::15"}},
		"no IPv4":             {addressed("address: fd00::15/64\ngateway: fe80::1", "podSubnets: ['fd00:10:244::/56', 10.244.0.0/16], serviceSubnets: ['fd00:10:96::/112']"), []string{"the node has no address of the family of pod subnet 10.244.0.0/16; want one address of each family"}},
		"no gateway":          {addressed("addresses: [10.0.2.15/24, 'fd00::15/64']\ngateways: ['fd00::2']", dualSubnets), []string{"f:9:3: nodes[0].gateways: there is no router for 10.0.2.15/24"}},
		"gateway elsewhere":   {addressed("addresses: [10.0.2.15/24, 'fd00::15/64']\ngateways: [10.0.2.2, 'fd01::2']", dualSubnets), []string{"f:9:24: nodes[0].gateways[1]: fd01::2 is not on the node's subnet"}},
		"gateway of nobody":   {addressed("addresses: [10.0.2.15/24]\ngateways: [10.0.2.2, 'fd01::2']", ""), []string{"nodes[0].gateways[1]: fd01::2 is the router of no address of the node"}},
		"two of a family":     {addressed("addresses: [10.0.2.15/24]\ngateways: [10.0.2.2, 10.0.2.3]", ""), []string{"nodes[0].gateways[1]: 10.0.2.3 is the router of no address"}},
		"gateway is the node": {addressed("addresses: [10.0.2.15/24]\ngateways: [10.0.2.15]", ""), []string{"10.0.2.15 is the node itself"}},
		"gateways on DHCP":    {strings.Replace(addressed("gateways: [10.0.2.2]", ""), "nodes:", "controlPlaneEndpoint: api.example.org\nnodes:", 1), []string{"nodes[0].gateways: a node without address asks DHCP"}},
		"link-local":          {addressed("address: fe80::15/64\ngateway: fe80::1", ""), []string{"f:8:12: nodes[0].address: fe80::15 is valid on its own link alone"}},
		"in the pod subnet":   {addressed("addresses: [10.0.2.15/24, 'fd00:10:244::15/64']\ngateways: [10.0.2.2]", dualSubnets), []string{"nodes[0].addresses[1]: the node's subnet fd00:10:244::/64 overlaps with pod subnet fd00:10:244::/56"}},
		"no prefix":           {addressed("addresses: ['fd00::15']\ngateways: ['fd00::1']", ""), []string{`nodes[0].addresses[0]: "fd00::15" is not an address with a prefix length`}},
	} {
		t.Run(name, func(t *testing.T) {
			_, list := Parse("f", []byte(tc.text), known)
			if len(list) != len(tc.want) {
				t.Fatalf("%d mistakes, want %d:\n%v", len(list), len(tc.want), list)
			}
			for _, w := range tc.want {
				if !strings.Contains(list.Error(), w) {
					t.Errorf("no mistake\n%s\namong\n%v", w, list)
				}
			}
		})
	}
}

// A second node may not take an address of another node's list.
func TestAddressesAreUnique(t *testing.T) {
	text := addressed("addresses: [10.0.2.15/24, 'fd00::15/64']\ngateways: [10.0.2.2]", "")
	text += "- {name: w, role: worker, profile: qemu-amd64, addresses: [10.0.2.16/24, 'fd00::15/64'], gateways: [10.0.2.2]}\nnetwork: {" + dualSubnets + "}\n"
	_, list := Parse("f", []byte(text), known)
	if !strings.Contains(list.Error(), "nodes[1].addresses[1]: address fd00::15 is taken by nodes[0].addresses[1]") {
		t.Error(list)
	}
}

func TestFamilies(t *testing.T) {
	for _, tc := range []struct{ address, network, subnets, ips, endpoint string }{
		{"address: 10.0.2.15/24\ngateway: 10.0.2.2", "", "[10.244.0.0/16] [10.96.0.0/12]", "[]", "10.0.2.15:6443"},
		{"address: fd00::15/64\ngateway: fe80::1", "", "[fd00:10:244::/56] [fd00:10:96::/112]", "[fd00::15]", "[fd00::15]:6443"},
		{"addresses: ['fd00::15/64', 10.0.2.15/24]\ngateways: ['fd00::1', 10.0.2.2]", "", "[fd00:10:244::/56 10.244.0.0/16] [fd00:10:96::/112 10.96.0.0/12]", "[fd00::15 10.0.2.15]", "[fd00::15]:6443"},
		{"addresses: [10.0.2.15/24, 'fd00::15/64']\ngateways: [10.0.2.2]", "podSubnets: [10.1.0.0/16, 'fd00:1::/56']", "[10.1.0.0/16 fd00:1::/56] [10.96.0.0/12 fd00:10:96::/112]", "[10.0.2.15 fd00::15]", "10.0.2.15:6443"},
		{"address: fd00::15/64\ngateway: fe80::1", "serviceSubnets: ['fd00:2::/112']", "[fd00:10:244::/56] [fd00:2::/112]", "[fd00::15]", "[fd00::15]:6443"},
	} {
		c, list := Parse("f", []byte(addressed(tc.address, tc.network)), known)
		if len(list) > 0 {
			t.Errorf("%s: %v", tc.address, list)
			continue
		}
		n := c.Nodes[0]
		e, err := c.Endpoint()
		if got := fmt.Sprint(c.Network.PodSubnets, " ", c.Network.ServiceSubnets); got != tc.subnets || fmt.Sprint(n.NodeIPs()) != tc.ips || e != tc.endpoint || err != nil {
			t.Errorf("%s: subnets %s, node IPs %v, endpoint %s, %v", tc.address, got, n.NodeIPs(), e, err)
		}
		if first := n.StaticAddresses()[0]; n.Address != first || n.Gateway == (netip.Addr{}) {
			t.Errorf("%s: address %s by %s", tc.address, n.Address, n.Gateway)
		}
	}
}
