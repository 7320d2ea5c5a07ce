package spec

import (
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/diag"
	"github.com/kiln-os/kiln/internal/nodelabels"
	"github.com/kiln-os/kiln/internal/strict"
	"github.com/kiln-os/kiln/pki"
)

// validator checks what the values mean. Values that decoding rejected are zero
// here and already reported.
type validator struct {
	*strict.Decoder
	c     *Cluster
	known Known
	// elsewhere holds the settings that another document of the file says, by their
	// paths here.
	elsewhere map[string]place
	// cluster is the validator of the document of kind Cluster, in those of others.
	cluster *validator
}

// bad reports a mistake in the value at p, unless it was rejected already.
func (v *validator) bad(p diag.Path, want, format string, a ...any) {
	at := v.place(p)
	if !at.Bad(at.path) {
		v.List.Add(at.Doc.At(at.path, fmt.Sprintf(format, a...), want))
	}
}

// place returns where the setting with the path p stands.
func (v *validator) place(p diag.Path) place {
	for i := len(p); i > 0; i-- {
		if e, ok := v.elsewhere[p[:i].String()]; ok {
			return e
		}
	}
	return place{v.Decoder, p}
}

// has reports whether the file says something at p.
func (v *validator) has(p diag.Path) bool {
	at := v.place(p)
	return at.Doc.Has(at.path)
}

// required reports p if the file has nothing there.
func (v *validator) required(p diag.Path, want string) bool {
	if v.has(p) {
		return true
	}
	v.bad(p, want, "is missing")
	return false
}

// subnet is a range of addresses with the place it was given at.
type subnet struct {
	prefix netip.Prefix
	what   string
	path   diag.Path
}

func (v *validator) validate() {
	if v.required(diag.Path{"apiVersion"}, "want "+APIVersion) && v.c.APIVersion != APIVersion {
		v.bad(diag.Path{"apiVersion"}, "want "+APIVersion, "%q is not a version this program reads", v.c.APIVersion)
	}
	if v.required(diag.Path{"kind"}, "want "+Kind) && v.c.Kind != Kind {
		v.bad(diag.Path{"kind"}, "want "+Kind, "%q is not a kind this program reads", v.c.Kind)
	}
	if p := (diag.Path{"name"}); v.required(p, "want a name for the cluster, such as kiln") && len(validation.IsDNS1123Label(v.c.Name)) > 0 {
		v.bad(p, "want at most 63 of a-z, 0-9 and -, with a letter or digit at both ends", "%q is not a DNS label", v.c.Name)
	}
	v.payload()
	if p := (diag.Path{"debian", "suite"}); v.has(p) {
		v.oneOf(p, v.c.Debian.Suite, v.known.Suites, "suite of Debian that nodes are made of")
	}
	if p := (diag.Path{"debian", "date"}); v.has(p) {
		if _, err := time.Parse(time.DateOnly, v.c.Debian.Date); err != nil {
			v.bad(p, "want one such as 2026-11-01", "%q is no day", v.c.Debian.Date)
		}
	}
	var algs []string
	for _, a := range pki.Algorithms() {
		algs = append(algs, string(a))
	}
	v.oneOf(diag.Path{"encryptionAlgorithm"}, string(v.c.EncryptionAlgorithm), algs, "key algorithm")
	v.endpoint()
	v.virtualIP()
	for i, s := range v.c.CertSANs {
		v.host(diag.Path{"certSANs", i}, s, true)
	}
	for i, s := range v.c.Time.Servers {
		v.host(diag.Path{"time", "servers", i}, s, false)
	}
	for i, k := range v.c.SSH.AuthorizedKeys {
		v.sshKey(diag.Path{"ssh", "authorizedKeys", i}, k)
	}
	subnets := v.network()
	v.nodes(subnets)
	v.wifi()
}

// payload checks where the programs come from, and that it has the version of
// Kubernetes that is asked for.
func (v *validator) payload() {
	p := diag.Path{"payload"}
	pl, versions := v.c.Payload, v.known.Versions
	want := "want " + strings.Join(versions, " or ") + ", which imagegen compiles, or payload.source: release"
	switch manifest := p.Child("manifest"); pl.Source {
	case PayloadRelease:
		if !v.required(manifest, "want the path of a payload manifest, such as payload.yaml") {
			return
		}
		if pl.Manifest == "" {
			v.bad(manifest, "want the path of a payload manifest, such as payload.yaml", "is empty")
			return
		}
		if v.Bad(manifest) || v.known.Release == nil {
			return
		}
		version, list := v.known.Release(pl.Manifest)
		*v.List = append(*v.List, list...)
		if len(list) > 0 || version == "" {
			return // its version, or that it has none, is one of its mistakes
		}
		versions = []string{version}
		want = "want " + version + ", the version in " + pl.Manifest
	case PayloadCompile:
		if v.Doc.Has(manifest) {
			v.bad(manifest, "set payload.source to release, or remove the manifest", "what is compiled has no manifest")
		}
	default:
		v.oneOf(p.Child("source"), string(pl.Source), []string{string(PayloadCompile), string(PayloadRelease)}, "source of the payload")
		return
	}
	if !slices.Contains(versions, v.c.KubernetesVersion) {
		v.bad(diag.Path{"kubernetesVersion"}, want, "there is no payload of Kubernetes %q", v.c.KubernetesVersion)
	}
}

// oneOf checks a value against a closed set.
func (v *validator) oneOf(p diag.Path, value string, set []string, what string) {
	if slices.Contains(set, value) {
		return
	}
	want := "want one of " + strings.Join(set, ", ")
	if len(set) == 0 {
		want = "this program knows none"
	}
	if near := strict.Nearest(value, set); near != "" && len(set) > 1 {
		want = "did you mean " + near + "? All: " + strings.Join(set, ", ")
	}
	v.bad(p, want, "%q is not a known %s", value, what)
}

func (v *validator) endpoint() {
	p := diag.Path{"controlPlaneEndpoint"}
	e := v.c.ControlPlaneEndpoint
	if at := v.place(p); v.has(p) && at.Doc.Text(at.path) == "" {
		v.bad(p, "want a host or host:port, or remove the key", "is empty")
		return
	}
	if !v.has(p) {
		return
	}
	const want = "want a name or address with or without a port: api.example.org, 10.0.2.15:6443, [fd00::1]:6443"
	host, _, err := bootplan.SplitEndpoint(e)
	if err != nil {
		v.bad(p, want, "%q is not an endpoint", e)
		return
	}
	v.checkAmbiguous(p, e)
	if a, err := netip.ParseAddr(host); err == nil {
		if a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.Zone() != "" {
			v.bad(p, "want an address that every node and user can reach", "%s cannot be the address of a cluster", host)
		}
		return
	}
	if len(validation.IsDNS1123Subdomain(host)) > 0 {
		v.bad(p, want, "%q is neither a DNS name in lower case nor an IP address", host)
	}
}

// host checks a DNS name or an IP address.
func (v *validator) host(p diag.Path, s string, wildcard bool) {
	if _, err := netip.ParseAddr(s); err == nil {
		return
	}
	lower := strings.ToLower(s)
	if len(validation.IsDNS1123Subdomain(lower)) == 0 || wildcard && len(validation.IsWildcardDNS1123Subdomain(lower)) == 0 {
		return
	}
	v.bad(p, "such as api.example.org or 203.0.113.7", "%q is neither a DNS name nor an IP address", s)
}

func (v *validator) sshKey(p diag.Path, line string) {
	const want = "want one line as in ~/.ssh/id_ed25519.pub: ssh-ed25519 AAAA… comment"
	line = strings.TrimSpace(line)
	if strings.Contains(line, "PRIVATE KEY") {
		v.bad(p, want, "this is a private key; it does not belong here")
		return
	}
	if strings.ContainsAny(line, "\r\n") {
		v.bad(p, want, "there is more than one line in one item")
		return
	}
	if _, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line)); err != nil {
		v.bad(p, want, "not an SSH public key")
	}
}

// network checks the cluster's subnets and returns the valid ones.
func (v *validator) network() []subnet {
	net := v.c.Network
	p := diag.Path{"network"}
	if len(validation.IsDNS1123Subdomain(net.DNSDomain)) > 0 {
		v.bad(p.Child("dnsDomain"), "such as cluster.local", "%q is not a DNS domain", net.DNSDomain)
	}
	v.oneOf(p.Child("plugin"), string(net.Plugin), []string{string(PluginFlannel), string(PluginNone)}, "pod network plugin")
	for i, a := range net.Nameservers {
		v.unicast(p.Child("nameservers", i), a)
	}
	pods := v.family(p.Child("podSubnets"), net.PodSubnets, "pod subnet", func(q diag.Path, s netip.Prefix) {
		// The controller manager allocates at most 2^16 shares.
		node := v.c.nodeMask(s.Addr().Is6())
		if s.Bits() > node {
			v.bad(q, fmt.Sprintf("want /%d or larger", node), "%s is too small: every node takes a /%d of it", s, node)
		} else if s.Bits() < node-16 {
			v.bad(q, fmt.Sprintf("want /%d or smaller", node-16), "%s is too large: Kubernetes divides at most 16 bits among nodes", s)
		}
	})
	services := v.family(p.Child("serviceSubnets"), net.ServiceSubnets, "service subnet", func(q diag.Path, s netip.Prefix) {
		size := s.Addr().BitLen()
		if host := size - s.Bits(); host < 4 {
			v.bad(q, fmt.Sprintf("want /%d or larger", size-4), "%s is too small: cluster DNS gets its tenth address", s)
		} else if host > 20 {
			v.bad(q, fmt.Sprintf("want /%d or smaller", size-20), "%s is too large: the API server allows 20 bits for services", s)
		}
	})
	all := append(pods, services...)
	for i, s := range all {
		for _, o := range all[:i] {
			if s.prefix.Overlaps(o.prefix) {
				v.bad(s.path, "want ranges that share no address", "%s overlaps with %s %s", s.prefix, o.what, o.prefix)
			}
		}
	}
	for i, s := range services {
		if len(pods) > i && pods[i].prefix.Addr().Is4() != s.prefix.Addr().Is4() {
			v.bad(s.path, "want the address families of podSubnets, in the same order", "%s is of another address family than %s", s.prefix, pods[i].prefix)
		}
	}
	if len(services) > len(pods) && len(pods) > 0 {
		v.bad(services[len(pods)].path, "add a pod subnet of that family", "%s has no pod subnet of its address family", services[len(pods)].prefix)
	}
	return all
}

// family checks a list of subnets, one per address family.
func (v *validator) family(p diag.Path, list []netip.Prefix, what string, size func(diag.Path, netip.Prefix)) []subnet {
	var out []subnet
	given := v.has(p)
	if len(list) > 2 {
		v.bad(p, "want one, or one IPv4 and one IPv6", "there are %d %ss", len(list), what)
	}
	for i, s := range list {
		q := p.Child(i)
		if !given {
			q = p // the default: there is no item to point at
		}
		if !s.IsValid() {
			continue
		}
		if s.Addr().Is4In6() {
			v.bad(q, "write the IPv4 form", "%s is an IPv4 subnet in IPv6 form", s)
			continue
		}
		if s != s.Masked() {
			v.bad(q, fmt.Sprintf("did you mean %s?", s.Masked()), "%s has bits set after its prefix", s)
			s = s.Masked()
		}
		size(q, s)
		if len(list) == 2 && i == 1 && list[0].IsValid() && s.Addr().Is4() == list[0].Addr().Is4() {
			v.bad(q, "want one IPv4 and one IPv6", "%s is of the same address family as %s", s, list[0])
		}
		out = append(out, subnet{s, what, q})
	}
	return out
}

func (v *validator) unicast(p diag.Path, a netip.Addr) bool {
	if !a.IsValid() {
		return false
	}
	if a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.Is4In6() || a.Zone() != "" || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		v.bad(p, "want an address of one machine, such as 10.0.2.2", "%s is not a unicast address on a network", a)
		return false
	}
	return true
}

func (v *validator) nodes(subnets []subnet) {
	p := diag.Path{"nodes"}
	const want = "want a list of nodes"
	if !v.required(p, want) {
		return
	}
	if len(v.c.Nodes) == 0 {
		v.bad(p, want, "the list is empty")
		return
	}
	seen := map[string]diag.Path{} // names, addresses and MACs; they cannot be confused
	unique := func(q diag.Path, s, what string) {
		if first, dup := seen[s]; dup && s != "" {
			v.bad(q, "every node needs its own", "%s is taken by %s", strings.TrimSpace(what+" "+s), first)
			return
		}
		seen[s] = q
	}
	control := 0
	for i, n := range v.c.Nodes {
		q := p.Child(i)
		v.node(q, n, subnets)
		unique(q.Child("name"), n.Name, "name")
		for j, a := range n.StaticAddresses() {
			at := q.Child("address")
			if v.Doc.Has(q.Child("addresses")) {
				at = q.Child("addresses", j)
			}
			unique(at, a.Addr().String(), "address")
		}
		unique(q.Child("interface", "mac"), n.Interface.MAC, "MAC address")
		if n.Pool() {
			v.pool(q, n, subnets, unique)
		}
		if n.Role == RoleControlPlane {
			control++
		}
	}
	if control > 1 && !v.has(diag.Path{"controlPlaneEndpoint"}) && !v.has(diag.Path{"virtualIP"}) {
		// kubeadm refuses it too: it cannot be changed later.
		v.bad(p, "set virtualIP to a free address of their subnet, or controlPlaneEndpoint to a name or address that leads to all of them, such as that of a load balancer",
			"%d control-plane nodes have no address in common at which the API could be reached", control)
	}
}

var interfaceName = regexp.MustCompile(`^[A-Za-z0-9_.:@*-]{1,15}$`)

// nameFrom checks a node whose image may be that of several machines.
func (v *validator) nameFrom(p diag.Path, n Node) {
	if n.NameFrom == "" {
		return
	}
	q := p.Child("nameFrom")
	v.oneOf(q, n.NameFrom, []string{FromPlatform}, "source of names")
	if n.Role == RoleControlPlane {
		v.bad(q, "leave it out; only workers may have it", "a control plane has the name that its certificates have")
	}
	if slices.Contains(v.known.Profiles, n.Profile) && !slices.Contains(v.known.Clouds, n.Profile) {
		v.bad(q, "leave it out, or take the profile of a cloud: "+strings.Join(v.known.Clouds, ", "), "machines of profile %s are given no names", n.Profile)
	}
	if n.Static() || len(n.Addresses) > 0 {
		v.bad(q, "leave out the address, or nameFrom", "several machines cannot have one address")
	}
	if n.Interface.MAC != "" {
		v.bad(q, "leave out interface.mac, or nameFrom", "several machines cannot have one hardware address")
	}
}

func (v *validator) node(p diag.Path, n Node, subnets []subnet) {
	v.hostName(p.Child("name"), n.Name)
	v.nameFrom(p, n)
	if q := p.Child("role"); v.required(q, "want control-plane or worker") {
		v.oneOf(q, string(n.Role), []string{string(RoleControlPlane), string(RoleWorker)}, "role")
	}
	if q := p.Child("profile"); v.required(q, "want one of "+strings.Join(v.known.Profiles, ", ")) {
		v.oneOf(q, n.Profile, v.known.Profiles, "profile")
	}
	for i, f := range n.Formats {
		v.oneOf(p.Child("formats", i), f, v.known.Formats, "image format")
	}
	if n.Pool() {
		v.nameservers(p, n)
	} else {
		v.addresses(p, n, subnets)
	}
	if m := n.Interface.MAC; m != "" {
		v.ethernet(p.Child("interface", "mac"), m)
	}
	if s := n.Interface.Name; s != "" && !interfaceName.MatchString(s) {
		v.bad(p.Child("interface", "name"), "such as enp1s0 or en*", "%q is not an interface name", s)
	}
	for key, value := range n.Labels {
		q := p.Child("labels", key)
		if e := validation.IsQualifiedName(key); len(e) > 0 {
			v.badKey(q, "such as example.org/rack", "%q is not a label key: %s", key, e[0])
		}
		if e := validation.IsValidLabelValue(value); len(e) > 0 {
			v.bad(q, "want at most 63 of a-z, A-Z, 0-9, -, _ and .", "%q is not a label value", value)
		}
		if n.Role == RoleWorker && nodelabels.NeedsAdmin(key) {
			// A worker has a kubelet's rights only, and NodeRestriction denies it this one.
			v.badKey(q, "set it with kubectl label node, or take a key of your own, such as example.org/"+path.Base(key), "a worker may not give itself the label %s", key)
		}
	}
	v.taints(p.Child("taints"), n.Taints)
	v.kubeletFlags(p.Child("kubeletExtraArgs"), n.KubeletExtraArgs)
	v.ignored(p.Child("ignorePreflightErrors"), n.IgnorePreflightErrors)
}

// hostName checks the name of a machine.
func (v *validator) hostName(q diag.Path, name string) {
	if !v.required(q, "want a host name, such as kiln-1") {
		return
	}
	switch {
	case len(validation.IsDNS1123Subdomain(name)) > 0:
		v.bad(q, "want a-z, 0-9, - and dots, with a letter or digit at both ends", "%q is not a host name", name)
	case len(name) > 63:
		// Linux takes 64 (HOST_NAME_MAX), certificates take 64 in a common
		// name, and Kubernetes takes 63 in the label kubernetes.io/hostname.
		v.bad(q, "want at most 63 characters", "the name has %d characters", len(name))
	case name == "localhost" || strings.HasPrefix(name, "localhost."):
		v.bad(q, "want a name of its own, such as kiln-1", "%s is every machine's own name", name)
	}
}

// badKey is bad for the key at p.
func (v *validator) badKey(p diag.Path, want, format string, a ...any) {
	if !v.Bad(p) {
		v.List.Add(v.Doc.AtKey(p, fmt.Sprintf(format, a...), want))
	}
}

func (v *validator) taints(p diag.Path, taints []bootplan.Taint) {
	seen := map[string]bool{}
	for i, t := range taints {
		q := p.Child(i)
		if v.required(q.Child("key"), "such as example.org/dedicated") {
			if e := validation.IsQualifiedName(t.Key); len(e) > 0 {
				v.bad(q.Child("key"), "such as example.org/dedicated", "%q is not a taint key", t.Key)
			}
		}
		if e := validation.IsValidLabelValue(t.Value); len(e) > 0 {
			v.bad(q.Child("value"), "want at most 63 of a-z, A-Z, 0-9, -, _ and .", "%q is not a taint value", t.Value)
		}
		if v.required(q.Child("effect"), "want NoSchedule, PreferNoSchedule or NoExecute") {
			v.oneOf(q.Child("effect"), t.Effect, []string{"NoSchedule", "PreferNoSchedule", "NoExecute"}, "taint effect")
		}
		if id := t.Key + "\x00" + t.Effect; t.Key != "" && seen[id] {
			v.bad(q, "a node has a key and effect once", "taint %s with effect %s is there twice", t.Key, t.Effect)
		} else {
			seen[id] = true
		}
	}
}
