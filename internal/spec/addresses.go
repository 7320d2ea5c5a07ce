package spec

import (
	"net/netip"
	"slices"

	"github.com/kiln-os/kiln/internal/diag"
)

// Defaults of networking where the nodes have IPv6 addresses alone.
const (
	DefaultPodSubnet6     = "fd00:10:244::/56"
	DefaultServiceSubnet6 = "fd00:10:96::/112"
)

// StaticAddresses are the node's fixed addresses, of each family at most one: the
// primary one first.
func (n Node) StaticAddresses() []netip.Prefix {
	if len(n.Addresses) > 0 {
		return n.Addresses
	}
	if n.Static() {
		return []netip.Prefix{n.Address}
	}
	return nil
}

// StaticGateways are the routers of the node's fixed addresses.
func (n Node) StaticGateways() []netip.Addr {
	if len(n.Gateways) > 0 {
		return n.Gateways
	}
	if n.Gateway.IsValid() {
		return []netip.Addr{n.Gateway}
	}
	return nil
}

// gatewayOf is the router of the address family, the zero Addr if none is named.
func (n Node) gatewayOf(v6 bool) netip.Addr {
	for _, g := range n.StaticGateways() {
		if g.Is6() == v6 {
			return g
		}
	}
	return netip.Addr{}
}

// NodeIPs are the addresses that the node's kubelet is told: nothing for a node with
// one IPv4 address, or none of its own, which the kubelet finds by itself.
func (n Node) NodeIPs() []string {
	list := n.StaticAddresses()
	if len(list) == 1 && list[0].Addr().Is4() {
		return nil
	}
	var out []string
	for _, a := range list {
		out = append(out, a.Addr().String())
	}
	return out
}

// primaryAddresses makes the first of a list the address that everything else calls
// the node's, with its router.
func (c *Cluster) primaryAddresses() {
	for i := range c.Nodes {
		n := &c.Nodes[i]
		if len(n.Addresses) > 0 && !n.Static() && n.Addresses[0].IsValid() {
			n.Address = n.Addresses[0]
			n.Gateway = n.gatewayOf(n.Address.Addr().Is6())
		}
	}
}

// defaultSubnets fills subnets that are not given: of the families of those that are,
// else of the first control plane's static addresses, else IPv4.
func (c *Cluster) defaultSubnets() {
	var v6 []bool // the families in their order
	given := slices.Concat(c.Network.PodSubnets, c.Network.ServiceSubnets)
	if len(c.Network.PodSubnets) > 0 {
		given = c.Network.PodSubnets
	}
	if cps := c.ControlPlanes(); len(given) == 0 && len(cps) > 0 {
		given = cps[0].StaticAddresses()
	}
	for _, p := range given {
		if p.IsValid() && !slices.Contains(v6, p.Addr().Is6()) {
			v6 = append(v6, p.Addr().Is6())
		}
	}
	if len(v6) == 0 {
		v6 = []bool{false}
	}
	pick := func(list *[]netip.Prefix, text4, text6 string) {
		if len(*list) > 0 {
			return
		}
		for _, six := range v6 {
			text := text4
			if six {
				text = text6
			}
			*list = append(*list, netip.MustParsePrefix(text))
		}
	}
	pick(&c.Network.PodSubnets, DefaultPodSubnet, DefaultPodSubnet6)
	pick(&c.Network.ServiceSubnets, DefaultServiceSubnet, DefaultServiceSubnet6)
}

// addresses checks the node's addresses and routers.
func (v *validator) addresses(p diag.Path, n Node, subnets []subnet) {
	v.nameservers(p, n)
	one, list := p.Child("address"), p.Child("addresses")
	for _, pair := range [][2]string{{"address", "addresses"}, {"gateway", "gateways"}} {
		if v.Doc.Has(p.Child(pair[0])) && v.Doc.Has(p.Child(pair[1])) {
			v.bad(p.Child(pair[1]), "keep one of the two", "%s is there too", pair[0])
			return
		}
	}
	if !v.Doc.Has(one) && !v.Doc.Has(list) {
		for _, g := range []string{"gateway", "gateways"} {
			if v.Doc.Has(p.Child(g)) {
				v.bad(p.Child(g), "give the node an address too, or remove the gateway", "a node without address asks DHCP, which also names the gateway")
			}
		}
		if n.Role == RoleControlPlane && !v.has(diag.Path{"controlPlaneEndpoint"}) && !v.c.VirtualIP.Set() && !v.c.AdvertiseAddress(n).IsValid() {
			v.bad(one, "set controlPlaneEndpoint to a name or address that will lead to this node, or give it a static address",
				"a control-plane node on DHCP has no address that admin.conf could name")
		}
		return
	}
	if v.Doc.Has(list) && (len(n.Addresses) == 0 || len(n.Addresses) > 2) {
		v.bad(list, "want one, or one IPv4 and one IPv6", "there are %d addresses", len(n.Addresses))
		return
	}
	at := func(i int) diag.Path {
		if v.Doc.Has(list) {
			return list.Child(i)
		}
		return one
	}
	good := true
	for i, a := range n.StaticAddresses() {
		good = v.address(at(i), a, subnets) && good
	}
	if !good || len(n.StaticAddresses()) == 0 {
		return
	}
	if !v.families(n, at) {
		return
	}
	for i, a := range n.StaticAddresses() {
		v.gateway(p, n, i, a)
	}
	if !v.Doc.Has(p.Child("gateways")) {
		return
	}
	for i, g := range n.Gateways {
		if !slices.ContainsFunc(n.StaticAddresses(), func(a netip.Prefix) bool { return a.Addr().Is6() == g.Is6() }) || i > 0 && g.Is6() == n.Gateways[0].Is6() {
			v.bad(p.Child("gateways", i), "want one for each address family of the node", "%s is the router of no address of the node", g)
		}
	}
}

// nameservers checks the node's own name servers.
func (v *validator) nameservers(p diag.Path, n Node) {
	for i, a := range n.Nameservers {
		if v.Doc.Has(p.Child("nameservers")) {
			v.unicast(p.Child("nameservers", i), a)
		}
	}
}

// address checks one static address.
func (v *validator) address(q diag.Path, a netip.Prefix, subnets []subnet) bool {
	if !a.IsValid() || !v.unicast(q, a.Addr()) {
		return false
	}
	if a.Addr().IsLinkLocalUnicast() {
		v.bad(q, "want an address that other networks reach, such as fd00::15/64", "%s is valid on its own link alone", a.Addr())
		return false
	}
	if a.Addr().Is4() && a.Bits() < 31 && (a.Addr() == a.Masked().Addr() || !a.Contains(a.Addr().Next())) {
		v.bad(q, "want the address of the node itself", "%s is the network or broadcast address of its subnet", a.Addr())
	}
	for _, s := range subnets {
		if a.Masked().Overlaps(s.prefix) {
			v.bad(q, "want subnets that share no address", "the node's subnet %s overlaps with %s %s", a.Masked(), s.what, s.prefix)
		}
	}
	return true
}

// families wants static addresses of the families of the cluster, in its order: the
// first is the node's primary one, by which the API server of a control plane serves
// the first service subnet, and pods of each family need a way out.
func (v *validator) families(n Node, at func(int) diag.Path) bool {
	addrs := n.StaticAddresses()
	if len(addrs) == 2 && addrs[0].Addr().Is6() == addrs[1].Addr().Is6() {
		v.bad(at(1), "want one IPv4 and one IPv6", "%s is of the same address family as %s", addrs[1].Addr(), addrs[0].Addr())
		return false
	}
	svc := v.c.Network.ServiceSubnets
	if svc[0].IsValid() && svc[0].Addr().Is4() != addrs[0].Addr().Is4() {
		if n.Role == RoleControlPlane {
			v.bad(at(0), "want an address of the family of the first service subnet", "the API server cannot serve %s from %s", svc[0], addrs[0].Addr())
		} else {
			v.bad(at(0), "want an address of the family of the first service subnet", "%s is of another address family than %s, which is the cluster's primary one", addrs[0].Addr(), svc[0])
		}
		return false
	}
	for _, s := range v.c.Network.PodSubnets {
		// An IPv6 address may come from a router's announcement.
		if s.IsValid() && s.Addr().Is4() && !slices.ContainsFunc(addrs, func(a netip.Prefix) bool { return a.Addr().Is4() == s.Addr().Is4() }) {
			v.bad(at(0), "want one address of each family: addresses: [10.0.2.15/24, 'fd00::15/64']", "the node has no address of the family of pod subnet %s", s)
		}
	}
	return true
}

// gateway checks the router of a static address. IPv6 routers announce themselves:
// the second address of a node needs none, if it is of that family.
func (v *validator) gateway(p diag.Path, n Node, i int, a netip.Prefix) {
	key := p.Child("gateway")
	if v.Doc.Has(p.Child("gateways")) || len(n.Addresses) > 1 {
		key = p.Child("gateways")
	}
	gw := n.gatewayOf(a.Addr().Is6())
	if !gw.IsValid() {
		if i > 0 && a.Addr().Is6() {
			return
		}
		want := "want the address of the router in " + a.Masked().String()
		if v.required(key, want) && !v.Bad(key) {
			v.bad(key, want, "there is no router for %s", a)
		}
		return
	}
	if v.Doc.Has(p.Child("gateways")) {
		key = key.Child(slices.Index(n.Gateways, gw))
	}
	if !v.unicast(key, gw) {
		return
	}
	switch {
	case gw == a.Addr():
		v.bad(key, "want the address of the router", "%s is the node itself", gw)
	case !a.Contains(gw) && !gw.IsLinkLocalUnicast():
		v.bad(key, "want an address in "+a.Masked().String(), "%s is not on the node's subnet", gw)
	}
}
