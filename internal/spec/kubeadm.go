package spec

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/diag"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/internal/strict"
)

// clusterConfiguration is kubeadm's document, decoded from d.
type clusterConfiguration struct {
	*strict.Decoder
	k kubeadmapi.ClusterConfiguration
}

// removedKeys are keys that older versions of kubeadm's API had.
var removedKeys = map[string]string{
	"apiServer.timeoutForControlPlane": "v1beta4 has it no more; set timeouts.controlPlane in the document of kind Cluster",
	"dns.type":                         "v1beta4 has it no more: the only DNS add-on is CoreDNS",
	"useHyperKubeImage":                "v1beta4 has it no more",
	"featureGates.PublicKeysECDSA":     "set encryptionAlgorithm: ECDSA-P256",
}

func decodeClusterConfiguration(d *strict.Decoder) *clusterConfiguration {
	k := &clusterConfiguration{Decoder: d}
	d.Hints = removedKeys
	d.Decode(&k.k, "a ClusterConfiguration", "")
	return k
}

// place is where a setting of the cluster file stands, if not under its own path.
type place struct {
	*strict.Decoder
	path diag.Path
}

// merge takes over what the ClusterConfiguration alone says and reports what it says
// otherwise than the cluster file, whose decoder is d. It returns where the settings
// that it took over stand.
func (k *clusterConfiguration) merge(d *strict.Decoder, c *Cluster) map[string]place {
	taken := map[string]place{}
	// setting returns whether the value is to be taken over.
	setting := func(own, other diag.Path, same bool) bool {
		if !k.Doc.Has(other) || k.Bad(other) {
			return false
		}
		if !d.Doc.Has(own) {
			taken[own.String()] = place{k.Decoder, other}
			return true
		}
		if !same && !d.Bad(own) {
			at := d.Doc.At(own, "", "")
			k.List.Add(k.Doc.At(other, fmt.Sprintf("says something else than %s at %s:%d:%d", own, at.File, at.Line, at.Column), "say it in one of the two places, or the same in both"))
		}
		return false
	}
	kc, n := &k.k, diag.Path{"networking"}
	for _, s := range []struct {
		own, other diag.Path
		to, from   *string
		same       func(a, b string) bool
	}{
		{diag.Path{"name"}, diag.Path{"clusterName"}, &c.Name, &kc.ClusterName, nil},
		{diag.Path{"kubernetesVersion"}, diag.Path{"kubernetesVersion"}, &c.KubernetesVersion, &kc.KubernetesVersion, nil},
		{diag.Path{"controlPlaneEndpoint"}, diag.Path{"controlPlaneEndpoint"}, &c.ControlPlaneEndpoint, &kc.ControlPlaneEndpoint, sameEndpoint},
		{diag.Path{"encryptionAlgorithm"}, diag.Path{"encryptionAlgorithm"}, (*string)(&c.EncryptionAlgorithm), &kc.EncryptionAlgorithm, nil},
		{diag.Path{"network", "dnsDomain"}, n.Child("dnsDomain"), &c.Network.DNSDomain, &kc.Networking.DNSDomain, nil},
	} {
		if setting(s.own, s.other, *s.to == *s.from || s.same != nil && s.same(*s.to, *s.from)) {
			*s.to = *s.from
		}
		*s.from = ""
	}
	for _, s := range []struct {
		own, other diag.Path
		to         *[]netip.Prefix
		from       *string
	}{
		{diag.Path{"network", "podSubnets"}, n.Child("podSubnet"), &c.Network.PodSubnets, &kc.Networking.PodSubnet},
		{diag.Path{"network", "serviceSubnets"}, n.Child("serviceSubnet"), &c.Network.ServiceSubnets, &kc.Networking.ServiceSubnet},
	} {
		list := k.prefixes(s.other, *s.from)
		if setting(s.own, s.other, slices.Equal(list, *s.to)) {
			*s.to = list
		}
		*s.from = ""
	}
	kc.TypeMeta = metav1.TypeMeta{}
	return taken
}

// prefixes reads kubeadm's form of subnets: one, or two with a comma between them.
func (k *clusterConfiguration) prefixes(p diag.Path, text string) []netip.Prefix {
	if text == "" {
		return nil
	}
	var out []netip.Prefix
	for _, s := range strings.Split(text, ",") {
		v, err := netip.ParsePrefix(strings.TrimSpace(s))
		if err != nil {
			k.RejectAt(p, fmt.Sprintf("%q is not an address with a prefix length", s), "such as 10.244.0.0/16, or one of each address family with a comma between them")
			return nil
		}
		out = append(out, v)
	}
	return out
}

func sameEndpoint(a, b string) bool {
	ha, pa, err1 := bootplan.SplitEndpoint(a)
	hb, pb, err2 := bootplan.SplitEndpoint(b)
	return err1 == nil && err2 == nil && ha == hb && pa == pb
}

func joinPrefixes(list []netip.Prefix) string {
	texts := make([]string, len(list))
	for i, p := range list {
		texts[i] = p.String()
	}
	return strings.Join(texts, ",")
}

func isAddress(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}
