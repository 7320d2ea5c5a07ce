package spec

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/diag"
)

// virtualIP checks the address that the control planes share, against the nodes and
// the endpoint that leads to it.
func (v *validator) virtualIP() {
	p, vip := diag.Path{"virtualIP", "address"}, v.c.VirtualIP.Address
	if !v.has(diag.Path{"virtualIP"}) || !v.required(p, "want a free address of the control planes' subnet") {
		return
	}
	if id := v.c.VirtualIP.RouterID; id < 1 && vip.IsValid() || id > 255 {
		v.bad(diag.Path{"virtualIP", "routerID"}, "want 1 to 255, or remove it", "VRRP has no router ID %d", id)
	}
	if !v.unicast(p, vip) {
		return
	}
	if vip.IsLinkLocalUnicast() {
		v.bad(p, "want an address that every node and user can reach", "%s is of one link", vip)
		return
	}
	v.virtualEndpoint(vip)
	for i, n := range v.c.Nodes {
		q := diag.Path{"nodes", i}
		own := n.StaticAddresses()
		at := slices.IndexFunc(own, func(a netip.Prefix) bool { return a.Contains(vip) })
		switch {
		case slices.ContainsFunc(own, func(a netip.Prefix) bool { return a.Addr() == vip }):
			v.bad(p, "want an address of its own, which no machine has", "%s is the address of node %s", vip, n.Name)
			return
		case slices.Contains(n.StaticGateways(), vip):
			v.bad(p, "want an address of its own, which no machine has", "%s is the gateway of node %s", vip, n.Name)
			return
		case n.Role != RoleControlPlane:
		case !v.Doc.Has(q.Child("address")) && !v.Doc.Has(q.Child("addresses")):
			v.bad(q.Child("address"), "give it a static address in the subnet of "+vip.String(), "a control-plane node on DHCP cannot hold the virtual IP: its subnet is not known")
		case !n.Static(): // rejected
		case at < 0:
			v.bad(p, "want a free address of that subnet, and all control planes in one", "%s is not in %s, the subnet of control-plane node %s", vip, subnets(own), n.Name)
			return
		case vip.Is4() && own[at].Bits() < 31 && (vip == own[at].Masked().Addr() || !own[at].Contains(vip.Next())):
			v.bad(p, "want a free address in "+own[at].Masked().String(), "%s is the network or broadcast address of the subnet", vip)
			return
		}
	}
}

// subnets lists the subnets of a node's addresses.
func subnets(of []netip.Prefix) string {
	var names []string
	for _, a := range of {
		names = append(names, a.Masked().String())
	}
	return strings.Join(names, " or ")
}

// virtualEndpoint checks that the control-plane endpoint can be at the virtual IP.
func (v *validator) virtualEndpoint(vip netip.Addr) {
	p := diag.Path{"controlPlaneEndpoint"}
	host, port, err := bootplan.SplitEndpoint(v.c.ControlPlaneEndpoint)
	if err != nil || !v.has(p) {
		return // reported, or made of the virtual IP
	}
	if a, err := netip.ParseAddr(host); err == nil && a != vip {
		v.bad(p, "want "+vip.String()+", a name for it, or remove one of the two", "%s is another address than the virtual IP %s", a, vip)
		return
	}
	if port != bootplan.DefaultAPIPort {
		v.bad(p, "want port 6443, or a load balancer instead of the virtual IP", "at the virtual IP the API servers answer at their own port, which is not %d", port)
	}
}
