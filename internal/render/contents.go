package render

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/keepalived"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/pki"
	"github.com/kiln-os/kiln/profiles"
)

// entry is a file or folder of the node, owned by root.
type entry struct {
	path string
	mode int
	dir  bool
	data secret.Value
}

func dir(path string, mode int) entry { return entry{path: path, mode: mode, dir: true} }

func file(path string, mode int, data secret.Value) entry {
	return entry{path: path, mode: mode, data: data}
}

func textFile(path, text string) entry { return file(path, 0o644, secret.FromString(text)) }

// contents lists what the node is given, in the order of the config.
func contents(c *spec.Cluster, a *pki.Authority, n spec.Node, plan bootplan.Plan) ([]entry, error) {
	planYAML, err := plan.Marshal()
	if err != nil {
		return nil, err
	}
	p, err := profiles.Load(n.Profile)
	if err != nil {
		return nil, err
	}
	out := []entry{
		textFile("/etc/hostname", n.Name+"\n"),
		dir("/etc/kiln", 0o700),
		file(bootplan.Path, 0o600, secret.New(planYAML)),
		textFile("/etc/systemd/network/10-kiln.network", networkUnit(n, p.UnmanagedDrivers)),
	}
	if p.Zram != "" && !plan.Node.Zram {
		out = append(out, textFile(zramConfig, "# No swap: the kubelet would not start (failSwapOn).\n"))
	}
	if n.Interface.WiFi {
		wifi, err := wifiFiles(c.WiFi)
		if err != nil {
			return nil, err
		}
		out = append(out, wifi...)
	}
	if n.Pool() {
		table, err := machines(n, p.UnmanagedDrivers).Marshal()
		if err != nil {
			return nil, err
		}
		out = append(out, textFile(bootplan.MachinesPath, string(table)))
	}
	if h := hosts(c); h != "" {
		out = append(out, textFile("/etc/hosts", h))
	}
	if len(c.Time.Servers) > 0 {
		out = append(out, textFile("/etc/systemd/timesyncd.conf.d/10-kiln.conf", "[Time]\nNTP="+strings.Join(c.Time.Servers, " ")+"\n"))
	}
	if n.Role != spec.RoleControlPlane {
		return out, nil
	}
	if c.VirtualIP.Set() {
		if !n.Static() {
			return nil, fmt.Errorf("without a static address it cannot hold the virtual IP %s", c.VirtualIP.Address)
		}
		vip := keepalived.Config{VirtualIP: c.VirtualIP.Address, RouterID: c.VirtualIP.RouterID, NodeName: n.Name, Address: n.Address.Addr(), Rank: c.Rank(n.Name)}
		out = append(out, textFile(keepalived.Path, string(vip.Marshal())))
	}
	pkiDir := plan.Cluster.CertificatesDir()
	out = append(out, dir(pkiDir, 0o755), dir(pkiDir+"/etcd", 0o755))
	for _, ca := range []struct {
		base string
		ca   *pki.CA
	}{{"ca", a.CA}, {"front-proxy-ca", a.FrontProxyCA}, {"etcd/ca", a.EtcdCA}} {
		if ca.ca.KeyPEM.IsZero() && len(a.Provided[n.Name]) == 0 {
			return nil, fmt.Errorf("the key of CA %s is missing, and nothing that it has signed is provided", ca.base)
		}
		out = append(out, file(pkiDir+"/"+ca.base+".crt", 0o644, secret.New(ca.ca.CertPEM)))
		if !ca.ca.KeyPEM.IsZero() {
			out = append(out, file(pkiDir+"/"+ca.base+".key", 0o600, ca.ca.KeyPEM))
		}
	}
	for _, f := range a.Provided[n.Name] {
		path := "/etc/kubernetes/" + f.Path
		if rest, ok := strings.CutPrefix(f.Path, "pki/"); ok {
			path = pkiDir + "/" + rest
		}
		mode := 0o644
		if f.Private {
			mode = 0o600
		}
		out = append(out, file(path, mode, f.Data))
	}
	return append(out,
		file(pkiDir+"/sa.key", 0o600, a.ServiceAccountKey),
		file(pkiDir+"/sa.pub", 0o600, secret.New(a.ServiceAccountPub))), nil
}

// networkUnit is the node's systemd.network(5) file. Interfaces of the drivers in
// unmanaged are left alone.
func networkUnit(n spec.Node, unmanaged []string) string {
	var b strings.Builder
	line := func(format string, a ...any) { fmt.Fprintf(&b, format+"\n", a...) }
	line("[Match]")
	if n.Interface.MAC != "" {
		line("MACAddress=%s", n.Interface.MAC)
	}
	if n.Interface.Name != "" {
		line("Name=%s", n.Interface.Name)
	}
	switch {
	case n.Interface.WiFi:
		line("Name=%s", wlan)
	case n.Interface.Name == "":
		// Not bridges, VXLAN and the host's ends of pod interfaces: those have a
		// kind, belong to the CNI, and may share the MAC of a real interface.
		line("Type=ether")
		line("Kind=!*")
	}
	if len(unmanaged) > 0 {
		line("Driver=!%s", strings.Join(unmanaged, " "))
	}
	line("\n[Network]")
	if n.Static() {
		var announced, static6 bool
		for _, a := range n.StaticAddresses() {
			line("Address=%s", a)
			static6 = static6 || a.Addr().Is6()
		}
		for _, g := range n.StaticGateways() {
			line("Gateway=%s", g)
			announced = announced || g.Is6()
		}
		if static6 {
			// A router's announcements would add addresses that nobody chose; without a
			// gateway they are the way out. Said in words, because the node forwards,
			// and a node that forwards is a router that need not listen.
			line("IPv6AcceptRA=%t", !announced)
		}
	} else {
		line("DHCP=yes")
	}
	for _, a := range n.Nameservers {
		line("DNS=%s", a)
	}
	if !n.Static() {
		// By MAC, a lease survives a factory reset, which makes a new machine ID:
		// etcd and the API server need the address to stay.
		line("\n[DHCPv4]\nClientIdentifier=mac\nUseHostname=no")
		line("\n[DHCPv6]\nUseHostname=no")
	}
	return b.String()
}

// hosts makes the name of the control-plane endpoint resolvable where the
// cluster file alone says which address it has: a virtual IP, or one control plane
// with a static address. Then the first boot needs no DNS. Otherwise it is "" and the
// image's own file stays.
func hosts(c *spec.Cluster) string {
	if c.ControlPlaneEndpoint == "" {
		return ""
	}
	host, _, err := bootplan.SplitEndpoint(c.ControlPlaneEndpoint)
	if err != nil {
		return ""
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return ""
	}
	var addresses []netip.Addr
	if cps := c.ControlPlanes(); c.VirtualIP.Set() {
		addresses = append(addresses, c.VirtualIP.Address)
	} else if len(cps) == 1 {
		for _, a := range cps[0].StaticAddresses() {
			addresses = append(addresses, a.Addr())
		}
	}
	if len(addresses) == 0 {
		return ""
	}
	out := "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
	for _, a := range addresses {
		out += a.String() + " " + host + "\n"
	}
	return out
}
