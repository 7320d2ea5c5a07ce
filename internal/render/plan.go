package render

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/discoveryfile"
	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/pki"
	"github.com/kiln-os/kiln/profiles"
)

// BootPlan makes the node's boot plan.
func BootPlan(c *spec.Cluster, a *pki.Authority, n spec.Node) (bootplan.Plan, error) {
	p, err := PublicPlan(c, n)
	if err != nil {
		return bootplan.Plan{}, err
	}
	if c.Existing() {
		return p, joinExisting(c, &p)
	}
	p.Cluster.NotBefore = a.CA.Cert.NotBefore.UTC()
	p.Tokens = bootTokens(a, p.Role, n.Name)
	if n.Pool() {
		p.Tokens = []bootplan.Token{plain(a.Token)} // not one of a single node
	}
	if p.Role == bootplan.RoleInit {
		p.Tokens = append(p.Tokens, c.BootstrapTokens(a.Created())...)
	} else if err := discover(c, a, &p); err != nil {
		return bootplan.Plan{}, err
	}
	return p, p.Validate()
}

// PublicPlan is the node's boot plan without what comes of the cluster's secrets: a
// joining node cannot find its cluster with it.
func PublicPlan(c *spec.Cluster, n spec.Node) (bootplan.Plan, error) {
	r, err := role(c, n)
	if err != nil {
		return bootplan.Plan{}, err
	}
	p := bootplan.Plan{
		APIVersion: bootplan.APIVersion,
		Kind:       bootplan.Kind,
		Role:       r,
		Cluster: bootplan.Cluster{
			Name:                 c.Name,
			KubernetesVersion:    c.KubernetesVersion,
			ControlPlaneEndpoint: c.ControlPlaneEndpoint,
			PodSubnets:           texts(c.Network.PodSubnets),
			ServiceSubnets:       texts(c.Network.ServiceSubnets),
			DNSDomain:            c.Network.DNSDomain,
			EncryptionAlgorithm:  string(c.EncryptionAlgorithm),
			PodNetwork:           string(c.Network.Plugin),
			Kubeadm:              c.Kubeadm,
			Kubelet:              c.Kubelet,
			KubeProxy:            c.KubeProxy,
		},
		Node:     bootplan.Node{Name: n.Name, NameFromPlatform: n.NameFrom == spec.FromPlatform, Labels: n.Labels, Taints: c.NodeTaints(n), NodeSettings: c.Settings(n)},
		Timeouts: c.NodeTimeouts(n),
	}
	for _, s := range c.CertSANs {
		// kubeadm keeps them in lower case in its configuration.
		p.Cluster.CertSANs = append(p.Cluster.CertSANs, strings.ToLower(s))
	}
	if c.VirtualIP.Set() {
		p.Cluster.VirtualIP = c.VirtualIP.Address.String()
		if host, _, err := bootplan.SplitEndpoint(c.ControlPlaneEndpoint); err == nil && host != p.Cluster.VirtualIP && !slices.Contains(p.Cluster.CertSANs, p.Cluster.VirtualIP) {
			// Where the endpoint's name is not known yet the address does, too.
			p.Cluster.CertSANs = append(p.Cluster.CertSANs, p.Cluster.VirtualIP)
		}
	}
	if n.Pool() {
		p.Node.Name, p.Node.FromTable = "", true
	}
	profile, err := profiles.Load(n.Profile)
	if err != nil {
		return bootplan.Plan{}, err
	}
	if profile.Zram != "" {
		if p.Node.Zram, err = startsWithSwap(p); err != nil {
			return bootplan.Plan{}, err
		}
	}
	p.Node.NodeIPs = n.NodeIPs()
	if addr := c.AdvertiseAddress(n); n.Role == spec.RoleControlPlane && addr.IsValid() {
		p.Node.AdvertiseAddress = addr.String()
	}
	return p, nil
}

// joinExisting says how a worker finds a cluster that is not in the file.
func joinExisting(c *spec.Cluster, p *bootplan.Plan) error {
	token, there, err := c.JoinToken()
	if err != nil {
		return fmt.Errorf("the bootstrap token of the JoinConfiguration: %w", err)
	}
	if there {
		p.Tokens = []bootplan.Token{plain(token)}
	}
	if kubeconfig := c.Documents.DiscoveryFile; !kubeconfig.IsZero() {
		p.Discovery = &bootplan.Discovery{Kubeconfig: kubeconfig}
		return p.Validate()
	}
	endpoint, err := c.Endpoint()
	if err != nil {
		return err
	}
	p.Discovery = &bootplan.Discovery{Endpoint: endpoint, CACertHashes: c.CAPins()}
	return p.Validate()
}

// discover says how a node finds the cluster that it joins: with the user's kubeconfig,
// else by token. It needs no token if the kubeconfig has credentials.
func discover(c *spec.Cluster, a *pki.Authority, p *bootplan.Plan) error {
	if kubeconfig := c.Documents.DiscoveryFile; !kubeconfig.IsZero() {
		f, err := discoveryfile.Parse(kubeconfig)
		if err != nil {
			return fmt.Errorf("discovery.file: %w", err)
		}
		cas, err := f.CAs()
		if err != nil {
			return fmt.Errorf("discovery.file: its CA: %w", err)
		}
		if !slices.ContainsFunc(cas, a.CA.Cert.Equal) {
			return fmt.Errorf("discovery.file: the kubeconfig of %s trusts another CA than ca.crt of the cluster's secrets: nodes would join another cluster; want the kubeconfig of this one", f.Cluster.Server)
		}
		p.Discovery = &bootplan.Discovery{Kubeconfig: kubeconfig}
		if f.Credentials {
			p.Tokens = nil
		}
		return nil
	}
	endpoint, err := c.Endpoint()
	if err != nil {
		return err
	}
	pin, err := a.Pin()
	if err != nil {
		return err
	}
	p.Discovery = &bootplan.Discovery{Endpoint: endpoint, CACertHashes: []string{pin}}
	return nil
}

// bootTokens are the tokens that a node that creates the cluster makes known to it,
// and the one with which another joins.
func bootTokens(a *pki.Authority, r bootplan.Role, node string) []bootplan.Token {
	if r != bootplan.RoleInit {
		return []bootplan.Token{plain(a.TokenFor(node))}
	}
	out := []bootplan.Token{plain(a.Token)}
	for _, name := range slices.Sorted(maps.Keys(a.NodeTokens)) {
		t := plain(a.NodeTokens[name])
		t.Description = TokenDescription(name)
		out = append(out, t)
	}
	return out
}

func plain(t pki.Token) bootplan.Token {
	return bootplan.Token{ID: t.ID, Secret: t.Secret, Expires: t.Expires}
}

// machines is the table of an image that several machines share.
func machines(n spec.Node, unmanaged []string) bootplan.Machines {
	t := bootplan.Machines{NamePrefix: n.NamePrefix}
	for _, m := range n.Machines {
		as := n.As(m)
		row := bootplan.Machine{MAC: m.MAC, Serial: m.Serial, Name: m.Name, NodeIPs: as.NodeIPs()}
		if as.Static() {
			row.Addresses = texts(as.StaticAddresses())
			row.Network = networkUnit(as, unmanaged)
		}
		t.Machines = append(t.Machines, row)
	}
	return t
}

// TokenDescription is what kubeadm token list shows of the token of a node, or with
// "" of one that all nodes may use.
func TokenDescription(node string) string {
	if node == "" {
		return "Made by imagegen token."
	}
	return "For node " + node + ", made by imagegen token."
}

func texts(prefixes []netip.Prefix) []string {
	out := make([]string, len(prefixes))
	for i, p := range prefixes {
		out[i] = p.String()
	}
	return out
}
