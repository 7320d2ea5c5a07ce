package discoveryfile

import (
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/pki"
)

const head = "apiVersion: v1\nkind: Config\ncurrent-context: x\ncontexts: [{name: x, context: {cluster: c, user: u}}]\n"

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// ca makes a CA that was made at now.
func ca(t *testing.T, now time.Time) *pki.CA {
	t.Helper()
	row, err := pki.CertificateFor("ca")
	if err != nil {
		t.Fatal(err)
	}
	ca, err := pki.NewCA(row, pki.ECDSAP256, now)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func cluster(name string, ca []byte) string {
	return fmt.Sprintf("{name: '%s', cluster: {server: 'https://10.0.2.15:6443', certificate-authority-data: %s}}", name, b64(ca))
}

// TestRead: what is baked in has one cluster, its CA, and at most the credentials of
// somebody who is nobody but a node to be.
func TestRead(t *testing.T) {
	now := time.Now()
	good := ca(t, now)
	user := func(ca *pki.CA, at time.Time, org ...string) string {
		cert, key, err := ca.Issue(pki.LeafSpec{CN: "joiner", O: org, Usages: clientUsages(), Validity: time.Hour}, pki.ECDSAP256, at)
		if err != nil {
			t.Fatal(err)
		}
		return "users: [{name: u, user: {client-certificate-data: " + b64(cert) + ", client-key-data: " + b64(key.Reveal()) + "}}]\n"
	}
	leaf, _, err := good.Issue(pki.LeafSpec{CN: "x", Usages: clientUsages()}, pki.ECDSAP256, now)
	if err != nil {
		t.Fatal(err)
	}
	one := "clusters: [" + cluster("c", good.CertPEM) + "]\n"
	for name, tc := range map[string]struct {
		text string
		mode os.FileMode
		want string
	}{
		"published":         {"apiVersion: v1\nkind: Config\nclusters: [" + cluster("", good.CertPEM) + "]\n", 0o644, ""},
		"named":             {head + one, 0o644, ""},
		"token":             {head + one + "users: [{name: u, user: {token: hunter2}}]\n", 0o600, ""},
		"certificate":       {head + one + user(good, now, "system:bootstrappers"), 0o600, ""},
		"readable token":    {head + one + "users: [{name: u, user: {token: hunter2}}]\n", 0o644, "it holds credentials but has mode 0644: others may read it; run: chmod 600"},
		"not a kubeconfig":  {"hunter2: [", 0o600, "it is not a kubeconfig"},
		"empty":             {"", 0o600, "neither a current context"},
		"two clusters":      {head + "clusters: [" + cluster("c", good.CertPEM) + ", " + cluster("d", good.CertPEM) + "]\n", 0o600, "it has 2 clusters; want the one to join alone"},
		"no CA":             {head + "clusters: [{name: c, cluster: {server: 'https://a:6443'}}]\n", 0o600, "it holds no CA certificate; want certificate-authority-data"},
		"CA in a file":      {head + "clusters: [{name: c, cluster: {server: 'https://a:6443', certificate-authority: ca.crt}}]\n", 0o600, "its CA is in a file"},
		"CA is text":        {head + "clusters: [" + cluster("c", []byte("hunter2")) + "]\n", 0o600, "its CA: it holds no certificate"},
		"CA is none":        {head + "clusters: [" + cluster("c", leaf) + "]\n", 0o600, `its certificate "CN=x" is not a CA's`},
		"CA expired":        {head + "clusters: [" + cluster("c", ca(t, now.Add(-20*365*24*time.Hour)).CertPEM) + "]\n", 0o600, "its CA \"CN=kubernetes\" expired on "},
		"no server":         {head + "clusters: [{name: c, cluster: {certificate-authority-data: " + b64(good.CertPEM) + "}}]\n", 0o600, `its server "" is not https://host:port`},
		"plain HTTP":        {head + strings.Replace(one, "https:", "http:", 1), 0o600, `its server "http://10.0.2.15:6443" is not https://host:port`},
		"port alone":        {head + strings.Replace(one, "10.0.2.15", "", 1), 0o600, `its server "https://:6443" is not https://host:port`},
		"IPv6, no brackets": {head + strings.Replace(one, "10.0.2.15", "fd00::101", 1), 0o600, `its server "https://fd00::101:6443" is not https://host:port`},
		"IPv6":              {head + strings.Replace(one, "10.0.2.15", "[fd00::101]", 1), 0o600, ""},
		"administrator":     {head + one + user(good, now, "kubeadm:cluster-admins"), 0o600, "its credentials are an administrator's (kubeadm:cluster-admins)"},
		"super":             {head + one + user(good, now, "system:masters"), 0o600, "its credentials are an administrator's (system:masters)"},
		"expired user":      {head + one + user(good, now.Add(-2*time.Hour), "a"), 0o600, "its client certificate expired on "},
		"wrong key":         {head + one + strings.Split(user(good, now, "a"), ", client-key-data")[0] + ", client-key-data: " + b64([]byte("hunter2")) + "}}]\n", 0o600, "its client certificate: "},
		"key in a file":     {head + one + "users: [{name: u, user: {client-key: /k, token: hunter2}}]\n", 0o600, "its credentials are in files"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "join.conf")
			if err := os.WriteFile(path, []byte(tc.text), tc.mode); err != nil {
				t.Fatal(err)
			}
			v, err := Read(path, now)
			if tc.want == "" {
				if err != nil || v.RevealString() != tc.text {
					t.Errorf("%v", err)
				}
				return
			}
			if err == nil || !strings.HasPrefix(err.Error(), path+": ") || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "hunter2") || !v.IsZero() {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
	if _, err := Read(filepath.Join(t.TempDir(), "none.conf"), now); err == nil || !strings.HasSuffix(err.Error(), "none.conf: there is no such file") {
		t.Error(err)
	}
}

// FuzzParse: nothing that stands in a file may stop imagegen or the node, and what is
// accepted has a server that is verified.
func FuzzParse(f *testing.F) {
	f.Add([]byte(head + "clusters: [{name: c, cluster: {server: 'https://a'}}]\nusers: [{name: u, user: {token: t}}]\n"))
	f.Add([]byte("clusters: [{name: c}]\nusers: [{name: u}]\ncontexts: [{name: x}]\ncurrent-context: x\n"))
	f.Add([]byte("clusters: [{name: '', cluster: {server: 'https://a', certificate-authority-data: LS0tLS0=}}]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse(secret.New(data))
		if err != nil {
			return
		}
		if file.Cluster.InsecureSkipTLSVerify || !strings.HasPrefix(strings.ToLower(file.Cluster.Server), "https://") {
			t.Errorf("accepted %+v", file.Cluster)
		}
		_ = file.check(time.Unix(0, 0)) // must not panic
	})
}

func clientUsages() []x509.ExtKeyUsage { return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }
