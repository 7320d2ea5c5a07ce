package render

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/pki"
)

// TestNodeDocuments: tokens of the InitConfiguration go to the node that creates the
// cluster and to no other; what the documents say of a node is in its plan.
func TestNodeDocuments(t *testing.T) {
	text := string(spec.Example()) + `
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
bootstrapTokens: [{token: friend.aaaaaaaaaaaaaaaa, ttl: 1h}]
nodeRegistration: {ignorePreflightErrors: [NumCPU]}
patches: {directory: p}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
nodeRegistration: {kubeletExtraArgs: [{name: v, value: "3"}]}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ResetConfiguration
force: true
`
	k := known
	k.Patches = func(string) ([]bootplan.Patch, []error) {
		return []bootplan.Patch{{File: "etcd.yaml", Data: "spec: {priority: 1}\n"}}, nil
	}
	c, list := spec.Parse("cluster.yaml", []byte(text), k)
	if len(list) > 0 {
		t.Fatal(list)
	}
	threeNodes(c)
	for i, want := range []struct {
		tokens, patches, flags int
		ignored                string
	}{{2, 1, 0, "NumCPU"}, {1, 0, 1, ""}, {1, 0, 1, ""}} {
		r, _, inline := render(t, c, i)
		n := r.Plan.Node
		if len(r.Plan.Tokens) != want.tokens || len(n.Patches) != want.patches || len(n.KubeletExtraArgs) != want.flags || strings.Join(n.IgnorePreflightErrors, " ") != want.ignored || !n.Reset.Force {
			t.Errorf("node %d: %+v", i, n)
		}
		plan, err := bootplan.Parse([]byte(inline[bootplan.Path]))
		if err != nil || len(plan.Node.Patches) != want.patches {
			t.Errorf("node %d: %v", i, err)
		}
		if i == 0 && !plan.Tokens[1].Expires.Equal(fixture(t).Created().Add(time.Hour)) {
			t.Errorf("the token's life does not count from the cluster's creation: %v", plan.Tokens[1])
		}
	}
}

// TestDiscoveryFile: the nodes that join have the user's kubeconfig in their boot plan,
// and a token only if they need it; it must be of the cluster.
func TestDiscoveryFile(t *testing.T) {
	a := fixture(t)
	kubeconfig := func(ca []byte, user string) secret.Value {
		return secret.FromString(fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: x\ncontexts: [{name: x, context: {cluster: c, user: u}}]\n"+
			"clusters: [{name: c, cluster: {server: 'https://lb.example.org:6443', certificate-authority-data: %s}}]\n%s", base64.StdEncoding.EncodeToString(ca), user))
	}
	c := cluster(t, threeNodes)
	for user, tokens := range map[string]int{"": 1, "users: [{name: u, user: {token: hunter2}}]\n": 0} {
		c.Documents.DiscoveryFile = kubeconfig(a.CA.CertPEM, user)
		for i := range c.Nodes {
			r, _, inline := render(t, c, i)
			plan, err := bootplan.Parse([]byte(inline[bootplan.Path]))
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				if plan.Discovery != nil || len(plan.Tokens) != 1 {
					t.Errorf("the node that creates the cluster: %+v", plan)
				}
				continue
			}
			if d := plan.Discovery; d == nil || !d.Kubeconfig.Equal(c.Documents.DiscoveryFile) || d.Endpoint != "" || len(plan.Tokens) != tokens || len(r.Plan.Tokens) != tokens {
				t.Errorf("node %d: %+v, %d tokens", i, d, len(plan.Tokens))
			}
			for path, text := range inline {
				if path != bootplan.Path && strings.Contains(text, "hunter2") {
					t.Errorf("the credentials are in %s too", path)
				}
			}
		}
	}
	row, err := pki.CertificateFor("ca")
	if err != nil {
		t.Fatal(err)
	}
	other, err := pki.NewCA(row, pki.ECDSAP256, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c.Documents.DiscoveryFile = kubeconfig(other.CertPEM, "users: [{name: u, user: {token: hunter2}}]\n")
	if _, err := Node(c, a, c.Nodes[2]); err == nil || !strings.Contains(err.Error(), "node kiln-3: discovery.file: the kubeconfig of https://lb.example.org:6443 trusts another CA than ca.crt") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("another cluster's: %v", err)
	}
	if _, err := Node(c, a, c.Nodes[0]); err != nil {
		t.Errorf("the first control plane joins nothing: %v", err)
	}
	// With both, the node trusts the cluster's as well.
	c.Documents.DiscoveryFile = kubeconfig(append(other.CertPEM, a.CA.CertPEM...), "")
	if _, err := Node(c, a, c.Nodes[2]); err != nil {
		t.Error(err)
	}
}

// TestProvided: what an external CA has signed is where the node looks for it, in a
// folder of certificates of the user's too, and the CA's key is not.
func TestProvided(t *testing.T) {
	c, a := cluster(t, threeNodes), fixture(t)
	c.Kubeadm.CertificatesDir = "/etc/certificates"
	a.CA.KeyPEM = secret.Value{}
	a.Provided = map[string][]pki.ProvidedFile{"kiln-1": {
		{Path: "pki/etcd/peer.crt", Data: secret.FromString("a certificate\n")},
		{Path: "pki/etcd/peer.key", Data: secret.FromString("a key\n"), Private: true},
		{Path: "admin.conf", Data: secret.FromString("a kubeconfig\n"), Private: true},
	}}
	r, err := Node(c, a, c.Nodes[0])
	if err != nil {
		t.Fatal(err)
	}
	p := parse(t, r)
	modes := map[string]int{}
	for _, f := range p.config.Storage.Files {
		modes[f.Path] = *f.Mode
	}
	for path, want := range map[string]struct {
		text string
		mode int
	}{
		"/etc/certificates/etcd/peer.crt": {"a certificate\n", 0o644}, "/etc/certificates/etcd/peer.key": {"a key\n", 0o600}, "/etc/kubernetes/admin.conf": {"a kubeconfig\n", 0o600},
	} {
		if p.inline[path] != want.text || modes[path] != want.mode {
			t.Errorf("%s: %q, mode %o", path, p.inline[path], modes[path])
		}
	}
	if _, ok := p.inline["/etc/certificates/ca.key"]; ok || p.inline["/etc/certificates/etcd/ca.key"] == "" {
		t.Error("keys of CAs")
	}
	if _, err := Node(c, a, c.Nodes[1]); err == nil || !strings.Contains(err.Error(), "node kiln-2: the key of CA ca is missing") {
		t.Errorf("nothing is provided for kiln-2: %v", err)
	}
}
