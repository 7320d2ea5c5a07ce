package build

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/internal/spec"
)

// traces are texts one of which is in data if the secret is, plain, in a URL or as
// base64 at any offset.
func traces(s string) []string {
	// The middle of a PEM's body, as far as a URL leaves it as it is.
	if strings.Contains(s, "-----BEGIN") {
		var longest string
		for _, part := range strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune("+/=- \n", r) }) {
			if len(part) > len(longest) {
				longest = part
			}
		}
		s = longest
	}
	out := []string{s}
	for pad := range 3 {
		text := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", pad) + s))
		out = append(out, text[4:len(text)-4]) // the ends depend on the neighbours
	}
	return out
}

func holds(data []byte, v secret.Value) bool {
	for _, trace := range traces(v.RevealString()) {
		if strings.Contains(string(data), trace) {
			return true
		}
	}
	return false
}

// TestSecretsOfEachStamp looks through whole images, byte by byte: a worker's has the
// pin of the cluster's CA and the bootstrap token, and no key; a control plane's has the
// keys that it signs with, so that it needs no uploaded certificates; no image has the
// administrator's.
func TestSecretsOfEachStamp(t *testing.T) {
	o, bases, _ := manyNodes(t, 3)
	o.Cluster.ControlPlaneEndpoint = "api.example.org:6443"
	o.Cluster.Nodes[1].Name, o.Cluster.Nodes[1].Role = "control-plane-2", spec.RoleControlPlane
	a, err := secrets(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stampNodes(t.Context(), o, a, bases, o.Cluster.Nodes); err != nil {
		t.Fatal(err)
	}
	pin, err := a.Pin()
	if err != nil {
		t.Fatal(err)
	}
	adminKey, err := os.ReadFile(filepath.Join(o.Out, "secrets", "admin.key"))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range o.Cluster.Nodes {
		image, err := os.ReadFile(filepath.Join(o.Out, ImageName(n.Name)))
		if err != nil {
			t.Fatal(err)
		}
		cp := n.Role == spec.RoleControlPlane
		for _, s := range []struct {
			what  string
			value secret.Value
			want  bool
		}{
			{"ca.key", a.CA.KeyPEM, cp}, {"front-proxy-ca.key", a.FrontProxyCA.KeyPEM, cp}, {"etcd/ca.key", a.EtcdCA.KeyPEM, cp},
			{"sa.key", a.ServiceAccountKey, cp}, {"sa.pub", secret.New(a.ServiceAccountPub), cp}, {"ca.crt", secret.New(a.CA.CertPEM), cp},
			{"the bootstrap token", a.Token.Secret, true},
			{"admin.key", secret.New(adminKey), false}, {"admin.conf", a.AdminConf, false},
		} {
			if got := holds(image, s.value); got != s.want {
				t.Errorf("%s, a %s, has %s: %v, want %v", n.Name, n.Role, s.what, got, s.want)
			}
		}
		// The one that creates the cluster has nobody to check.
		joins := n.Name != o.Cluster.Nodes[0].Name
		if got := holds(image, secret.FromString(strings.TrimPrefix(pin, "sha256:"))); got != joins {
			t.Errorf("%s has the CA's pin: %v, want %v", n.Name, got, joins)
		}
	}
}
