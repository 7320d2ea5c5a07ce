package spec

import (
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"

	"github.com/kiln-os/kiln/internal/diag"
	"github.com/kiln-os/kiln/internal/discoveryfile"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/internal/strict"
	"github.com/kiln-os/kiln/pki"
)

// A file without a control plane is of workers for a cluster that there is, whoever has
// made it. Its JoinConfiguration says how they find it and with which token, as
// `kubeadm token create --print-join-command` prints them.

// Existing reports whether the nodes join a cluster that is not in the file: all of
// them are workers.
func (c *Cluster) Existing() bool {
	return len(c.Nodes) > 0 && !slices.ContainsFunc(c.Nodes, func(n Node) bool { return n.Role != RoleWorker })
}

// JoinToken is the bootstrap token with which nodes join an existing cluster; false if
// they need none.
func (c *Cluster) JoinToken() (pki.Token, bool, error) {
	text := c.joinToken()
	if text.IsZero() {
		return pki.Token{}, false, nil
	}
	t, err := pki.ParseToken(text)
	return t, err == nil, err
}

func (c *Cluster) joinToken() secret.Value {
	switch j := c.Documents.Join; {
	case j == nil:
		return secret.Value{}
	case j.Discovery.BootstrapToken != nil && !j.Discovery.BootstrapToken.Token.IsZero():
		return j.Discovery.BootstrapToken.Token
	default:
		return j.Discovery.TLSBootstrapToken
	}
}

// CAPins are the pins of an existing cluster's CA.
func (c *Cluster) CAPins() []string {
	if j := c.Documents.Join; j != nil && j.Discovery.BootstrapToken != nil {
		return j.Discovery.BootstrapToken.CACertHashes
	}
	return nil
}

// existingEndpoint is the host:port of an existing cluster's API; empty if nothing says it.
func (c *Cluster) existingEndpoint() string {
	if j := c.Documents.Join; j != nil && j.Discovery.BootstrapToken != nil && j.Discovery.BootstrapToken.APIServerEndpoint != "" {
		return j.Discovery.BootstrapToken.APIServerEndpoint
	}
	if f, err := discoveryfile.Parse(c.Documents.DiscoveryFile); err == nil {
		if u, err := url.Parse(f.Cluster.Server); err == nil && u.Port() != "" {
			return u.Host
		} else if err == nil {
			return net.JoinHostPort(u.Hostname(), "443")
		}
	}
	return ""
}

const printJoinCommand = "kubeadm token create --print-join-command, on a control plane, prints it"

var caPin = regexp.MustCompile(`^sha256:[0-9a-fA-F]{64}$`)

// existingDiscovery checks how nodes find a cluster that is not in the file.
func (v *validator) existingDiscovery(k kubeadmapi.Discovery) {
	p := diag.Path{"discovery"}
	if k.File != nil {
		v.existingFile(k)
		return
	}
	b := k.BootstrapToken
	if b == nil {
		v.bad(p, "add bootstrapToken with token, apiServerEndpoint and caCertHashes; "+printJoinCommand, "nothing says how the nodes find their cluster, which is not in this file")
		return
	}
	q := p.Child("bootstrapToken")
	if r := q.Child("token"); b.Token.IsZero() && k.TLSBootstrapToken.IsZero() {
		v.bad(r, "want a token of that cluster; "+printJoinCommand, "is missing")
	} else if !b.Token.IsZero() {
		v.tokenText(r, b.Token)
	}
	if !k.TLSBootstrapToken.IsZero() {
		v.bad(p.Child("tlsBootstrapToken"), "remove it", "discovery.bootstrapToken.token is used for this, too")
	}
	if r := q.Child("apiServerEndpoint"); b.APIServerEndpoint == "" {
		v.bad(r, "want host:port of that cluster's API; "+printJoinCommand, "is missing")
	} else if host, port, err := net.SplitHostPort(b.APIServerEndpoint); err != nil || host == "" || port == "" {
		v.bad(r, "want host:port: api.example.org:6443, 10.0.2.15:6443, [fd00::101]:6443", "%q is not an endpoint with a port", b.APIServerEndpoint)
	}
	if b.UnsafeSkipCAVerification {
		v.bad(q.Child("unsafeSkipCAVerification"), "remove it, and give caCertHashes", "whoever answers at the endpoint could be the cluster")
	}
	if len(b.CACertHashes) == 0 {
		v.bad(q.Child("caCertHashes"), "want the pin of that cluster's CA; "+printJoinCommand, "is missing")
	}
	for i, h := range b.CACertHashes {
		if !caPin.MatchString(h) {
			v.bad(q.Child("caCertHashes", i), "want sha256: and 64 digits of 0-9 and a-f", "%q is not the pin of a CA", h)
		}
	}
}

// existingFile checks a kubeconfig, which was checked itself where it was read.
func (v *validator) existingFile(k kubeadmapi.Discovery) {
	p := diag.Path{"discovery"}
	if k.BootstrapToken != nil {
		v.bad(p.Child("file"), "keep one of the two", "discovery.bootstrapToken and discovery.file are two ways to the cluster")
	}
	f, err := discoveryfile.Parse(v.c.Documents.DiscoveryFile)
	if err != nil {
		return // reported, or not read
	}
	switch q := p.Child("tlsBootstrapToken"); {
	case f.Credentials && !k.TLSBootstrapToken.IsZero():
		v.bad(q, "keep one of the two", "the kubeconfig of discovery.file has credentials")
	case !f.Credentials && k.TLSBootstrapToken.IsZero():
		v.bad(q, "want a token of that cluster; "+printJoinCommand, "is missing, and the kubeconfig of discovery.file has no credentials")
	case !k.TLSBootstrapToken.IsZero():
		v.tokenText(q, k.TLSBootstrapToken)
	}
}

// tokenText checks the form of a token. No message quotes it.
func (v *validator) tokenText(p diag.Path, text secret.Value) {
	if _, err := pki.ParseToken(text); err != nil {
		v.bad(p, "want 6 characters, a dot and 16 characters, all of a-z and 0-9; "+printJoinCommand, "the bootstrap token is invalid")
	}
}

// existing checks what cannot be said of a cluster that is not in the file.
func (v *validator) existing(found map[string]*strict.Decoder) {
	if found[kubeadmapi.KindJoin] == nil {
		v.bad(diag.Path{"nodes"}, "give one node the role control-plane; or, if the workers are for a cluster that there is, add kubeadm's JoinConfiguration with its discovery ("+printJoinCommand+")",
			"there is no control-plane node")
	}
	for _, key := range []string{"virtualIP", "certSANs", "encryptionAlgorithm", "tokens"} {
		if p := (diag.Path{key}); v.has(p) {
			v.bad(p, "remove it", "it is a setting of the cluster, which there is already: no node of this file is a control plane")
		}
	}
	for _, kind := range []string{kubeadmapi.Kind, kubeadmapi.KindInit, kindKubelet, kindKubeProxy} {
		if d := found[kind]; d != nil {
			v.List.Add(d.Doc.At(diag.Path{"kind"}, fmt.Sprintf("a %s is of a cluster, and this one's is in the cluster already: no node of this file is a control plane", kind), "remove the document"))
		}
	}
	if e := v.c.ControlPlaneEndpoint; e != "" && v.c.existingEndpoint() != "" && !sameEndpoint(v.c.existingEndpoint(), e) {
		v.bad(diag.Path{"controlPlaneEndpoint"}, "say the same in both, or remove it here", "the cluster's endpoint is %s in the JoinConfiguration", v.c.existingEndpoint())
	}
}
