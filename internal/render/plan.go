package render

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/pki"
)

// bootPlan makes the node's boot plan.
func bootPlan(c *spec.Cluster, a *pki.Authority, n spec.Node) (bootplan.Plan, error) {
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
			NotBefore:            a.CA.Cert.NotBefore.UTC(),
		},
		Node:     bootplan.Node{Name: n.Name, NameFromPlatform: n.NameFrom == spec.FromPlatform, Labels: n.Labels, Taints: c.NodeTaints(n), NodeSettings: c.Settings(n)},
		Tokens:   bootTokens(a, r, n.Name),
		Timeouts: c.NodeTimeouts(n),
	}
	if r == bootplan.RoleInit {
		p.Tokens = append(p.Tokens, c.BootstrapTokens(a.Created())...)
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
	p.Node.NodeIPs = n.NodeIPs()
	if addr := c.AdvertiseAddress(n); n.Role == spec.RoleControlPlane && addr.IsValid() {
		p.Node.AdvertiseAddress = addr.String()
	}
	if r != bootplan.RoleInit {
		endpoint, err := c.Endpoint()
		if err != nil {
			return bootplan.Plan{}, err
		}
		pin, err := a.Pin()
		if err != nil {
			return bootplan.Plan{}, err
		}
		p.Discovery = &bootplan.Discovery{Endpoint: endpoint, CACertHashes: []string{pin}}
	}
	return p, p.Validate()
}

// bootTokens are the tokens that a node that creates the cluster makes known to it,
// and the one with which another joins.
func bootTokens(a *pki.Authority, r bootplan.Role, node string) []bootplan.Token {
	plain := func(t pki.Token) bootplan.Token {
		return bootplan.Token{ID: t.ID, Secret: t.Secret, Expires: t.Expires}
	}
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
