package spec

import (
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	bootstrapapi "k8s.io/cluster-bootstrap/token/api"
	bootstraputil "k8s.io/cluster-bootstrap/token/util"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/diag"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/pki"
)

// ownedKubeletFlags are flags that have a setting of their own, or that Kiln relies on.
var ownedKubeletFlags = map[string]string{
	"config":                     "write a KubeletConfiguration",
	"kubeconfig":                 "firstboot and the kubelet's unit agree on it",
	"bootstrap-kubeconfig":       "firstboot and the kubelet's unit agree on it",
	"hostname-override":          "set nodes[].name",
	"node-labels":                "set nodes[].labels",
	"register-with-taints":       "set nodes[].taints",
	"container-runtime-endpoint": "Kiln's container runtime is containerd",
	"cert-dir":                   "firstboot looks for the kubelet's certificate in /var/lib/kubelet/pki",
	"root-dir":                   "the node's state is in /var/lib/kubelet",
	"pod-manifest-path":          "the control plane's manifests are in /etc/kubernetes/manifests",
}

const noCertificateKey = "control planes bring the cluster's CAs in their own images, nothing is uploaded to or downloaded from the cluster"

func (v *validator) initConfiguration(k *kubeadmapi.InitConfiguration) {
	at := func(steps ...any) diag.Path { return steps }
	for i, t := range k.BootstrapTokens {
		v.bootstrapToken(at("bootstrapTokens", i), t, k.BootstrapTokens[:i])
	}
	v.noDryRun(k.DryRun)
	first := Node{}
	if cps := v.c.ControlPlanes(); len(cps) > 0 {
		first = cps[0]
	}
	v.registration(k.NodeRegistration, []Node{first})
	if first.Taints != nil && k.NodeRegistration.Taints != nil && !sameTaints(first.Taints, k.NodeRegistration) {
		v.bad(at("nodeRegistration", "taints"), "say it in one of the two places, or the same in both", "says something else than the taints of node %s", first.Name)
	}
	v.apiEndpoint(at("localAPIEndpoint"), k.LocalAPIEndpoint, []Node{first})
	if k.CertificateKey != "" {
		v.bad(at("certificateKey"), "remove it", "%s", noCertificateKey)
	}
	v.skipPhases(k.SkipPhases, initPhases, "init")
	v.timeouts(k.Timeouts)
}

func (v *validator) joinConfiguration(k *kubeadmapi.JoinConfiguration) {
	at := func(steps ...any) diag.Path { return steps }
	v.noDryRun(k.DryRun)
	var joining, control []Node
	for _, n := range v.c.Nodes {
		if v.c.Creates(n) {
			continue
		}
		joining = append(joining, n)
		if n.Role == RoleControlPlane {
			control = append(control, n)
		}
	}
	v.registration(k.NodeRegistration, joining)
	v.fixed(at("caCertPath"), k.CACertPath, path.Join(v.certificatesDir(), "ca.crt"), "the cluster's CA is elsewhere")
	v.discovery(k.Discovery)
	if cp := k.ControlPlane; cp != nil {
		v.apiEndpoint(at("controlPlane", "localAPIEndpoint"), cp.LocalAPIEndpoint, control)
		if cp.CertificateKey != "" {
			v.bad(at("controlPlane", "certificateKey"), "remove it", "%s", noCertificateKey)
		}
	}
	v.skipPhases(k.SkipPhases, joinPhases, "join")
	v.timeouts(k.Timeouts)
}

func (v *validator) resetConfiguration(k *kubeadmapi.ResetConfiguration) {
	at := func(steps ...any) diag.Path { return steps }
	v.fixed(at("certificatesDir"), k.CertificatesDir, v.certificatesDir(), "the cluster's certificates are elsewhere")
	v.criSocket(at("criSocket"), k.CRISocket)
	v.ignored(at("ignorePreflightErrors"), k.IgnorePreflightErrors)
	v.skipPhases(k.SkipPhases, resetPhases, "reset")
	for i, f := range k.UnmountFlags {
		v.oneOf(at("unmountFlags", i), f, []string{"MNT_FORCE", "MNT_DETACH", "MNT_EXPIRE", "UMOUNT_NOFOLLOW"}, "flag of umount2(2)")
	}
	v.timeouts(k.Timeouts)
}

func (v *validator) certificatesDir() string { return v.c.planned().CertificatesDir() }

// planned is what defaults of the cluster depend on.
func (c *Cluster) planned() bootplan.Cluster { return bootplan.Cluster{Kubeadm: c.Kubeadm} }

func (v *validator) noDryRun(on bool) {
	if on {
		v.bad(diag.Path{"dryRun"}, "remove it", "a node that only shows what it would do never becomes Ready")
	}
}

// registration checks nodeRegistration; nodes are those that it is for.
func (v *validator) registration(k kubeadmapi.NodeRegistrationOptions, nodes []Node) {
	p := diag.Path{"nodeRegistration"}
	if name := strings.ToLower(strings.TrimSpace(k.Name)); k.Name != "" {
		switch q := p.Child("name"); {
		case len(nodes) == 1 && nodes[0].Name != name:
			v.bad(q, "say the same in both, or remove it here", "the node's name is %q in the document of kind Cluster", nodes[0].Name)
		case len(nodes) != 1:
			v.bad(q, "remove it; names stand in nodes of the document of kind Cluster", "the document is for %d nodes, which cannot have one name", len(nodes))
		}
	}
	v.criSocket(p.Child("criSocket"), k.CRISocket)
	var taints []bootplan.Taint
	for i, t := range k.Taints {
		taints = append(taints, bootplan.Taint{Key: t.Key, Value: t.Value, Effect: string(t.Effect)})
		if t.TimeAdded != nil {
			v.bad(p.Child("taints", i, "timeAdded"), "remove it", "the API server sets it")
		}
	}
	v.taints(p.Child("taints"), taints)
	v.kubeletFlags(p.Child("kubeletExtraArgs"), k.KubeletExtraArgs)
	v.ignored(p.Child("ignorePreflightErrors"), k.IgnorePreflightErrors)
	switch q := p.Child("imagePullPolicy"); k.ImagePullPolicy {
	case "", "IfNotPresent", "Never":
	case "Always":
		v.bad(q, "want IfNotPresent or Never, or remove it", "nodes pull nothing: their images are baked in")
	default:
		v.oneOf(q, string(k.ImagePullPolicy), []string{"IfNotPresent", "Never"}, "policy for pulling images")
	}
}

func sameTaints(own []bootplan.Taint, k kubeadmapi.NodeRegistrationOptions) bool {
	if len(own) != len(k.Taints) {
		return false
	}
	for i, t := range k.Taints {
		if own[i] != (bootplan.Taint{Key: t.Key, Value: t.Value, Effect: string(t.Effect)}) {
			return false
		}
	}
	return true
}

func (v *validator) criSocket(p diag.Path, s string) {
	switch strings.TrimPrefix(s, "unix://") {
	case "", "/var/run/containerd/containerd.sock", "/run/containerd/containerd.sock":
		return
	}
	v.bad(p, "want unix:///var/run/containerd/containerd.sock, or remove it", "Kiln's container runtime is containerd, and %q is not its socket", s)
}

// kubeletFlags checks flags, which end in a line of an environment file.
func (v *validator) kubeletFlags(p diag.Path, args []kubeadmapi.Arg) {
	for i, a := range args {
		q := p.Child(i, "name")
		if !v.required(q, "want a flag without its dashes, such as v") {
			continue
		}
		switch reason := ownedKubeletFlags[a.Name]; {
		case strings.HasPrefix(a.Name, "-"):
			v.bad(q, "did you mean "+strings.TrimLeft(a.Name, "-")+"?", "%q begins with a dash", a.Name)
		case a.Name == "" || strings.ContainsAny(a.Name, "= \t\n\"'\\$"):
			v.bad(q, "want the flag's name; its value stands in value", "%q is not a flag", a.Name)
		case reason != "":
			v.bad(q, reason, "--%s cannot be set here", a.Name)
		}
		if strings.ContainsAny(a.Value, " \t\r\n\"'\\$") {
			v.bad(p.Child(i, "value"), "set it in a KubeletConfiguration", "systemd, which reads the kubelet's flags, would change a value with spaces, quotes, \\ or $")
		}
	}
}

// ignored checks names of preflight checks.
func (v *validator) ignored(p diag.Path, names []string) {
	for i, n := range names {
		switch {
		case strings.EqualFold(n, "all"):
			if len(names) > 1 {
				v.bad(p.Child(i), "name all alone, or the checks without it", "don't specify individual checks if 'all' is used")
			}
		case !kubeadmapi.KnownCheck(n):
			v.oneOf(p.Child(i), n, append(kubeadmapi.CheckNames(), "all"), "preflight check")
		}
	}
}

// apiEndpoint checks where the API server of the nodes listens.
func (v *validator) apiEndpoint(p diag.Path, e kubeadmapi.APIEndpoint, nodes []Node) {
	if q := p.Child("advertiseAddress"); e.AdvertiseAddress != "" {
		a, err := netip.ParseAddr(e.AdvertiseAddress)
		switch {
		case err != nil:
			v.bad(q, "such as 10.0.2.15 or fd00::101", "%q is not an IP address", e.AdvertiseAddress)
		case len(nodes) != 1:
			v.bad(q, "remove it; addresses stand in nodes of the document of kind Cluster", "the document is for %d control planes, which cannot have one address", len(nodes))
		case nodes[0].Static() && nodes[0].Address.Addr() != a:
			v.bad(q, "say the same in both, or remove it here", "the address of node %s is %s in the document of kind Cluster", nodes[0].Name, nodes[0].Address.Addr())
		default:
			v.unicast(q, a)
		}
	}
	q := p.Child("bindPort")
	switch {
	case !v.Doc.Has(q):
	case e.BindPort < 1 || e.BindPort > 65535:
		v.bad(q, "want a port from 1 to 65535, such as 6443", "%d is not a port", e.BindPort)
	case slices.Contains([]int32{22, 2379, 2380, 2381, 10248, 10249, 10250, 10256, 10257, 10259}, e.BindPort):
		v.bad(q, "want another port, such as 6443", "port %d of a control plane is taken", e.BindPort)
	}
}

// discovery checks how nodes find the cluster. imagegen knows it: besides a kubeconfig,
// which is checked where it is read, only what says the same can stand there.
func (v *validator) discovery(k kubeadmapi.Discovery) {
	if v.c.Existing() {
		v.existingDiscovery(k)
		return
	}
	p := diag.Path{"discovery"}
	const made = "remove it"
	if k.File != nil && k.BootstrapToken != nil {
		v.bad(p.Child("file"), "keep one of the two", "discovery.bootstrapToken and discovery.file are two ways to the cluster")
	}
	if !k.TLSBootstrapToken.IsZero() {
		v.bad(p.Child("tlsBootstrapToken"), made, "imagegen makes the token and bakes it in")
	}
	b := k.BootstrapToken
	if b == nil {
		return
	}
	q := p.Child("bootstrapToken")
	if !b.Token.IsZero() {
		v.bad(q.Child("token"), made, "imagegen makes the token and bakes it in")
	}
	if len(b.CACertHashes) > 0 {
		v.bad(q.Child("caCertHashes"), made, "imagegen makes the CA and bakes its pin in")
	}
	if b.UnsafeSkipCAVerification {
		v.bad(q.Child("unsafeSkipCAVerification"), made, "nodes have the CA's pin, and check it")
	}
	if e := b.APIServerEndpoint; e != "" {
		r := q.Child("apiServerEndpoint")
		host, _, err := net.SplitHostPort(e)
		if err != nil || host == "" {
			v.bad(r, "want host:port: api.example.org:6443, 10.0.2.15:6443, [fd00::101]:6443", "%q is not an endpoint with a port", e)
			return
		}
		if needed, err := v.c.Endpoint(); err == nil && !sameEndpoint(e, needed) {
			v.bad(r, "say the same in both, or remove it here", "the cluster's endpoint is %s in the document of kind Cluster", needed)
		}
	}
}

// bootstrapToken checks a token that the first boot creates besides imagegen's own.
// No message quotes it.
func (v *validator) bootstrapToken(p diag.Path, t kubeadmapi.BootstrapToken, before []kubeadmapi.BootstrapToken) {
	if q := p.Child("token"); v.required(q, "want 6 characters, a dot and 16 characters, all of a-z and 0-9") {
		token, err := pki.ParseToken(t.Token)
		switch {
		case v.Bad(q):
		case err != nil:
			v.bad(q, "want 6 characters, a dot and 16 characters, all of a-z and 0-9; kubeadm token generate makes one", "the bootstrap token is invalid")
		case slices.ContainsFunc(before, func(o kubeadmapi.BootstrapToken) bool {
			other, err := pki.ParseToken(o.Token)
			return err == nil && other.ID == token.ID
		}):
			v.bad(q, "every token needs its own", "there is a token with the id %s already", token.ID)
		}
	}
	if t.TTL != nil && t.TTL.Duration < 0 {
		v.bad(p.Child("ttl"), "such as 24h; 0s means for ever", "the life %s is negative", t.TTL.Duration)
	}
	if t.TTL != nil && t.Expires != nil {
		v.bad(p.Child("expires"), "keep one of the two", "the BootstrapToken .TTL and .Expires fields are mutually exclusive")
	}
	usages := []string{strings.TrimPrefix(bootstrapapi.BootstrapTokenUsageSigningKey, bootstrapapi.BootstrapTokenUsagePrefix),
		strings.TrimPrefix(bootstrapapi.BootstrapTokenUsageAuthentication, bootstrapapi.BootstrapTokenUsagePrefix)}
	for i, u := range t.Usages {
		v.oneOf(p.Child("usages", i), u, usages, "usage of a bootstrap token")
	}
	if len(t.Groups) > 0 && len(t.Usages) > 0 && !slices.Contains(t.Usages, usages[1]) {
		v.bad(p.Child("groups"), "add the usage authentication", "token groups cannot be specified unless usages include %q", usages[1])
	}
	for i, g := range t.Groups {
		if err := bootstraputil.ValidateBootstrapGroupName(g); err != nil {
			v.bad(p.Child("groups", i), "such as system:bootstrappers:kubeadm:default-node-token", "%q is not a group of a bootstrap token", g)
		}
	}
}

// sharedTimeout is a timeout that kubeadm's documents and the cluster file have.
type sharedTimeout struct {
	key     string // of kubeadm's
	path    diag.Path
	own     *bootplan.Duration
	kubeadm *metav1.Duration
}

func sharedTimeouts(own *bootplan.Timeouts, k *kubeadmapi.Timeouts) []sharedTimeout {
	return []sharedTimeout{
		{"controlPlaneComponentHealthCheck", diag.Path{"timeouts", "controlPlane"}, &own.ControlPlane, k.ControlPlaneComponentHealthCheck},
		{"kubernetesAPICall", diag.Path{"timeouts", "kubernetesCall"}, &own.KubernetesCall, k.KubernetesAPICall},
		{"discovery", diag.Path{"timeouts", "discovery"}, &own.Discovery, k.Discovery},
		{"tlsBootstrap", diag.Path{"timeouts", "tlsBootstrap"}, &own.TLSBootstrap, k.TLSBootstrap},
		{"etcdAPICall", diag.Path{"timeouts", "etcdCall"}, &own.EtcdCall, k.EtcdAPICall},
	}
}

// timeouts checks them. Those that bound what firstboot does not wait for, or waits
// for as long as it takes, have no effect.
func (v *validator) timeouts(k *kubeadmapi.Timeouts) {
	if k == nil {
		return
	}
	p := diag.Path{"timeouts"}
	for _, t := range []struct {
		key   string
		value *metav1.Duration
	}{
		{"controlPlaneComponentHealthCheck", k.ControlPlaneComponentHealthCheck}, {"kubeletHealthCheck", k.KubeletHealthCheck},
		{"kubernetesAPICall", k.KubernetesAPICall}, {"etcdAPICall", k.EtcdAPICall}, {"tlsBootstrap", k.TLSBootstrap},
		{"discovery", k.Discovery}, {"upgradeManifests", k.UpgradeManifests},
	} {
		if t.value != nil && t.value.Duration <= 0 {
			v.bad(p.Child(t.key), "such as 4m", "%s is no time at all", t.value.Duration)
		}
	}
	for _, t := range sharedTimeouts(&v.c.Timeouts, k) {
		if t.kubeadm == nil || !v.cluster.has(t.path) || t.kubeadm.Duration == time.Duration(*t.own) {
			continue
		}
		v.bad(p.Child(t.key), "say it in one of the two places, or the same in both", "says something else than the cluster's %s%s", t.path, v.origin(t.path))
	}
}

// checkAmbiguous refuses an IPv6 address whose last part was meant as a port.
func (v *validator) checkAmbiguous(p diag.Path, e string) {
	a, err := netip.ParseAddr(e)
	if err != nil || !a.Is6() {
		return
	}
	host, port, ok := cutLast(e, ":")
	if n, err := strconv.Atoi(port); !ok || err != nil || n != bootplan.DefaultAPIPort && n != v.c.bindPort() {
		return
	}
	if strings.HasSuffix(host, ":") {
		return
	}
	v.bad(p, fmt.Sprintf("did you mean [%s]:%s? For this address write [%s]:%d", host, port, e, bootplan.DefaultAPIPort), "%q is an IPv6 address as a whole; a port stands behind brackets", e)
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
