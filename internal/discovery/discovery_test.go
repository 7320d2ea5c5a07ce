package discovery

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/secret"
)

// The cluster-info of kubeadm 1.37.2's own tests, with its signature and pin.
const (
	signature = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9..rh3cVKiU2mdt3CqHzC81sNE-4WQLRHMtXduHWfSbrIM"
	pinStart  = "sha256:3b793efe"
	pinEnd    = "36dd8a"
)

var token = bootplan.Token{ID: "abcdef", Secret: secret.FromString("abcdef0123456789")}

func clusterInfo(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile("testdata/cluster-info.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestSignature(t *testing.T) {
	info := clusterInfo(t)
	if err := checkSignature(info, signature, token); err != nil {
		t.Error(err)
	}
	other := token
	other.Secret = secret.FromString("0123456789abcdef")
	for name, err := range map[string]error{
		"changed content":   checkSignature(info+" ", signature, token),
		"changed signature": checkSignature(info, signature[:len(signature)-1]+"N", token),
		"attached content":  checkSignature(info, strings.Replace(signature, "..", ".e30.", 1), token),
		"other algorithm":   checkSignature(info, "eyJhbGciOiJub25lIiwia2lkIjoiYWJjZGVmIn0..", token),
		"other token":       checkSignature(info, signature, other),
		"none":              checkSignature(info, "", token),
	} {
		if err == nil || !strings.Contains(err.Error(), "wrong signature for bootstrap token abcdef") || strings.Contains(err.Error(), "0123456789") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPins(t *testing.T) {
	cluster, err := parseClusterInfo([]byte(clusterInfo(t)))
	if err != nil {
		t.Fatal(err)
	}
	ca := cluster.CertificateAuthorityData
	wrong := "sha256:" + strings.Repeat("0", 64)
	err = checkPins(ca, []string{wrong})
	if err == nil || !strings.Contains(err.Error(), wrong) {
		t.Fatalf("wrong pin: %v", err)
	}
	_, rest, _ := strings.Cut(err.Error(), "has the pin ")
	pin := rest[:71]
	if !strings.HasPrefix(pin, pinStart) || !strings.HasSuffix(pin, pinEnd) {
		t.Errorf("kubeadm's own CA has the pin %s", pin)
	}
	for _, good := range [][]string{{pin}, {strings.ToUpper(pin)}, {wrong, pin}} {
		if err := checkPins(ca, good); err != nil {
			t.Errorf("%v: %v", good, err)
		}
	}
	if err := checkPins([]byte("no certificate"), []string{pin}); err == nil {
		t.Error("a text without a certificate has a pin")
	}
}

func TestParseClusterInfo(t *testing.T) {
	info := clusterInfo(t)
	for name, tc := range map[string]struct{ text, want string }{
		"not a kubeconfig": {"hunter2: [", "cannot be read"},
		"empty":            {"", "neither a current context with a cluster nor a cluster without a name"},
		"named cluster":    {strings.Replace(info, `name: ""`, "name: a", 1), "neither a current context"},
		"no CA":            {"apiVersion: v1\nkind: Config\nclusters: [{name: '', cluster: {server: 'https://a'}}]\n", "holds no CA"},
		"plain HTTP":       {strings.Replace(info, "https://", "http://", 1), `"http://192.168.0.101:6443" is not https://host:port`},
	} {
		if _, err := parseClusterInfo([]byte(tc.text)); err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestKubeconfigRefused: a kubeconfig that can never be used is said to be so, before
// anybody is asked.
func TestKubeconfigRefused(t *testing.T) {
	const cluster = "apiVersion: v1\nkind: Config\ncurrent-context: x\ncontexts: [{name: x, context: {cluster: c, user: u}}]\n"
	for name, tc := range map[string]struct{ text, want string }{
		"not a kubeconfig": {"hunter2: [", "it is not a kubeconfig"},
		"no cluster":       {cluster, "neither a current context with a cluster"},
		"CA in a file":     {cluster + "clusters: [{name: c, cluster: {server: 'https://a', certificate-authority: /ca.crt}}]\n", "its CA is in a file"},
		"unverified":       {cluster + "clusters: [{name: c, cluster: {server: 'https://a', insecure-skip-tls-verify: true}}]\n", "does not verify the server"},
		"key in a file":    {cluster + "clusters: [{name: c, cluster: {server: 'https://a'}}]\nusers: [{name: u, user: {client-key: /k, token: hunter2}}]\n", "its credentials are in files"},
		"a program": {cluster + "clusters: [{name: c, cluster: {server: 'https://a'}}]\nusers: [{name: u, user: {exec: {command: /x, apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never}}}]\n",
			"its credentials come from a program"},
		"nobody": {cluster + "clusters: [{name: c, cluster: {server: 'https://a'}}]\n", "it holds no credentials"},
	} {
		_, err := ByKubeconfig(context.Background(), secret.FromString(tc.text), nil, "kiln")
		if !errors.Is(err, ErrKubeconfig) || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUnsigned(t *testing.T) {
	now := time.Date(2030, 1, 2, 0, 0, 0, 0, time.UTC)
	dead, alive := token, token
	dead.Expires, alive.Expires = now, now.Add(time.Second)
	if err := unsigned(dead, now); !strings.Contains(err.Error(), "abcdef expired on 2030-01-02T00:00:00Z") {
		t.Error(err)
	}
	for _, tok := range []bootplan.Token{token, alive} {
		if err := unsigned(tok, now); !strings.Contains(err.Error(), "has expired or was deleted, or the control plane has yet to sign") {
			t.Error(err)
		}
	}
}

// FuzzClusterInfo: nothing that a server sends may stop the node, and what is accepted
// has a server and a certificate.
func FuzzClusterInfo(f *testing.F) {
	f.Add([]byte(clusterInfo(f)))
	f.Add([]byte("apiVersion: v1\nkind: Config\nclusters: [{name: '', cluster: }]\n"))
	f.Add([]byte("contexts: [{name: '', context: {cluster: x}}]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		cluster, err := parseClusterInfo(data)
		if err != nil {
			return
		}
		if !strings.HasPrefix(strings.ToLower(cluster.Server), "https://") {
			t.Errorf("server %q", cluster.Server)
		}
		if err := checkPins(cluster.CertificateAuthorityData, []string{"sha256:" + strings.Repeat("0", 64)}); err == nil {
			t.Error("a pin of zeros matches")
		}
	})
}
