package spec

import (
	"fmt"
	"strings"
	"testing"
)

// three is a cluster of three control planes and a worker, with further lines.
func three(lines ...string) string {
	text := head + strings.Join(lines, "\n") + "\nnodes:\n"
	for i := range 3 {
		text += fmt.Sprintf("- {name: kiln-%d, role: control-plane, profile: qemu-amd64, address: 10.0.2.1%d/24, gateway: 10.0.2.2}\n", i, i)
	}
	return text + "- {name: kiln-w, role: worker, profile: qemu-amd64}\n"
}

func TestVirtualIP(t *testing.T) {
	six := strings.NewReplacer("10.0.2.15/24", "fd00::15/64", "10.0.2.2", "fe80::1").Replace(minimal) +
		"network: {podSubnets: ['fd00:10::/56'], serviceSubnets: ['fd00:96::/112']}\n"
	// An address that is given as a list of one is an address too.
	lists := strings.NewReplacer("control-plane, profile: qemu-amd64, address: ", "control-plane, profile: qemu-amd64, addresses: [", "/24, gateway: 10.0.2.2", "/24], gateways: [10.0.2.2]")
	both := strings.NewReplacer("address: ", "addresses: [", "/24", "/24, 'fd00::1f/64']", "gateway: 10.0.2.2", "gateways: [10.0.2.2, 'fe80::1']").Replace
	for name, tc := range map[string]struct {
		text     string
		endpoint string
		want     []string // one substring for each mistake, in order
	}{
		"alone":                         {three("virtualIP: {address: 10.0.2.100}"), "10.0.2.100:6443", nil},
		"one control plane":             {minimal + "virtualIP: {address: 10.0.2.100}\n", "10.0.2.100:6443", nil},
		"IPv6":                          {six + "virtualIP: {address: fd00::100}\n", "[fd00::100]:6443", nil},
		"with the endpoint":             {three("virtualIP: {address: 10.0.2.100}", "controlPlaneEndpoint: 10.0.2.100"), "10.0.2.100:6443", nil},
		"with a name":                   {three("virtualIP: {address: 10.0.2.100}", "controlPlaneEndpoint: api.example.org"), "api.example.org:6443", nil},
		"with kubeadm's":                {three("virtualIP: {address: 10.0.2.100}") + "---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\ncontrolPlaneEndpoint: 10.0.2.100:6443\n", "10.0.2.100:6443", nil},
		"no address":                    {three("virtualIP: {address: api.example.org}"), "", []string{`f:4:22: virtualIP.address: "api.example.org" is not an IP address`}},
		"with a prefix length":          {three("virtualIP: {address: 10.0.2.100/24}"), "", []string{`f:4:22: virtualIP.address: "10.0.2.100/24" is not an IP address; such as 10.0.2.2`}},
		"loopback":                      {three("virtualIP: {address: 127.0.0.1}"), "", []string{"f:4:22: virtualIP.address: 127.0.0.1 is not a unicast address"}},
		"link-local":                    {three("virtualIP: {address: fe80::100}"), "", []string{"f:4:22: virtualIP.address: fe80::100 is of one link"}},
		"a node's":                      {three("virtualIP: {address: 10.0.2.11}"), "", []string{"f:4:22: virtualIP.address: 10.0.2.11 is the address of node kiln-1; want an address of its own"}},
		"the gateway":                   {three("virtualIP: {address: 10.0.2.2}"), "", []string{"f:4:22: virtualIP.address: 10.0.2.2 is the gateway of node kiln-0"}},
		"elsewhere":                     {three("virtualIP: {address: 10.0.3.100}"), "", []string{"f:4:22: virtualIP.address: 10.0.3.100 is not in 10.0.2.0/24, the subnet of control-plane node kiln-0"}},
		"lists of addresses":            {lists.Replace(three("virtualIP: {address: 10.0.2.100}")), "10.0.2.100:6443", nil},
		"dual stack":                    {both(minimal) + "virtualIP: {address: 10.0.2.100}\n", "10.0.2.100:6443", nil},
		"dual stack, the second family": {both(minimal) + "virtualIP: {address: 'fd00::100'}\n", "[fd00::100]:6443", nil},
		"dual stack, elsewhere":         {both(minimal) + "virtualIP: {address: 'fd01::100'}\n", "", []string{"virtualIP.address: fd01::100 is not in 10.0.2.0/24 or fd00::/64, the subnet of"}},
		"the second address of a node":  {both(minimal) + "virtualIP: {address: 'fd00::1f'}\n", "", []string{"virtualIP.address: fd00::1f is the address of node"}},
		"of another family":             {three("virtualIP: {address: fd00::100}"), "", []string{"f:4:22: virtualIP.address: fd00::100 is not in 10.0.2.0/24"}},
		"broadcast":                     {three("virtualIP: {address: 10.0.2.255}"), "", []string{"f:4:22: virtualIP.address: 10.0.2.255 is the network or broadcast address"}},
		"nodes in two subnets":          {strings.Replace(three("virtualIP: {address: 10.0.2.100}"), "10.0.2.12/24, gateway: 10.0.2.2", "10.0.4.12/24, gateway: 10.0.4.2", 1), "", []string{"f:4:22: virtualIP.address: 10.0.2.100 is not in 10.0.4.0/24, the subnet of control-plane node kiln-2; want a free address of that subnet, and all control planes in one"}},
		"DHCP":                          {strings.Replace(three("virtualIP: {address: 10.0.2.100}"), ", address: 10.0.2.12/24, gateway: 10.0.2.2", "", 1), "", []string{"f:8:3: nodes[2].address: a control-plane node on DHCP cannot hold the virtual IP"}},
		"another endpoint":              {three("virtualIP: {address: 10.0.2.100}", "controlPlaneEndpoint: 10.0.2.101:6443"), "", []string{"f:5:23: controlPlaneEndpoint: 10.0.2.101 is another address than the virtual IP 10.0.2.100"}},
		"kubeadm's is another":          {three("virtualIP: {address: 10.0.2.100}") + "---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\ncontrolPlaneEndpoint: 10.0.2.101\n", "", []string{"f:13:23: controlPlaneEndpoint: 10.0.2.101 is another address than the virtual IP"}},
		"another port":                  {three("virtualIP: {address: 10.0.2.100}", "controlPlaneEndpoint: api.example.org:443"), "", []string{"f:5:23: controlPlaneEndpoint: at the virtual IP the API servers answer at their own port, which is not 443"}},
		"empty endpoint":                {three("virtualIP: {address: 10.0.2.100}", "controlPlaneEndpoint: ''"), "", []string{"f:5:23: controlPlaneEndpoint: is empty"}},
		"router ID":                     {strings.Replace(three("virtualIP: {address: 10.0.2.100}"), "100}", "100, routerID: 256}", 1), "", []string{"f:4:44: virtualIP.routerID: VRRP has no router ID 256; want 1 to 255"}},
		"negative router ID":            {strings.Replace(three("virtualIP: {address: 10.0.2.100}"), "100}", "100, routerID: -1}", 1), "", []string{"f:4:44: virtualIP.routerID: VRRP has no router ID -1"}},
		"no address at all":             {strings.Replace(three("virtualIP: {address: 10.0.2.100}"), "{address: 10.0.2.100}", "{routerID: 7}", 1), "", []string{"f:4:1: virtualIP.address: is missing; want a free address"}},
		"text for a mapping":            {strings.Replace(three("virtualIP: {address: 10.0.2.100}"), "{address: 10.0.2.100}", "10.0.2.100", 1), "", []string{"f:4:12: virtualIP: is text, not a mapping"}},
		"neither":                       {three(), "", []string{"3 control-plane nodes have no address in common at which the API could be reached; set virtualIP to a free address"}},
		"empty":                         {three("virtualIP: {address: ''}"), "", []string{`f:4:22: virtualIP.address: "" is not an IP address`}},
		"endpoint and node wrong":       {three("virtualIP: {address: 10.0.2.12}", "controlPlaneEndpoint: 10.0.2.101:443"), "", []string{"virtualIP.address: 10.0.2.12 is the address of node kiln-2", "controlPlaneEndpoint: 10.0.2.101 is another"}},
	} {
		t.Run(name, func(t *testing.T) {
			c, list := Parse("f", []byte(tc.text), known)
			if len(list) != len(tc.want) {
				t.Fatalf("got\n%v\nwant %q", list, tc.want)
			}
			for i, want := range tc.want {
				if got := list[i].Error(); !strings.Contains(got, want) {
					t.Errorf("got %q, want %q", got, want)
				}
			}
			if tc.want != nil {
				return
			}
			if e, err := c.Endpoint(); err != nil || e != tc.endpoint {
				t.Errorf("endpoint %q, %v; want %s", e, err, tc.endpoint)
			}
		})
	}
}

func TestRank(t *testing.T) {
	c := &Cluster{Nodes: []Node{
		{Name: "w", Role: RoleWorker}, {Name: "a", Role: RoleControlPlane}, {Name: "b", Role: RoleControlPlane},
	}}
	for name, want := range map[string]int{"a": 0, "b": 1, "w": -1, "": -1} {
		if got := c.Rank(name); got != want {
			t.Errorf("%q has rank %d, want %d", name, got, want)
		}
	}
}
