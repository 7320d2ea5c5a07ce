// Package nodeconfig is what every phase of firstboot gets: the boot plan,
// completed with what only the running machine knows. A Config is made once and
// never changed.
package nodeconfig

import (
	"encoding/json"
	"net/netip"

	"sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/internal/bootplan"
)

// Config describes the node and its cluster.
type Config struct {
	Plan bootplan.Plan
	// FromCluster says that Plan.Cluster is what the cluster which the node joins has
	// stored of itself: what its creator set is in it, and nothing else is to be.
	FromCluster bool
	// NodeName is the Kubernetes node name: lower case, a DNS-1123 subdomain.
	NodeName string
	// Hostname is the kernel's host name; kubelet needs --hostname-override if it differs.
	Hostname string
	// AdvertiseAddress is the address the API server and etcd are reached at.
	AdvertiseAddress netip.Addr
	// NodeIPs are the node's addresses, of each family of the cluster one, the primary
	// one first; empty where the kubelet finds its one IPv4 address by itself.
	NodeIPs []netip.Addr
	// ResolvConf is the kubelet's resolvConf: /run/systemd/resolve/resolv.conf if
	// systemd-resolved runs, else "".
	ResolvConf string
}

// LocalAPIEndpoint is the node's own API server as host:port.
func (c Config) LocalAPIEndpoint() string { return c.Plan.LocalAPIEndpoint(c.AdvertiseAddress) }

// ControlPlaneEndpoint is the cluster's shared endpoint as host:port, or the
// local one if the cluster has none.
func (c Config) ControlPlaneEndpoint() string { return c.Plan.SharedAPIEndpoint(c.AdvertiseAddress) }

// Families returns the address families of the cluster's pods, the primary one first:
// whether it is IPv6, and whether there is the other one too.
func (c Config) Families() (v6First, both bool) {
	var have [2]bool
	for i, s := range c.Plan.Cluster.ServiceSubnets {
		if p, err := netip.ParsePrefix(s); err == nil && i == 0 {
			v6First = p.Addr().Is6()
		}
	}
	for _, s := range c.Plan.Cluster.PodSubnets {
		if p, err := netip.ParsePrefix(s); err == nil {
			if p.Addr().Is6() {
				have[1] = true
			} else {
				have[0] = true
			}
		}
	}
	return v6First, have[0] && have[1]
}

// APIServiceIP is the first address of the first service subnet.
func (c Config) APIServiceIP() (netip.Addr, error) { return c.Plan.Cluster.ServiceIP(1) }

// DNSServiceIP is the tenth address of the first service subnet.
func (c Config) DNSServiceIP() (netip.Addr, error) { return c.Plan.Cluster.ServiceIP(10) }

// DecodeComponent reads a user's component configuration of the boot plan into the
// type that it is for; nil leaves it as it is.
func DecodeComponent(document json.RawMessage, into any) error {
	if document == nil {
		return nil
	}
	return yaml.UnmarshalStrict(document, into)
}
