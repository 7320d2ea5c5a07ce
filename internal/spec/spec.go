// Package spec is the cluster file: its types, its defaults, and Parse, which
// reads it strictly and reports every mistake in one run.
package spec

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/pki"
)

// APIVersion and Kind identify a cluster file.
const (
	APIVersion = "kiln-os.dev/v1alpha1"
	Kind       = "Cluster"
)

// Defaults of the cluster file; those of networking are kubeadm's, except for
// the pod subnet, which is the one flannel's own manifests use.
const (
	DefaultKubernetesVersion = "v1.37.2"
	DefaultPodSubnet         = "10.244.0.0/16"
	DefaultServiceSubnet     = "10.96.0.0/12"
	DefaultDNSDomain         = "cluster.local"
	DefaultTokenTTL          = 24 * time.Hour
)

// Role is what a node is in the cluster.
type Role string

// The roles.
const (
	RoleControlPlane Role = "control-plane"
	RoleWorker       Role = "worker"
)

// Plugin is the pod network that Kiln installs.
type Plugin string

// The plugins.
const (
	PluginFlannel Plugin = "flannel"
	PluginNone    Plugin = "none" // the user installs one
)

// Cluster is the whole file, with defaults applied.
type Cluster struct {
	APIVersion        string `json:"apiVersion"`
	Kind              string `json:"kind"`
	Name              string `json:"name"`
	KubernetesVersion string `json:"kubernetesVersion"`
	// ControlPlaneEndpoint is the host or host:port all nodes and users reach the
	// API at; empty means the virtual IP, or the address of the first control plane.
	ControlPlaneEndpoint string        `json:"controlPlaneEndpoint"`
	VirtualIP            VirtualIP     `json:"virtualIP"`
	EncryptionAlgorithm  pki.Algorithm `json:"encryptionAlgorithm"`
	// CertSANs are further names and addresses in the API server's certificate.
	CertSANs []string          `json:"certSANs"`
	Network  Network           `json:"network"`
	Nodes    []Node            `json:"nodes"`
	WiFi     WiFi              `json:"wifi"`
	SSH      SSH               `json:"ssh"`
	Time     Time              `json:"time"`
	Tokens   Tokens            `json:"tokens"`
	Payload  Payload           `json:"payload"`
	Debian   Debian            `json:"debian"`
	Timeouts bootplan.Timeouts `json:"timeouts"`
	// Butane holds snippets for all nodes, Roles those for the nodes of a role.
	Butane []Snippet `json:"butane"`
	Roles  Roles     `json:"roles"`

	// Kubeadm is what the ClusterConfiguration in the same file sets besides what
	// the fields above say.
	Kubeadm kubeadmapi.ClusterConfiguration `json:"-"`
	// Kubelet and KubeProxy are the KubeletConfiguration and KubeProxyConfiguration
	// in the same file as JSON objects, nil if there is none.
	Kubelet   json.RawMessage `json:"-"`
	KubeProxy json.RawMessage `json:"-"`
	// Documents are kubeadm's InitConfiguration, JoinConfiguration and
	// ResetConfiguration in the same file.
	Documents NodeDocuments `json:"-"`
}

// PayloadSource says where Kubernetes and what else Kiln puts on nodes comes from.
type PayloadSource string

// The sources.
const (
	PayloadCompile PayloadSource = "compile" // from Go modules that Kiln pins
	PayloadRelease PayloadSource = "release" // official binaries and images
)

// Payload is what the nodes run besides Debian's packages.
type Payload struct {
	Source PayloadSource `json:"source"`
	// Manifest is the file that lists a release by URL and digest; a relative path
	// counts from the cluster file's folder.
	Manifest string `json:"manifest"`
}

// Debian says which of its releases the nodes are made of, and as of when.
type Debian struct {
	// Suite is the release's name, such as trixie; "" leaves it to the profile.
	Suite string `json:"suite"`
	// Date is the day, such as 2026-11-01, as of which the archive is judged: for a mirror
	// that stands still. "" is now.
	Date string `json:"date"`
}

// VirtualIP is an address in the control planes' subnet that one of them holds, and
// another takes over. The zero value means none.
type VirtualIP struct {
	Address netip.Addr `json:"address"`
	// RouterID tells it from other virtual addresses in the same network (VRRP's VRID).
	RouterID int `json:"routerID"`
}

// Set reports whether there is one.
func (v VirtualIP) Set() bool { return v.Address.IsValid() }

// Network is the cluster's addresses and names.
type Network struct {
	PodSubnets     []netip.Prefix `json:"podSubnets"`     // one per address family
	ServiceSubnets []netip.Prefix `json:"serviceSubnets"` // one per address family
	DNSDomain      string         `json:"dnsDomain"`
	Plugin         Plugin         `json:"plugin"`
	// Nameservers serve the nodes that name none of their own.
	Nameservers []netip.Addr `json:"nameservers"`
}

// Node is one machine, or several that share an image.
type Node struct {
	Name string `json:"name"`
	// NameFrom is FromPlatform for a node that takes the name that its platform gives the
	// machine; Name is that of the image then.
	NameFrom string `json:"nameFrom"`
	Role     Role   `json:"role"`
	Profile  string `json:"profile"`
	// Formats are those of the node's image files; none means those of the profile.
	Formats []string `json:"formats"`
	// Address is static, with its prefix length (10.0.2.15/24); without one the node asks DHCP.
	Address netip.Prefix `json:"address"`
	Gateway netip.Addr   `json:"gateway"`
	// Addresses are instead of Address one of each family, the primary one first, and
	// Gateways their routers. With defaults applied Address and Gateway are the first.
	Addresses   []netip.Prefix `json:"addresses"`
	Gateways    []netip.Addr   `json:"gateways"`
	Nameservers []netip.Addr   `json:"nameservers"`
	Interface   Interface      `json:"interface"`
	// Labels and Taints of the Kubernetes node. Nil Taints are the role's
	// default, an empty list is none.
	Labels map[string]string `json:"labels"`
	Taints []bootplan.Taint  `json:"taints"`
	// KubeletExtraArgs are flags of this node's kubelet, IgnorePreflightErrors are
	// checks that only warn on it.
	KubeletExtraArgs      []kubeadmapi.Arg `json:"kubeletExtraArgs"`
	IgnorePreflightErrors []string         `json:"ignorePreflightErrors"`
	Butane                []Snippet        `json:"butane"`
	// Machines are the machines that share the node's image; those that are not among
	// them are called NamePrefix and the end of their Ethernet address. See Pool.
	Machines   []Machine `json:"machines"`
	NamePrefix string    `json:"namePrefix"`

	// Image is the name of the node whose image this one has; "" if it is its own.
	Image string `json:"-"`
	// Serial is the serial number by which a machine of a table is known; "" if it is
	// known otherwise.
	Serial string `json:"-"`
}

// FromPlatform is a value of NameFrom.
const FromPlatform = "platform"

// Static reports whether the node has a fixed address.
func (n Node) Static() bool { return n.Address.IsValid() }

// WiFi is the wireless network of the nodes whose Interface says so.
type WiFi struct {
	// Country is where the nodes are, which decides the channels that they may use: its
	// code of ISO 3166-1.
	Country string `json:"country"`
	SSID    string `json:"ssid"` // the network's name
	// Password is that of WPA2: text, or the key that is derived of it as 64
	// hexadecimal digits.
	Password secret.Value `json:"password"`
}

// Interface picks the network interface; empty means any Ethernet.
type Interface struct {
	WiFi bool   `json:"wifi"` // the one wireless interface
	MAC  string `json:"mac"`  // lower case, with colons
	Name string `json:"name"` // "enp1s0"; * matches any characters
}

// SSH is access for root.
type SSH struct {
	AuthorizedKeys []string `json:"authorizedKeys"` // lines of an authorized_keys file
}

// Time is where nodes get the time from.
type Time struct {
	Servers []string `json:"servers"` // names or addresses; empty means the system's default
}

// Tokens is about the bootstrap token.
type Tokens struct {
	TTL *Duration `json:"ttl"` // from the cluster's creation; 0s means for ever
}

// Duration is a time.Duration written as Go does: "24h".
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return err
	}
	if v < 0 {
		return errors.New("it is negative")
	}
	*d = Duration(v)
	return nil
}

// TokenTTL is the life of the bootstrap token; 0 means for ever.
func (c *Cluster) TokenTTL() time.Duration {
	if c.Tokens.TTL == nil {
		return DefaultTokenTTL
	}
	return time.Duration(*c.Tokens.TTL)
}

// ControlPlanes returns the control-plane nodes in the file's order; the first
// one creates the cluster.
func (c *Cluster) ControlPlanes() []Node {
	var out []Node
	for _, n := range c.Nodes {
		if n.Role == RoleControlPlane {
			out = append(out, n)
		}
	}
	return out
}

// Node returns the node with the given name.
func (c *Cluster) Node(name string) (Node, bool) {
	for _, n := range c.Nodes {
		if n.Name == name {
			return n, true
		}
	}
	return Node{}, false
}

// Rank is the node's place among the control planes, 0 for the one that creates the
// cluster; -1 if it is none.
func (c *Cluster) Rank(name string) int {
	return slices.IndexFunc(c.ControlPlanes(), func(n Node) bool { return n.Name == name })
}

// Endpoint is the host:port at which users and joining nodes reach the API: the
// control-plane endpoint, or the first control plane's static address.
func (c *Cluster) Endpoint() (string, error) {
	if c.ControlPlaneEndpoint != "" {
		host, port, err := bootplan.SplitEndpoint(c.ControlPlaneEndpoint)
		if err != nil {
			return "", fmt.Errorf("controlPlaneEndpoint: %w", err)
		}
		return net.JoinHostPort(host, strconv.Itoa(port)), nil
	}
	if c.Existing() {
		if e := c.existingEndpoint(); e != "" {
			return e, nil
		}
		return "", errors.New("nothing says where the API of the cluster is that the nodes join: discovery.bootstrapToken.apiServerEndpoint of the JoinConfiguration")
	}
	cps := c.ControlPlanes()
	if !c.AdvertiseAddress(cps[0]).IsValid() {
		return "", errors.New("the API has no address: set controlPlaneEndpoint, or give the first control-plane node a static address")
	}
	return net.JoinHostPort(c.AdvertiseAddress(cps[0]).String(), strconv.Itoa(c.APIPort(cps[0]))), nil
}

// applyDefaults fills what the file leaves open.
func (c *Cluster) applyDefaults() {
	if c.KubernetesVersion == "" {
		c.KubernetesVersion = DefaultKubernetesVersion
	}
	if c.Payload.Source == "" {
		c.Payload.Source = PayloadCompile
	}
	if vip := c.VirtualIP; vip.Set() {
		if c.ControlPlaneEndpoint == "" {
			c.ControlPlaneEndpoint = net.JoinHostPort(vip.Address.String(), strconv.Itoa(bootplan.DefaultAPIPort))
		}
		if bytes := vip.Address.AsSlice(); vip.RouterID == 0 {
			// As different as the virtual addresses of a /24 are.
			c.VirtualIP.RouterID = max(1, int(bytes[len(bytes)-1]))
		}
	}
	if c.EncryptionAlgorithm == "" {
		c.EncryptionAlgorithm = pki.DefaultAlgorithm
	}
	c.primaryAddresses()
	c.defaultSubnets()
	if c.Network.DNSDomain == "" {
		c.Network.DNSDomain = DefaultDNSDomain
	}
	if c.Network.Plugin == "" {
		c.Network.Plugin = PluginFlannel
		if c.Existing() {
			c.Network.Plugin = PluginNone // that cluster has one, which nobody here knows
		}
	}
	if port := c.bindPort(); port != bootplan.DefaultAPIPort && c.ControlPlaneEndpoint != "" {
		// As kubeadm does: an endpoint without a port has that of the API server.
		if host, had := strings.Trim(c.ControlPlaneEndpoint, "[]"), c.ControlPlaneEndpoint; isAddress(host) || !strings.Contains(had, ":") {
			c.ControlPlaneEndpoint = net.JoinHostPort(host, strconv.Itoa(port))
		}
	}
	def := bootplan.DefaultTimeouts()
	for _, t := range []struct{ have, def *bootplan.Duration }{
		{&c.Timeouts.Network, &def.Network},
		{&c.Timeouts.ContainerdUp, &def.ContainerdUp},
		{&c.Timeouts.ControlPlane, &def.ControlPlane},
		{&c.Timeouts.KubernetesCall, &def.KubernetesCall},
		{&c.Timeouts.NodeReady, &def.NodeReady},
		{&c.Timeouts.Discovery, &def.Discovery},
		{&c.Timeouts.TLSBootstrap, &def.TLSBootstrap},
		{&c.Timeouts.EtcdCall, &def.EtcdCall},
	} {
		if *t.have == 0 {
			*t.have = *t.def
		}
	}
	for i := range c.Nodes {
		n := &c.Nodes[i]
		if len(n.Nameservers) == 0 {
			n.Nameservers = c.Network.Nameservers
		}
		if mac, err := net.ParseMAC(n.Interface.MAC); err == nil {
			n.Interface.MAC = mac.String()
		}
		n.poolDefaults()
	}
}

//go:embed example.yaml
var example []byte

// Example is a commented cluster file with one node; it passes Parse.
func Example() []byte { return append([]byte(nil), example...) }
