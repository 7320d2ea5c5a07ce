package spec

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeproxyv1alpha1 "k8s.io/kube-proxy/config/v1alpha1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/diag"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/internal/strict"
)

// Known is what the program that reads the file can build.
type Known struct {
	Profiles []string
	Clouds   []string // those of Profiles whose platform gives machines names
	Formats  []string // of image files
	WiFi     []string // those of Profiles whose machines have Wi-Fi
	Suites   []string // of Debian
	Versions []string // of Kubernetes, compiled: "v1.37.2"
	// Release reads a payload manifest, whose path is as the cluster file has it, and
	// returns its version of Kubernetes and what is wrong with it. Nil checks nothing.
	Release func(manifest string) (version string, mistakes diag.List)
	// Patches reads a folder of patches, whose path is as the cluster file has it. Nil
	// checks nothing and reads none.
	Patches func(directory string) ([]bootplan.Patch, []error)
	// DiscoveryFile reads and checks the kubeconfig of kubeadm's discovery.file, whose
	// path is as the cluster file has it. Nil checks nothing and reads none.
	DiscoveryFile func(path string) (secret.Value, error)
}

// The kinds of documents that may stand beside the Cluster.
const (
	kindKubelet   = "KubeletConfiguration"
	kindKubeProxy = "KubeProxyConfiguration"
)

// apiVersions are the versions of the kinds that may stand beside the Cluster.
var apiVersions = map[string]string{
	kubeadmapi.Kind: kubeadmapi.APIVersion,
	kindKubelet:     kubeletv1beta1.SchemeGroupVersion.String(),
	kindKubeProxy:   kubeproxyv1alpha1.SchemeGroupVersion.String(),

	kubeadmapi.KindInit:  kubeadmapi.APIVersion,
	kubeadmapi.KindJoin:  kubeadmapi.APIVersion,
	kubeadmapi.KindReset: kubeadmapi.APIVersion,
}

// refusedKinds are kubeadm's kinds that have no place here, with the reason.
var refusedKinds = map[string]string{
	"UpgradeConfiguration": "it configures a command that is run on a node",
}

// Parse reads a cluster file, applies defaults and validates. filename is only
// for messages. The Cluster is usable only if the list is empty; the list is sorted.
func Parse(filename string, data []byte, known Known) (*Cluster, diag.List) {
	c := &Cluster{}
	docs, list := diag.ParseAll(filename, data)
	defer func() {
		list.Sort()
		hideSecrets(list)
	}()
	if len(docs) == 0 {
		if len(list) == 0 {
			list.Add(diag.Mistake{File: filename, Message: "the file is empty"})
		}
		return c, list
	}
	found := sortDocuments(docs, &list)
	var kubeadm *clusterConfiguration
	if d := found[kubeadmapi.Kind]; d != nil {
		kubeadm = decodeClusterConfiguration(d)
	}
	var kubelet kubeletv1beta1.KubeletConfiguration
	var kubeProxy kubeproxyv1alpha1.KubeProxyConfiguration
	if d := found[kindKubelet]; d != nil {
		c.Kubelet = decodeComponent(d, &kubelet, "a "+kindKubelet)
	}
	if d := found[kindKubeProxy]; d != nil {
		c.KubeProxy = decodeComponent(d, &kubeProxy, "a "+kindKubeProxy)
	}
	d := found[Kind]
	if d == nil {
		list.Add(docs[0].At(nil, "the file has no document of kind Cluster", "want one with apiVersion: "+APIVersion+" and kind: "+Kind))
		return c, list
	}
	d.Decode(c, "a cluster file", "want apiVersion, kind, name, nodes")
	placeSnippets(d, c)
	c.decodeNodeDocuments(found, known)
	v := &validator{Decoder: d, c: c, known: known}
	var sans []string
	if kubeadm != nil {
		v.elsewhere = kubeadm.merge(d, c)
		c.Kubeadm = kubeadm.k
		sans, c.Kubeadm.APIServer.CertSANs = kubeadm.k.APIServer.CertSANs, nil
	}
	c.disableSkipped()
	c.applyDefaults()
	v.validate()
	if c.Existing() {
		v.existing(found)
	}
	check := func(d *strict.Decoder) *validator { return &validator{Decoder: d, c: c, known: known, cluster: v} }
	if kubeadm != nil {
		check(kubeadm.Decoder).clusterConfiguration(kubeadm.k)
	}
	if d := found[kindKubelet]; d != nil {
		check(d).kubeletConfiguration(&kubelet)
	}
	if d := found[kindKubeProxy]; d != nil {
		check(d).kubeProxyConfiguration(&kubeProxy)
	}
	if d := found[kubeadmapi.KindInit]; d != nil {
		check(d).initConfiguration(c.Documents.Init)
	}
	if d := found[kubeadmapi.KindJoin]; d != nil {
		check(d).joinConfiguration(c.Documents.Join)
	}
	if d := found[kubeadmapi.KindReset]; d != nil {
		check(d).resetConfiguration(c.Documents.Reset)
	}
	for _, s := range sans {
		if !slices.Contains(c.CertSANs, s) {
			c.CertSANs = append(c.CertSANs, s)
		}
	}
	return c, list
}

// sortDocuments returns a decoder for each document by its kind. Documents of other
// kinds, of other versions and of kinds that are there already are mistakes. A file
// with one document is read as a Cluster, whatever it says.
func sortDocuments(docs []*diag.Document, list *diag.List) map[string]*strict.Decoder {
	found := map[string]*strict.Decoder{}
	kind, version := diag.Path{"kind"}, diag.Path{"apiVersion"}
	for i, doc := range docs {
		d := &strict.Decoder{Doc: doc, List: list, Forms: textForms, Special: specialForms}
		k, v := doc.Text(kind), doc.Text(version)
		want, known := apiVersions[k]
		group, _, _ := strings.Cut(want, "/")
		hasGroup := strings.HasPrefix(v, group+"/")
		switch {
		case refusedKinds[k] != "":
			list.Add(doc.At(kind, k+" has no place in a cluster file", refusedKinds[k]))
			continue
		case known && v != want:
			message := fmt.Sprintf("%q is not the version of %s that this program reads", v, k)
			if !doc.Has(version) {
				message = "is missing"
			}
			hint := "want " + want
			if hasGroup && want == kubeadmapi.APIVersion {
				hint += "; kubeadm config migrate converts older ones"
			}
			list.Add(doc.At(version, message, hint))
		case known:
		case k == Kind || strings.HasPrefix(v, "kiln-os.dev/") || len(docs) == 1 || i == 0 && k == "" && v == "":
			k = Kind
		default:
			hint := "want one of Cluster, ClusterConfiguration, InitConfiguration, JoinConfiguration, ResetConfiguration, KubeletConfiguration, KubeProxyConfiguration"
			list.Add(doc.At(kind, fmt.Sprintf("%q is not a kind of document that this program reads", k), hint))
			continue
		}
		if first := found[k]; first != nil {
			list.Add(doc.At(kind, "there is a second document of kind "+k, fmt.Sprintf("the first one begins in line %d", first.Doc.Root.Line)))
			continue
		}
		found[k] = d
	}
	return found
}

// decodeComponent checks a component's configuration against its type, fills into,
// and returns what the user set as a JSON object.
func decodeComponent(d *strict.Decoder, into any, what string) json.RawMessage {
	d.Decode(into, what, "")
	v, ok := strict.Plain(d.Doc.Root).(map[string]any)
	if !ok {
		return nil
	}
	delete(v, "apiVersion")
	delete(v, "kind")
	out, err := json.Marshal(v)
	if err != nil {
		return nil // a key is no text, which is reported
	}
	return out
}

// textForms says how values of the types that parse themselves are written.
var textForms = map[reflect.Type][2]string{
	reflect.TypeFor[netip.Prefix]():      {"an address with a prefix length", "such as 10.0.2.15/24"},
	reflect.TypeFor[netip.Addr]():        {"an IP address", "such as 10.0.2.2"},
	reflect.TypeFor[secret.Value]():      {"a password", ""},
	reflect.TypeFor[Duration]():          {"a duration of 0s or more", "such as 24h or 90m"},
	reflect.TypeFor[bootplan.Duration](): {"a duration above 0s", "such as 30m"},
	reflect.TypeFor[metav1.Duration]():   {"a duration", "such as 90s"},
	reflect.TypeFor[resource.Quantity](): {"a quantity", "such as 100Mi"},
	reflect.TypeFor[metav1.Time]():       {"a time", "such as 2030-01-31T12:00:00Z"},
}

// token is what may be a bootstrap token in a line of the file.
var token = regexp.MustCompile(`\b[a-z0-9]{6}\.[a-z0-9]{16}\b`)

// password is a line of the file with a password, from its key to the end.
var password = regexp.MustCompile(`(password["']?[ \t]*:).*`)

// hideSecrets takes passwords and the secret parts of tokens out of the lines that
// mistakes show. A line that stands for one that is none is not shown at all.
func hideSecrets(list diag.List) {
	for i, m := range list {
		list[i].Source = password.ReplaceAllString(m.Source, "$1 ****")
		if strings.HasPrefix(m.Path, "bootstrapTokens") || strings.HasPrefix(m.Path, "wifi.password") || strings.HasPrefix(m.Path, "discovery") && !strings.HasPrefix(m.Path, "discovery.file") {
			list[i].Source = ""
		}
		list[i].Source = token.ReplaceAllStringFunc(list[i].Source, func(s string) string { return s[:7] + strings.Repeat("*", 16) })
	}
}

var specialForms = map[reflect.Type]func(*strict.Decoder, *yaml.Node, diag.Path) any{
	reflect.TypeFor[Snippet](): decodeSnippet,
}
