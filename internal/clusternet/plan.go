// Package clusternet is the private network of a cluster's virtual machines: it
// reads from the cluster file which addresses there are, runs the network in one
// process, and lets other processes of the same user plug in more machines.
package clusternet

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/internal/vnet"
)

// defaultSubnets are tried in order if no node has an address: the first that the
// cluster's own subnets leave free is taken.
var defaultSubnets = []string{"192.168.127.0/24", "10.127.127.0/24", "172.31.127.0/24"}

// Node is a machine on the network.
type Node struct {
	Name         string           `json:"name"`
	MAC          net.HardwareAddr `json:"mac"`
	Address      netip.Addr       `json:"address"`
	DHCP         bool             `json:"dhcp"` // the address is a lease
	ControlPlane bool             `json:"controlPlane"`
}

// API is where the node's API server is, if it has one.
func (n Node) API() netip.AddrPort { return netip.AddrPortFrom(n.Address, bootplan.DefaultAPIPort) }

// Plan is what the network of a cluster file is like.
type Plan struct {
	Config vnet.Config
	Nodes  []Node
	// Endpoint is an address at which the network has to bring the nodes to a
	// control plane; zero if the nodes' addresses do.
	Endpoint netip.AddrPort
}

// Node returns a node by its name.
func (p Plan) Node(name string) (Node, bool) {
	for _, n := range p.Nodes {
		if n.Name == name {
			return n, true
		}
	}
	return Node{}, false
}

// ControlPlanes returns the addresses of the API servers, in the file's order.
func (p Plan) ControlPlanes() []netip.AddrPort {
	var out []netip.AddrPort
	for _, n := range p.Nodes {
		if n.ControlPlane {
			out = append(out, n.API())
		}
	}
	return out
}

// planner collects the addresses that are taken.
type planner struct {
	plan  Plan
	taken map[netip.Addr]bool
}

// NewPlan makes the network that the nodes of a cluster file expect: their subnets
// and gateways, the name servers that they ask, leases for those that ask DHCP, and
// the control-plane endpoint where it is none of theirs.
func NewPlan(cl *spec.Cluster) (Plan, error) {
	p := &planner{taken: map[netip.Addr]bool{}}
	for _, n := range cl.Nodes {
		if n.Static() {
			p.taken[n.Address.Addr()] = true
		}
	}
	for _, n := range cl.Nodes {
		if n.Static() {
			p.subnet(n.Address.Masked(), n.Gateway)
		}
	}
	endpoint, host, err := endpointOf(cl)
	if err != nil {
		return Plan{}, err
	}
	if err := p.leaseSubnet(cl, endpoint); err != nil {
		return Plan{}, err
	}
	if err := p.nodes(cl, endpoint); err != nil {
		return Plan{}, err
	}
	seen := map[netip.Addr]bool{}
	for _, n := range cl.Nodes {
		for _, ns := range n.Nameservers {
			if !p.taken[ns] && !seen[ns] {
				seen[ns] = true
				p.plan.Config.Nameservers = append(p.plan.Config.Nameservers, ns)
			}
		}
	}
	p.endpoint(endpoint, host)
	return p.plan, nil
}

// endpointOf takes the control-plane endpoint apart: an address, or a name and an
// address that is only a port.
func endpointOf(cl *spec.Cluster) (at netip.AddrPort, name string, err error) {
	if cl.ControlPlaneEndpoint == "" {
		return at, "", nil
	}
	host, port, err := bootplan.SplitEndpoint(cl.ControlPlaneEndpoint)
	if err != nil {
		return at, "", fmt.Errorf("controlPlaneEndpoint: %w", err)
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return netip.AddrPortFrom(a, uint16(port)), "", nil
	}
	return netip.AddrPortFrom(netip.Addr{}, uint16(port)), host, nil
}

// subnet adds a subnet with its gateway, or with a free address if a node is the
// gateway.
func (p *planner) subnet(prefix netip.Prefix, gateway netip.Addr) {
	foreign := !gateway.IsValid() || p.taken[gateway]
	for _, have := range p.plan.Config.Subnets {
		if have.Prefix == prefix && (foreign || have.Gateway == gateway) {
			return
		}
	}
	if foreign {
		gateway = p.free(prefix, 0)
	}
	p.plan.Config.Subnets = append(p.plan.Config.Subnets, vnet.Subnet{Prefix: prefix, Gateway: gateway})
}

// free returns an address of the prefix that nobody has, from the one at index on.
func (p *planner) free(prefix netip.Prefix, index uint32) netip.Addr {
	first := prefix.Masked().Addr().Next()
	hosts := uint32(1) << min(prefix.Addr().BitLen()-prefix.Bits(), 16)
	if hosts <= 2 {
		return netip.Addr{} // vnet says that an address is missing
	}
	used := map[netip.Addr]bool{}
	for _, s := range p.plan.Config.Subnets {
		used[s.Gateway] = true
	}
	for range hosts {
		a := advance(first, index%(hosts-2))
		if !p.taken[a] && !used[a] {
			return a
		}
		index++
	}
	return netip.Addr{}
}

// advance returns the address n after a.
func advance(a netip.Addr, n uint32) netip.Addr {
	b := a.AsSlice()
	low := b[len(b)-4:]
	binary.BigEndian.PutUint32(low, binary.BigEndian.Uint32(low)+n)
	out, _ := netip.AddrFromSlice(b)
	return out
}

// leaseSubnet makes sure that there is a subnet of IPv4 if a node asks DHCP. The
// control-plane endpoint may be the address that such a node is meant to get.
func (p *planner) leaseSubnet(cl *spec.Cluster, endpoint netip.AddrPort) error {
	asks := false
	for _, n := range cl.Nodes {
		asks = asks || !n.Static()
	}
	for _, s := range p.plan.Config.Subnets {
		asks = asks && !s.Prefix.Addr().Is4()
	}
	if !asks {
		return nil
	}
	var candidates []netip.Prefix
	if a := endpoint.Addr(); a.Is4() {
		candidates = append(candidates, netip.PrefixFrom(a, 24).Masked())
		p.taken[a] = true // not the gateway's
		defer delete(p.taken, a)
	}
	for _, s := range defaultSubnets {
		candidates = append(candidates, netip.MustParsePrefix(s))
	}
	for _, c := range candidates {
		overlaps := false
		for _, o := range append(append([]netip.Prefix(nil), cl.Network.PodSubnets...), cl.Network.ServiceSubnets...) {
			overlaps = overlaps || c.Overlaps(o)
		}
		if !overlaps {
			p.subnet(c, netip.Addr{})
			return nil
		}
	}
	return fmt.Errorf("no subnet is left for the nodes that ask DHCP: the cluster's own overlap with all of %v; give the nodes addresses", candidates)
}

// nodes gives each node its Ethernet address, and those without one an address.
func (p *planner) nodes(cl *spec.Cluster, endpoint netip.AddrPort) error {
	cps := cl.ControlPlanes()
	for _, n := range cl.Nodes {
		hw, err := macOf(cl, n)
		if err != nil {
			return err
		}
		out := Node{Name: n.Name, MAC: hw, Address: n.Address.Addr(), ControlPlane: n.Role == spec.RoleControlPlane}
		if !n.Static() {
			s := p.dhcp()
			out.DHCP = true
			if a := endpoint.Addr(); out.ControlPlane && len(cps) == 1 && s.Contains(a) && !p.taken[a] {
				out.Address = a
			} else {
				sum := sha256.Sum256(hw)
				out.Address = p.free(s, binary.BigEndian.Uint32(sum[:4]))
			}
			p.plan.Config.Leases = append(p.plan.Config.Leases, vnet.Lease{MAC: hw, Address: out.Address})
		} else if n.Address.Addr().Is4() {
			p.plan.Config.Reserved = append(p.plan.Config.Reserved, out.Address)
		}
		p.taken[out.Address] = true
		p.plan.Nodes = append(p.plan.Nodes, out)
	}
	return nil
}

// dhcp is the subnet that leases are from.
func (p *planner) dhcp() netip.Prefix {
	for _, s := range p.plan.Config.Subnets {
		if s.Prefix.Addr().Is4() {
			return s.Prefix
		}
	}
	return netip.Prefix{}
}

// macOf is the address that the cluster file names, or one that is the node's in
// every run.
func macOf(cl *spec.Cluster, n spec.Node) (net.HardwareAddr, error) {
	if n.Interface.MAC != "" {
		hw, err := net.ParseMAC(n.Interface.MAC)
		if err != nil {
			return nil, fmt.Errorf("node %s: interface.mac: %w", n.Name, err)
		}
		return hw, nil
	}
	sum := sha256.Sum256([]byte(cl.Name + "/" + n.Name))
	return append(net.HardwareAddr{0x02}, sum[:5]...), nil // locally administered
}

// endpoint decides who answers at the control-plane endpoint. A name leads to the
// gateway, which balances. So does an address elsewhere, as of a load balancer. One
// in the nodes' subnets is a node's, or one that the control planes share.
func (p *planner) endpoint(at netip.AddrPort, name string) {
	if name != "" {
		gateway := netip.Addr{}
		for _, s := range p.plan.Config.Subnets {
			if !s.Gateway.IsLinkLocalUnicast() {
				gateway = s.Gateway
				break
			}
		}
		if !gateway.IsValid() {
			gateway = p.free(p.plan.Config.Subnets[0].Prefix, 0)
		}
		p.plan.Config.Hosts = map[string][]netip.Addr{name: {gateway}}
		p.plan.Endpoint = netip.AddrPortFrom(gateway, at.Port())
		return
	}
	if !at.Addr().IsValid() {
		return
	}
	for _, s := range p.plan.Config.Subnets {
		if s.Prefix.Contains(at.Addr()) {
			return
		}
	}
	p.plan.Endpoint = at
}
