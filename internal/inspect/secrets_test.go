package inspect

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vincent-petithory/dataurl"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/pki"
)

var now = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

// rendered is the config that imagegen renders for a node.
func rendered(t testing.TB, name string) *config {
	t.Helper()
	b, err := os.ReadFile("../render/testdata/" + name + ".ign.json")
	if err != nil {
		t.Fatal(err)
	}
	c, err := parseConfig(secret.New(b))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func paths(secrets []Secret) (out []string) {
	for _, s := range secrets {
		out = append(out, s.Path)
	}
	return out
}

func TestRendered(t *testing.T) {
	controlPlane := []string{
		"/etc/kiln/boot.yaml", "/etc/kubernetes/pki/ca.key", "/etc/kubernetes/pki/etcd/ca.key", "/etc/kubernetes/pki/front-proxy-ca.key", "/etc/kubernetes/pki/sa.key",
	}
	for name, want := range map[string]struct {
		secrets []string
		node    Node
	}{
		"init":               {controlPlane, Node{Cluster: "home", Name: "kiln-1", Role: bootplan.RoleInit}},
		"join-control-plane": {controlPlane, Node{Role: bootplan.RoleJoinControlPlane, Name: "kiln-2", Interface: "enp1s0", ControlPlane: "api.example.org:6443"}},
		// A worker has nothing that signs.
		"join-worker": {controlPlane[:1], Node{Role: bootplan.RoleJoinWorker, Name: "kiln-3", Interface: "52:54:00:12:34:56", ControlPlane: "api.example.org:6443"}},
	} {
		c := rendered(t, name)
		got := c.secrets(now)
		if !slices.Equal(paths(got), want.secrets) {
			t.Errorf("%s: secrets in %q, want %q", name, paths(got), want.secrets)
		}
		for _, s := range got {
			if s.Reach == "" || s.Expires.String() == "unknown" || s.Expired {
				t.Errorf("%s: %+v", name, s)
			}
		}
		for _, s := range c.secrets(now.AddDate(100, 0, 0)) {
			if s.Expired == s.Expires.Never {
				t.Errorf("%s: in a hundred years: %+v", name, s)
			}
		}
		n, err := c.node()
		if err != nil || n.Role != want.node.Role || n.Name != want.node.Name || n.Interface != want.node.Interface || name != "init" && n.ControlPlane != want.node.ControlPlane {
			t.Errorf("%s: node %+v, %v", name, n, err)
		}
	}
}

// with makes a config of files with mode 0600.
func with(t *testing.T, files map[string]string) *config {
	t.Helper()
	type list []map[string]any
	var fs list
	for p, content := range files {
		fs = append(fs, map[string]any{"path": p, "mode": 0o600, "contents": map[string]string{"source": dataurl.EncodeBytes([]byte(content))}})
	}
	b, err := json.Marshal(map[string]any{
		"ignition": map[string]string{"version": "3.3.0"}, "storage": map[string]any{"files": fs},
		"passwd": map[string]any{
			"users":  list{{"name": "a", "passwordHash": "$y$secret"}, {"name": "locked", "passwordHash": "!secret"}, {"name": "none"}},
			"groups": list{{"name": "g", "passwordHash": "secret"}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := parseConfig(secret.New(b))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestKinds: whatever a snippet or a future version puts on a node is recognised, or
// shown as what it is: a file that others may not read.
func TestKinds(t *testing.T) {
	a, err := pki.LoadOrCreate(filepath.Join(t.TempDir(), "secrets"), pki.Options{Algorithm: pki.ECDSAP256, ClusterName: "home", Endpoint: "10.0.2.15:6443", Now: now})
	if err != nil {
		t.Fatal(err)
	}
	const key = "-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n"
	crt := string(a.CA.CertPEM)
	c := with(t, map[string]string{
		"/etc/kubernetes/admin.conf":              a.AdminConf.RevealString(),
		"/etc/kubernetes/pki/apiserver.key":       key,
		"/etc/kubernetes/pki/apiserver.crt":       crt,
		"/etc/kubernetes/pki/sa.pub":              "public",
		"/etc/kubernetes/enc.yaml":                "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nsecret: x\n",
		"/etc/ssh/ssh_host_ed25519_key":           "-----BEGIN OPENSSH PRIVATE KEY-----\nsecret",
		"/etc/systemd/network/wg0.netdev":         "[WireGuard]\nPrivateKey=secret\n",
		"/etc/wpa_supplicant/wpa_supplicant.conf": "network={\n psk=secret\n}\n",
		"/root/.docker/config.json":               `{"auths": {"registry.example.org": {"auth": "secret"}}}`,
		"/etc/web/tls.key":                        key,
		"/etc/web/tls.pem":                        crt,
		"/etc/web/both.pem":                       key + crt,
		"/etc/web/alone.key":                      key,
		"/etc/own":                                "secret",
		"/etc/empty":                              "",
		"/home/a/.ssh/authorized_keys":            "# nothing\n",
	})
	var got []string
	for _, s := range c.secrets(now) {
		if strings.Contains(fmt.Sprintf("%+v", s), "=secret") {
			t.Errorf("a value is shown: %+v", s)
		}
		e := s.Expires.String()
		if !s.Expires.At.IsZero() {
			e = "date"
		}
		got = append(got, fmt.Sprintf("%s: %s: %s", s.Path, s.Name, e))
	}
	want := []string{
		"/etc/gshadow: password hash of group g: never",
		"/etc/kubernetes/admin.conf: kubeconfig of kubernetes-admin: date",
		"/etc/kubernetes/enc.yaml: encryption key of the API server: never",
		"/etc/kubernetes/pki/apiserver.key: key of the API server: date",
		"/etc/own: file for its owner alone: unknown",
		"/etc/shadow: password hash of user a: never",
		"/etc/ssh/ssh_host_ed25519_key: SSH host key: never",
		"/etc/systemd/network/wg0.netdev: WireGuard key: never",
		"/etc/web/alone.key: private key: unknown",
		"/etc/web/both.pem: private key: date",
		"/etc/web/tls.key: private key: date",
		"/etc/wpa_supplicant/wpa_supplicant.conf: Wi-Fi password: never",
		"/root/.docker/config.json: registry credentials: unknown",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestFilled: a secret that a boot plan gets one day is not missed.
func TestFilled(t *testing.T) {
	type inner struct {
		Key, Empty secret.Value
		At         time.Time
	}
	v := struct {
		Plan   bootplan.Plan
		Inner  *inner
		List   []inner
		Absent *inner
	}{
		Plan:  bootplan.Plan{Tokens: []bootplan.Token{{ID: "abcdef", Secret: secret.FromString("x")}}},
		Inner: &inner{Key: secret.FromString("x")}, List: []inner{{}, {Key: secret.FromString("x")}},
	}
	want := []string{"plan.tokens[0].secret", "inner.key", "list[1].key"}
	if got := filled(reflect.ValueOf(v), ""); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"ignition":{"version":"3.3.0"},"storage":{"files":[{"path":"/etc/systemd/network/10-kiln.network","contents":{"source":"data:,%5BNetwork%5D%0AAddress%3D10.0.0.1"}}]}}`))
	f.Add([]byte(`{"ignition":{"version":"3.3.0"},"passwd":{"users":[{"name":"root","sshAuthorizedKeys":["ssh-rsa x"],"passwordHash":"x"}]}}`))
	f.Add([]byte(`{"ignition":{"version":"3.3.0"},"storage":{"files":[{"path":"/a.conf","mode":384,"contents":{"source":"data:,current-context:","compression":""}}]}}`))
	f.Fuzz(func(_ *testing.T, b []byte) {
		c, err := parseConfig(secret.New(b))
		if err != nil {
			return
		}
		_, _ = c.node()
		_ = c.secrets(now)
	})
}

func FuzzCommandLine(f *testing.F) {
	f.Add("usrhash=" + strings.Repeat("ab", 32) + " quiet")
	f.Add("usrhash=")
	f.Fuzz(func(t *testing.T, s string) {
		if h, err := rootHash(s); err == nil && !strings.Contains(strings.ToLower(s), fmt.Sprintf("%x", h)) {
			t.Errorf("%x in %q", h, s)
		}
		_ = osRelease([]byte(s))
	})
}
