package spec

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/diag"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/internal/strict"
)

// NodeDocuments are kubeadm's documents about nodes, nil where the file has none.
// Init is for the first control plane, which creates the cluster, Join for all other
// nodes, Reset for all.
type NodeDocuments struct {
	Init  *kubeadmapi.InitConfiguration
	Join  *kubeadmapi.JoinConfiguration
	Reset *kubeadmapi.ResetConfiguration
	// InitPatches and JoinPatches are the files of their patches folders.
	InitPatches, JoinPatches []bootplan.Patch
	// DiscoveryFile is the kubeconfig by which the nodes that join find the cluster;
	// empty means by token.
	DiscoveryFile secret.Value
}

// nodeDocument is what InitConfiguration and JoinConfiguration have in common.
type nodeDocument struct {
	registration kubeadmapi.NodeRegistrationOptions
	endpoint     kubeadmapi.APIEndpoint
	timeouts     *kubeadmapi.Timeouts
	skipPhases   []string
	patches      []bootplan.Patch
}

// Creates reports whether the node is the one that creates the cluster.
func (c *Cluster) Creates(n Node) bool {
	cps := c.ControlPlanes()
	return len(cps) > 0 && cps[0].Name == n.Name
}

// document returns what kubeadm's documents say of a node.
func (c *Cluster) document(n Node) nodeDocument {
	switch {
	case c.Creates(n):
		if d := c.Documents.Init; d != nil {
			return nodeDocument{d.NodeRegistration, d.LocalAPIEndpoint, d.Timeouts, d.SkipPhases, c.Documents.InitPatches}
		}
	case c.Documents.Join != nil:
		d := c.Documents.Join
		out := nodeDocument{d.NodeRegistration, kubeadmapi.APIEndpoint{}, d.Timeouts, d.SkipPhases, c.Documents.JoinPatches}
		if d.ControlPlane != nil && n.Role == RoleControlPlane {
			out.endpoint = d.ControlPlane.LocalAPIEndpoint
		}
		return out
	}
	return nodeDocument{}
}

// Settings are what the node's entry and kubeadm's documents say besides its name,
// address, labels and taints. Flags and ignored checks of its entry come last.
func (c *Cluster) Settings(n Node) bootplan.NodeSettings {
	d := c.document(n)
	out := bootplan.NodeSettings{
		KubeletExtraArgs: slices.Concat(d.registration.KubeletExtraArgs, n.KubeletExtraArgs),
		SkipPhases:       skippedPhases(d.skipPhases),
		Patches:          d.patches,
		Reset:            c.Documents.Reset,
	}
	for _, s := range slices.Concat(d.registration.IgnorePreflightErrors, n.IgnorePreflightErrors) {
		if strings.EqualFold(s, "all") {
			out.IgnorePreflightErrors = []string{"all"}
			break
		}
		out.IgnorePreflightErrors = append(out.IgnorePreflightErrors, s)
	}
	if n.Role == RoleControlPlane && d.endpoint.BindPort != bootplan.DefaultAPIPort {
		out.APIPort = int(d.endpoint.BindPort)
	}
	return out
}

// APIPort is where the node's API server listens.
func (c *Cluster) APIPort(n Node) int {
	return cmp.Or(int(c.document(n).endpoint.BindPort), bootplan.DefaultAPIPort)
}

// bindPort is where the API server of the node that creates the cluster listens.
func (c *Cluster) bindPort() int {
	if d := c.Documents.Init; d != nil && d.LocalAPIEndpoint.BindPort != 0 {
		return int(d.LocalAPIEndpoint.BindPort)
	}
	return bootplan.DefaultAPIPort
}

// AdvertiseAddress is the address at which a control plane is reached: its static
// one, or the one that a document names. The zero Addr means that of its default route.
func (c *Cluster) AdvertiseAddress(n Node) netip.Addr {
	if n.Static() {
		return n.Address.Addr()
	}
	a, err := netip.ParseAddr(c.document(n).endpoint.AdvertiseAddress)
	if err != nil {
		return netip.Addr{}
	}
	return a
}

// NodeTaints are the taints of a node: its entry's, else those of its document. Nil
// means the role's default.
func (c *Cluster) NodeTaints(n Node) []bootplan.Taint {
	registered := c.document(n).registration.Taints
	if n.Taints != nil || registered == nil {
		return n.Taints
	}
	out := []bootplan.Taint{}
	for _, t := range registered {
		out = append(out, bootplan.Taint{Key: t.Key, Value: t.Value, Effect: string(t.Effect)})
	}
	return out
}

// NodeTimeouts are the cluster's, with those that the node's document sets.
func (c *Cluster) NodeTimeouts(n Node) bootplan.Timeouts {
	out, k := c.Timeouts, c.document(n).timeouts
	if k == nil {
		return out
	}
	for _, t := range sharedTimeouts(&out, k) {
		if t.kubeadm != nil {
			*t.own = bootplan.Duration(t.kubeadm.Duration)
		}
	}
	return out
}

// BootstrapTokens are those of the InitConfiguration. A life that is given as a ttl
// counts from the cluster's creation.
func (c *Cluster) BootstrapTokens(created time.Time) []bootplan.Token {
	if c.Documents.Init == nil {
		return nil
	}
	var out []bootplan.Token
	for _, t := range c.Documents.Init.BootstrapTokens {
		id, sec, ok := strings.Cut(t.Token.RevealString(), ".")
		if !ok {
			continue // it was reported
		}
		token := bootplan.Token{ID: id, Secret: secret.FromString(sec), Description: t.Description, Usages: t.Usages, Groups: t.Groups}
		switch {
		case t.Expires != nil:
			token.Expires = t.Expires.UTC()
		case t.TTL == nil:
			token.Expires = created.Add(DefaultTokenTTL)
		case t.TTL.Duration > 0:
			token.Expires = created.Add(t.TTL.Duration)
		}
		out = append(out, token)
	}
	return out
}

// decodeNodeDocuments decodes the documents about nodes and reads their patches.
func (c *Cluster) decodeNodeDocuments(found map[string]*strict.Decoder, known Known) {
	docs := &c.Documents
	if d := found[kubeadmapi.KindInit]; d != nil {
		docs.Init = &kubeadmapi.InitConfiguration{}
		d.Decode(docs.Init, "an "+kubeadmapi.KindInit, "")
		docs.InitPatches = readPatches(d, docs.Init.Patches, known)
	}
	if d := found[kubeadmapi.KindJoin]; d != nil {
		docs.Join = &kubeadmapi.JoinConfiguration{}
		d.Decode(docs.Join, "a "+kubeadmapi.KindJoin, "")
		docs.JoinPatches = readPatches(d, docs.Join.Patches, known)
		docs.DiscoveryFile = readDiscoveryFile(d, docs.Join.Discovery.File, known)
	}
	if d := found[kubeadmapi.KindReset]; d != nil {
		docs.Reset = &kubeadmapi.ResetConfiguration{}
		d.Decode(docs.Reset, "a "+kubeadmapi.KindReset, "")
		docs.Reset.TypeMeta.APIVersion, docs.Reset.TypeMeta.Kind = "", ""
	}
}

// readDiscoveryFile reads the kubeconfig that a document names.
func readDiscoveryFile(d *strict.Decoder, f *kubeadmapi.FileDiscovery, known Known) secret.Value {
	at := diag.Path{"discovery", "file", "kubeConfigPath"}
	const want = "want the path of a kubeconfig, relative to the cluster file's folder"
	switch {
	case f == nil || d.Bad(at):
		return secret.Value{}
	case !d.Doc.Has(at):
		d.List.Add(d.Doc.At(at, "is missing", want))
		return secret.Value{}
	case f.KubeConfigPath == "":
		d.RejectAt(at, "is empty", want)
		return secret.Value{}
	case strings.Contains(f.KubeConfigPath, "://"):
		d.RejectAt(at, "it is a URL, and neither a build nor a first boot fetches it", want)
		return secret.Value{}
	case known.DiscoveryFile == nil:
		return secret.Value{}
	}
	v, err := known.DiscoveryFile(f.KubeConfigPath)
	if err != nil {
		d.RejectAt(at, err.Error(), "want a kubeconfig with the cluster's server and CA, as kubectl -n kube-public get configmap cluster-info -o jsonpath={.data.kubeconfig} prints it")
	}
	return v
}

// readPatches reads the folder of patches that a document names.
func readPatches(d *strict.Decoder, p *kubeadmapi.Patches, known Known) []bootplan.Patch {
	at := diag.Path{"patches", "directory"}
	if p == nil || d.Bad(at) || !d.Doc.Has(at) {
		return nil
	}
	if p.Directory == "" {
		d.RejectAt(at, "is empty", "want the path of a folder, relative to the cluster file's, or remove the key")
		return nil
	}
	if known.Patches == nil {
		return nil
	}
	patches, errs := known.Patches(p.Directory)
	for _, err := range errs {
		d.List.Add(d.Doc.At(at, err.Error(), "want files named target[suffix][+patchtype].yaml, such as kube-apiserver0+merge.yaml"))
	}
	return patches
}
