// Package bootplan is the contract between imagegen and firstboot: the one file,
// /etc/kiln/boot.yaml, that tells a machine what to become. imagegen renders it,
// Ignition delivers it with mode 0600, and firstboot reads nothing else.
package bootplan

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/internal/secret"
)

// Path is where Ignition puts the plan.
const Path = "/etc/kiln/boot.yaml"

// APIVersion and Kind identify the document.
const (
	APIVersion = "boot.kiln-os.dev/v1alpha1"
	Kind       = "BootPlan"
)

// Role is what the node does on its first boot.
type Role string

// The roles.
const (
	RoleInit             Role = "init"               // create the cluster
	RoleJoinControlPlane Role = "join-control-plane" // add a control plane
	RoleJoinWorker       Role = "join-worker"
)

// Joins reports whether a node of the role joins a cluster that there is.
func (r Role) Joins() bool { return r == RoleJoinControlPlane || r == RoleJoinWorker }

// Plan is the whole document.
type Plan struct {
	APIVersion string  `json:"apiVersion"`
	Kind       string  `json:"kind"`
	Role       Role    `json:"role"`
	Cluster    Cluster `json:"cluster"`
	Node       Node    `json:"node"`
	Tokens     []Token `json:"-"`
	// TokensRemoved says that firstboot took the tokens out of the plan once the node
	// had joined.
	TokensRemoved bool `json:"tokensRemoved,omitempty"`
	// Discovery is how a joining node finds its cluster; nil with RoleInit.
	Discovery *Discovery `json:"discovery,omitempty"`
	Timeouts  Timeouts   `json:"timeouts"`
}

// Discovery is how a joining node finds its cluster: by token, as kubeadm's
// discovery.bootstrapToken, or with a Kubeconfig, as its discovery.file.
type Discovery struct {
	// Endpoint is the API server's host:port.
	Endpoint string `json:"endpoint,omitempty"`
	// CACertHashes are the pins of the cluster's CA, "sha256:" and hex, one of
	// which must match.
	CACertHashes []string `json:"caCertHashes,omitempty"`
	// Kubeconfig names the cluster's server and usually its CA; then there are no
	// Endpoint and pins. It may hold credentials, which are used instead of a token.
	Kubeconfig secret.Value `json:"-"`
}

// Cluster is what all nodes share.
type Cluster struct {
	Name              string `json:"name"`
	KubernetesVersion string `json:"kubernetesVersion"` // "v1.37.2"
	// ControlPlaneEndpoint is host or host:port; without a port 6443 is meant.
	ControlPlaneEndpoint string `json:"controlPlaneEndpoint,omitempty"`
	// VirtualIP is an address that the control planes pass among themselves; empty
	// means none. It is never the address of the node that holds it.
	VirtualIP      string   `json:"virtualIP,omitempty"`
	PodSubnets     []string `json:"podSubnets"`     // CIDRs, one per family
	ServiceSubnets []string `json:"serviceSubnets"` // CIDRs, one per family
	DNSDomain      string   `json:"dnsDomain"`
	CertSANs       []string `json:"certSANs,omitempty"`
	// NotBefore is when the cluster's CA begins to be valid: no clock that is right
	// shows an earlier time. The zero time says nothing.
	NotBefore time.Time `json:"notBefore,omitzero"`
	// EncryptionAlgorithm is kubeadm's name: RSA-2048, RSA-3072, RSA-4096, ECDSA-P256 or ECDSA-P384.
	EncryptionAlgorithm string `json:"encryptionAlgorithm"`
	// PodNetwork is the CNI that firstboot installs: "flannel" or "none".
	PodNetwork string `json:"podNetwork"`
	// Kubeadm is what the user's ClusterConfiguration sets besides the fields above,
	// which are empty in it.
	Kubeadm kubeadmapi.ClusterConfiguration `json:"kubeadm,omitzero"`
	// Kubelet and KubeProxy are the user's KubeletConfiguration and
	// KubeProxyConfiguration, as JSON objects; nil if there is none.
	Kubelet   json.RawMessage `json:"kubelet,omitempty"`
	KubeProxy json.RawMessage `json:"kubeProxy,omitempty"`
}

// CertificatesDir is where the cluster's certificates are on its nodes.
func (c Cluster) CertificatesDir() string {
	return cmp.Or(c.Kubeadm.CertificatesDir, kubeadmapi.DefaultCertificatesDir)
}

// LocalEtcd is what is set for the etcd of control-plane nodes.
func (c Cluster) LocalEtcd() kubeadmapi.LocalEtcd {
	var out kubeadmapi.LocalEtcd
	if c.Kubeadm.Etcd.Local != nil {
		out = *c.Kubeadm.Etcd.Local
	}
	out.DataDir = cmp.Or(out.DataDir, kubeadmapi.DefaultEtcdDataDir)
	return out
}

// ExternalEtcd is the etcd that somebody else runs; nil if control planes run their own.
func (c Cluster) ExternalEtcd() *kubeadmapi.ExternalEtcd { return c.Kubeadm.Etcd.External }

// CertificateValidity is the life of certificates that are not CAs; 0 means
// kubeadm's default.
func (c Cluster) CertificateValidity() time.Duration {
	if d := c.Kubeadm.CertificateValidityPeriod; d != nil {
		return d.Duration
	}
	return 0
}

// Node is what this machine is in the cluster.
type Node struct {
	Name string `json:"name"`
	// FromTable says that the machine finds its name in the table at MachinesPath; then
	// Name is empty until it has.
	FromTable bool `json:"fromTable,omitempty"`
	// NameFromPlatform says that the platform names the machine, and that Name is the
	// image's.
	NameFromPlatform bool `json:"nameFromPlatform,omitempty"`
	// AdvertiseAddress is an IP literal; empty means the address of the default route.
	AdvertiseAddress string            `json:"advertiseAddress,omitempty"`
	Labels           map[string]string `json:"labels,omitempty"`
	// Zram says that the machine swaps to a compressed part of its memory, and that its
	// kubelet starts all the same.
	Zram bool `json:"zram,omitempty"`
	// Taints: nil means the default of the role, an empty list means none.
	Taints []Taint `json:"taints"`

	NodeSettings
}

// Taint is a Kubernetes node taint.
type Taint struct {
	Key    string `json:"key"`
	Value  string `json:"value,omitempty"`
	Effect string `json:"effect"` // NoSchedule, PreferNoSchedule or NoExecute
}

// Token is a bootstrap token. Expires is absolute: it counts from the creation
// of the cluster, not from the build of the image. The zero time means never.
type Token struct {
	ID      string
	Secret  secret.Value
	Expires time.Time
	// Description, Usages and Groups are kubeadm's; empty ones mean the defaults of a
	// token for nodes.
	Description    string
	Usages, Groups []string
}

// Timeouts bound firstboot's waiting.
type Timeouts struct {
	Network        Duration `json:"network"`        // for a default route
	ContainerdUp   Duration `json:"containerd"`     // for the CRI socket
	ControlPlane   Duration `json:"controlPlane"`   // for the API server, controller manager and scheduler
	KubernetesCall Duration `json:"kubernetesCall"` // for one API object to be accepted
	NodeReady      Duration `json:"nodeReady"`
	// Discovery is how long a joining node waits for its cluster to answer as it
	// should, TLSBootstrap for its kubelet to get a certificate, and EtcdCall for
	// etcd to take in a new member.
	Discovery    Duration `json:"discovery"`
	TLSBootstrap Duration `json:"tlsBootstrap"`
	EtcdCall     Duration `json:"etcdCall"`
}

// Duration is a time.Duration written as Go does: "10m".
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err == nil && v <= 0 {
		err = fmt.Errorf("duration %q must be positive, such as 10m", b)
	}
	*d = Duration(v)
	return err
}

// DefaultTimeouts are generous: a Raspberry Pi or an emulated machine needs
// minutes where a server needs seconds, and giving up helps nobody. A node may be
// switched on long before the control plane that it joins.
func DefaultTimeouts() Timeouts {
	return Timeouts{
		Network:        Duration(30 * time.Minute),
		ContainerdUp:   Duration(10 * time.Minute),
		ControlPlane:   Duration(30 * time.Minute),
		KubernetesCall: Duration(10 * time.Minute),
		NodeReady:      Duration(30 * time.Minute),
		Discovery:      Duration(24 * time.Hour),
		TLSBootstrap:   Duration(time.Hour),
		EtcdCall:       Duration(30 * time.Minute),
	}
}

// wire is the document as it stands in the file: a Plan whose tokens are revealed.
type wire struct {
	Plan            `json:",inline"`
	BootstrapTokens []wireToken `json:"bootstrapTokens,omitempty"`
	// DiscoveryKubeconfig is Plan.Discovery.Kubeconfig.
	DiscoveryKubeconfig string `json:"discoveryKubeconfig,omitempty"`
}

type wireToken struct {
	ID      string     `json:"id"`
	Secret  string     `json:"secret"`
	Expires *time.Time `json:"expires,omitempty"`

	Description string   `json:"description,omitempty"`
	Usages      []string `json:"usages,omitempty"`
	Groups      []string `json:"groups,omitempty"`
}

// Marshal renders the plan as YAML. The result holds the token secrets: callers
// keep it in a secret.Value or a file of mode 0600.
func (p Plan) Marshal() ([]byte, error) {
	p.APIVersion, p.Kind = APIVersion, Kind
	if err := p.Validate(); err != nil {
		return nil, err
	}
	w := wire{Plan: p}
	for _, t := range p.Tokens {
		wt := wireToken{ID: t.ID, Secret: t.Secret.RevealString(), Description: t.Description, Usages: t.Usages, Groups: t.Groups}
		if !t.Expires.IsZero() {
			e := t.Expires.UTC()
			wt.Expires = &e
		}
		w.BootstrapTokens = append(w.BootstrapTokens, wt)
	}
	if p.Discovery != nil {
		w.DiscoveryKubeconfig = p.Discovery.Kubeconfig.RevealString()
	}
	return yaml.Marshal(w)
}

// further begins a document after another; a line of a value cannot look like that.
var further = regexp.MustCompile(`(?m)^---(\s|$)`)

// firstDocument is data without what may stand before its first document.
func firstDocument(data []byte) []byte {
	for {
		line, rest, more := bytes.Cut(data, []byte("\n"))
		text := bytes.TrimSpace(line)
		switch {
		case bytes.HasPrefix(line, []byte("---")):
			return rest
		case !more || len(text) > 0 && text[0] != '#':
			return data
		}
		data = rest
	}
}

// Parse reads a plan strictly: unknown and duplicate keys, and further documents, are
// errors.
func Parse(data []byte) (Plan, error) {
	if further.Match(firstDocument(data)) {
		return Plan{}, errors.New("boot plan: there is a second document; want one")
	}
	w := wire{Plan: Plan{Timeouts: DefaultTimeouts()}}
	if err := yaml.UnmarshalStrict(data, &w); err != nil {
		return Plan{}, fmt.Errorf("boot plan: %w", err)
	}
	p := w.Plan
	if d := p.Discovery; d != nil && d.Endpoint == "" && len(d.CACertHashes) == 0 {
		// The decoder makes one for the key timeouts.discovery.
		p.Discovery = nil
	}
	if p.APIVersion != APIVersion || p.Kind != Kind {
		return Plan{}, fmt.Errorf("boot plan: apiVersion %q, kind %q; this firstboot reads %s, kind %s", p.APIVersion, p.Kind, APIVersion, Kind)
	}
	for _, t := range w.BootstrapTokens {
		tok := Token{ID: t.ID, Secret: secret.FromString(t.Secret), Description: t.Description, Usages: t.Usages, Groups: t.Groups}
		if t.Expires != nil {
			tok.Expires = *t.Expires
		}
		p.Tokens = append(p.Tokens, tok)
	}
	if w.DiscoveryKubeconfig != "" {
		if p.Discovery == nil {
			p.Discovery = &Discovery{}
		}
		p.Discovery.Kubeconfig = secret.FromString(w.DiscoveryKubeconfig)
	}
	return p, p.Validate()
}

// Validate checks what firstboot relies on and reports every mistake.
func (p Plan) Validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf("boot plan: "+format, a...)) }
	switch p.Role {
	case RoleInit, RoleJoinControlPlane, RoleJoinWorker:
	default:
		bad("role %q is none of %s, %s, %s", p.Role, RoleInit, RoleJoinControlPlane, RoleJoinWorker)
	}
	if p.Cluster.Name == "" {
		bad("cluster.name is empty")
	}
	if p.Cluster.KubernetesVersion == "" {
		bad("cluster.kubernetesVersion is empty")
	}
	if p.Cluster.DNSDomain == "" {
		bad("cluster.dnsDomain is empty")
	}
	switch {
	case p.Node.Name == "" && !p.Node.FromTable:
		bad("node.name is empty")
	case p.Node.FromTable && (p.Node.Name != "" || p.Role != RoleJoinWorker):
		bad("node.fromTable is for workers that have no name yet")
	}
	for _, c := range [][]string{p.Cluster.PodSubnets, p.Cluster.ServiceSubnets} {
		if len(c) == 0 || len(c) > 2 {
			bad("podSubnets and serviceSubnets each need one CIDR, or one per address family")
		}
		for _, s := range c {
			if _, err := netip.ParsePrefix(s); err != nil {
				bad("%q is not a CIDR: %v", s, err)
			}
		}
	}
	if a := p.Node.AdvertiseAddress; a != "" {
		if _, err := netip.ParseAddr(a); err != nil {
			bad("node.advertiseAddress %q is not an IP address", a)
		}
	}
	if e := p.Cluster.ControlPlaneEndpoint; e != "" {
		if _, _, err := SplitEndpoint(e); err != nil {
			bad("cluster.controlPlaneEndpoint: %v", err)
		}
	}
	if a := p.Cluster.VirtualIP; a != "" {
		if _, err := netip.ParseAddr(a); err != nil {
			bad("cluster.virtualIP %q is not an IP address", a)
		}
	}
	for i, t := range p.Tokens {
		// The message quotes nothing of it: a malformed token may still be most of one.
		if !tokenID.MatchString(t.ID) || !tokenSecret.MatchString(t.Secret.RevealString()) {
			bad("bootstrapTokens[%d]: a token has an id of 6 characters and a secret of 16, all of a-z and 0-9", i)
		}
		for _, u := range t.Usages {
			if u != "signing" && u != "authentication" {
				bad("bootstrapTokens[%d].usages: %q is neither signing nor authentication", i, u)
			}
		}
	}
	if p.Role.Joins() {
		p.validateJoin(bad)
	}
	switch p.Cluster.PodNetwork {
	case "flannel", "none":
	default:
		bad("cluster.podNetwork %q is neither flannel nor none", p.Cluster.PodNetwork)
	}
	return errors.Join(errs...)
}

// Bootstrap tokens and CA pins, as kubeadm has them.
var (
	tokenID     = regexp.MustCompile(`^[a-z0-9]{6}$`)
	tokenSecret = regexp.MustCompile(`^[a-z0-9]{16}$`)
	caPin       = regexp.MustCompile(`^sha256:[0-9a-fA-F]{64}$`)
)

// validateJoin checks how a joining node finds its cluster and is let in.
func (p Plan) validateJoin(bad func(string, ...any)) {
	d := p.Discovery
	switch {
	case p.TokensRemoved && (d == nil || d.Endpoint == ""):
		return // it had joined with a kubeconfig, which was removed
	case d == nil || d.Endpoint == "" && d.Kubeconfig.IsZero():
		bad("discovery: a joining node needs the endpoint and a CA pin, or a kubeconfig")
		return
	case !d.Kubeconfig.IsZero() && (d.Endpoint != "" || len(d.CACertHashes) > 0):
		bad("discovery: an endpoint with CA pins and discoveryKubeconfig are two ways to the cluster; want one of them")
		return
	case !d.Kubeconfig.IsZero():
		return // it may hold the credentials too
	}
	if _, _, err := SplitEndpoint(d.Endpoint); err != nil {
		bad("discovery.endpoint: %v", err)
	}
	if len(d.CACertHashes) == 0 {
		bad("discovery.caCertHashes: a joining node needs a CA pin: it would give its token to whoever answers")
	}
	for i, pin := range d.CACertHashes {
		if !caPin.MatchString(pin) {
			bad("discovery.caCertHashes[%d]: %q is not sha256: and 64 hexadecimal digits", i, pin)
		}
	}
	if len(p.Tokens) == 0 && !p.TokensRemoved {
		bad("bootstrapTokens: a joining node needs one")
	}
}

// DefaultAPIPort is the API server's secure port.
const DefaultAPIPort = 6443

// SplitEndpoint splits host, host:port, [v6]:port or a bare IPv6 literal into
// host and port; the port defaults to 6443.
func SplitEndpoint(e string) (host string, port int, err error) {
	if a, err := netip.ParseAddr(e); err == nil {
		return a.String(), DefaultAPIPort, nil
	}
	h, p, err := net.SplitHostPort(e)
	if err != nil {
		h, p, err = net.SplitHostPort(e + ":" + strconv.Itoa(DefaultAPIPort))
	}
	if err != nil {
		return "", 0, fmt.Errorf("%q is not host, host:port or [IPv6]:port", e)
	}
	n, err := strconv.Atoi(p)
	if err != nil || n < 1 || n > 65535 || h == "" {
		return "", 0, fmt.Errorf("%q is not host, host:port or [IPv6]:port", e)
	}
	return h, n, nil
}
