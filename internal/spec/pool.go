package spec

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/diag"
)

// Machine is a row of the table of an image that several machines share: which
// machine it is about, and what that is called.
type Machine struct {
	MAC    string `json:"mac"`    // lower case, with colons
	Serial string `json:"serial"` // of the Raspberry Pi, or of the firmware's SMBIOS
	Name   string `json:"name"`
	// Address, Gateway, Addresses and Gateways are as those of a Node. The routers of
	// the node are the default.
	Address   netip.Prefix   `json:"address"`
	Gateway   netip.Addr     `json:"gateway"`
	Addresses []netip.Prefix `json:"addresses"`
	Gateways  []netip.Addr   `json:"gateways"`
}

// Pool reports whether the node's image is shared by several machines, each of which
// finds its name in the node's table, or makes one of its Ethernet address.
func (n Node) Pool() bool { return n.Machines != nil || n.NamePrefix != "" }

// As returns the node that a machine of the table is.
func (n Node) As(m Machine) Node {
	n.Image, n.Name, n.Machines, n.NamePrefix = n.Name, m.Name, nil, ""
	inherited := n.StaticGateways()
	n.Address, n.Addresses, n.Gateway, n.Gateways = m.Address, m.Addresses, m.Gateway, m.Gateways
	if len(n.Addresses) > 0 && !n.Static() {
		n.Address = n.Addresses[0]
	}
	if len(n.StaticGateways()) == 0 {
		for _, r := range inherited {
			// It may be of a family that this machine has no address of.
			if slices.ContainsFunc(n.StaticAddresses(), func(a netip.Prefix) bool { return a.Addr().Is6() == r.Is6() }) {
				n.Gateways = append(n.Gateways, r)
			}
		}
	}
	if n.Address.IsValid() {
		n.Gateway = n.gatewayOf(n.Address.Addr().Is6())
	}
	if m.MAC != "" {
		n.Interface.MAC = m.MAC
	}
	n.Serial = m.Serial
	return n
}

// Expand returns the cluster with the machines of tables as nodes.
func (c *Cluster) Expand() *Cluster {
	out := *c
	out.Nodes = nil
	for _, n := range c.Nodes {
		if !n.Pool() {
			out.Nodes = append(out.Nodes, n)
			continue
		}
		for _, m := range n.Machines {
			out.Nodes = append(out.Nodes, n.As(m))
		}
	}
	return &out
}

// poolDefaults fills what the tables leave open.
func (n *Node) poolDefaults() {
	if !n.Pool() {
		return
	}
	if n.NamePrefix == "" {
		n.NamePrefix = n.Name + "-"
	}
	for i := range n.Machines {
		m := &n.Machines[i]
		if mac, err := net.ParseMAC(m.MAC); err == nil {
			m.MAC = mac.String()
		}
		m.Serial = bootplan.Serial(m.Serial)
	}
}

var serial = regexp.MustCompile(`^[a-z0-9]([a-z0-9 ._:/+-]{0,62}[a-z0-9])?$`)

// pool checks a node whose image several machines share, and its table.
func (v *validator) pool(p diag.Path, n Node, subnets []subnet, unique func(q diag.Path, s, what string)) {
	if n.Role == RoleControlPlane {
		// Its keys, etcd and the cluster's endpoint are about one machine.
		v.bad(p.Child("role"), "want worker, or an image of its own for each control plane", "an image with a table of machines is for workers")
	}
	if v.Doc.Has(p.Child("nameFrom")) {
		v.bad(p.Child("nameFrom"), "leave out nameFrom, or machines and namePrefix", "a machine is named by the table or by its platform")
	}
	for _, key := range []string{"address", "addresses"} {
		if v.Doc.Has(p.Child(key)) {
			v.bad(p.Child(key), "give it to one of the machines", "several machines cannot have one address")
		}
	}
	if v.Doc.Has(p.Child("interface", "mac")) {
		v.bad(p.Child("interface", "mac"), "give it to one of the machines, as mac", "several machines cannot have one Ethernet address")
	}
	// What is added makes the shortest name that a machine without a row gets.
	if name := bootplan.FallbackName(n.NamePrefix, net.HardwareAddr{0, 0, 0, 0, 0, 0}); len(validation.IsDNS1123Subdomain(name)) > 0 || len(name) > 63 {
		v.bad(p.Child("namePrefix"), "want at most 57 of a-z, 0-9, - and dots, with a letter or digit in front, such as worker-", "%q does not begin a host name", n.NamePrefix)
	}
	for _, g := range n.StaticGateways() {
		key := p.Child("gateway")
		if v.Doc.Has(p.Child("gateways")) {
			key = p.Child("gateways", slices.Index(n.Gateways, g))
		}
		v.unicast(key, g)
	}
	for i, m := range n.Machines {
		q := p.Child("machines", i)
		v.machine(q, n, m, subnets)
		unique(q.Child("name"), m.Name, "name")
		unique(q.Child("mac"), m.MAC, "MAC address")
		if m.Serial != "" {
			unique(q.Child("serial"), "serial number "+m.Serial, "")
		}
		for j, a := range n.As(m).StaticAddresses() {
			at := q.Child("address")
			if v.Doc.Has(q.Child("addresses")) {
				at = q.Child("addresses", j)
			}
			unique(at, a.Addr().String(), "address")
		}
	}
}

// machine checks a row of a table.
func (v *validator) machine(p diag.Path, n Node, m Machine, subnets []subnet) {
	v.hostName(p.Child("name"), m.Name)
	mac, number := p.Child("mac"), p.Child("serial")
	switch {
	case v.Doc.Has(mac) && v.Doc.Has(number):
		v.bad(number, "keep one of the two", "mac is there too, and a machine is known by one of them")
	case !v.Doc.Has(mac) && !v.Doc.Has(number):
		v.bad(p, "want mac: or serial:", "nothing says which machine this is")
	case v.Doc.Has(number) && !serial.MatchString(m.Serial):
		v.bad(number, `want what the machine says: tr -d '\0' < /proc/device-tree/serial-number, or dmidecode -s system-serial-number`, "%q is not a serial number", m.Serial)
	case v.Doc.Has(mac):
		v.ethernet(mac, m.MAC)
	}
	v.addresses(p, n.As(m), subnets)
}

// ethernet checks the address of one Ethernet interface.
func (v *validator) ethernet(p diag.Path, mac string) {
	const want = "such as 52:54:00:12:34:56"
	hw, err := net.ParseMAC(mac)
	switch {
	case err != nil || len(hw) != 6:
		v.bad(p, want, "%q is not an Ethernet address", mac)
	case hw[0]&1 != 0 || strings.Trim(fmt.Sprintf("%x", []byte(hw)), "0") == "":
		v.bad(p, want, "%s is not the address of one interface", mac)
	}
}
