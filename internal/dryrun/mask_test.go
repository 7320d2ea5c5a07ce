package dryrun

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/internal/host"
)

func TestMask(t *testing.T) {
	node, dir := t.TempDir(), filepath.Join(t.TempDir(), "dry")
	put := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(filepath.Join(node, "etc/kubernetes/pki/ca.key"), "the CA's key")
	f, err := NewFolder(dir, host.Paths{Root: node})
	if err != nil {
		t.Fatal(err)
	}
	const kubeconfig = `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: https://192.0.2.1:6443}}]
users:
- {name: a, user: {token: abcdef.hunter2hunter2hu}}
- {name: b, user: {client-key-data: aHVudGVyMg==, password: hunter2, username: ada}}
`
	put(f.Paths.At("/etc/kubernetes/pki/apiserver.key"), "hunter2")
	put(f.Paths.At("/var/lib/kiln/join/discovery.conf"), kubeconfig)
	put(f.Paths.At("/etc/kubernetes/broken.conf"), "kind: Config\nusers: hunter2")
	put(f.Paths.At("/etc/other.conf"), "nameserver 192.0.2.53\n")
	put(f.Paths.At("/etc/kubernetes/manifests/etcd.yaml"), "kind: Pod\n")
	if err := f.Mask(); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/etc/kubernetes/pki/apiserver.key":   "[redacted]\n",
		"/var/lib/kiln/join/discovery.conf":   "server: https://192.0.2.1:6443",
		"/etc/other.conf":                     "nameserver 192.0.2.53\n",
		"/etc/kubernetes/manifests/etcd.yaml": "kind: Pod\n",
		"/etc/kubernetes/pki/ca.key":          "the CA's key", // the node's own, through a link
	} {
		data, err := os.ReadFile(f.Paths.At(path))
		if err != nil || !strings.Contains(string(data), want) {
			t.Errorf("%s: %q, %v; want %q in it", path, data, err, want)
		}
		for _, secret := range []string{"hunter2", "aHVudGVyMg"} {
			if strings.Contains(string(data), secret) {
				t.Errorf("%s holds %s", path, secret)
			}
		}
	}
	if _, err := os.Stat(f.Paths.At("/etc/kubernetes/broken.conf")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a kubeconfig that cannot be masked is left: %v", err)
	}
}
