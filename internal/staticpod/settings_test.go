package staticpod

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/internal/nodeconfig"
)

// settings is the cluster of the golden files with what the ClusterConfiguration in
// testdata/kubeadm-settings.yaml sets, less Kiln's own flags, which stand in it
// because kubeadm does not know them.
func settings(t *testing.T) nodeconfig.Config {
	t.Helper()
	data, err := os.ReadFile("testdata/kubeadm-settings.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, doc, ok := bytes.Cut(data, []byte("---\n"))
	if !ok {
		t.Fatal("no second document")
	}
	cfg := config()
	k := &cfg.Plan.Cluster.Kubeadm
	if err := yaml.UnmarshalStrict(doc, k); err != nil {
		t.Fatal(err)
	}
	k.ControllerManager.ExtraArgs = k.ControllerManager.ExtraArgs[2:]
	k.Scheduler.ExtraArgs = k.Scheduler.ExtraArgs[3:]
	k.APIServer.ExtraEnvs, k.ControllerManager.ExtraEnvs, k.Scheduler.ExtraEnvs = k.APIServer.ExtraEnvs[1:], k.ControllerManager.ExtraEnvs[1:], nil
	return cfg
}

// TestSettingsAsKubeadm compares with what kubeadm 1.37.2 writes when nearly
// everything is set.
func TestSettingsAsKubeadm(t *testing.T) {
	for _, p := range pods(t, settings(t), rootWith(t)) {
		got, err := Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata/settings", p.Name+".yaml")
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if want = lateLiveness(t, p.Name, want); string(got) != string(want) {
			t.Errorf("%s: kubeadm writes something else; got\n%s", path, got)
		}
	}
}

func TestProbesFollowTheFlags(t *testing.T) {
	for _, tc := range []struct {
		bind, want string
	}{{"0.0.0.0", ""}, {"::", ""}, {"192.0.2.1", "192.0.2.1"}} {
		cfg := config()
		cfg.Plan.Cluster.Kubeadm.Scheduler.ExtraArgs = []Arg{{Name: "bind-address", Value: tc.bind}}
		if got := bindHost(cfg, Scheduler); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.bind, got, tc.want)
		}
	}
	for _, tc := range []struct {
		urls, host string
		port       int32
		scheme     string
	}{
		{"http://127.0.0.1:2381", "127.0.0.1", 2381, "HTTP"},
		{"https://[fd00::1]:9,http://x:1", "fd00::1", 9, "HTTPS"},
		{"http://:", "127.0.0.1", 2381, "HTTP"},
		{"http://%zz", "127.0.0.1", 2381, "HTTP"},
	} {
		cfg := config()
		cfg.Plan.Cluster.Kubeadm.Etcd.Local = &kubeadmapi.LocalEtcd{ExtraArgs: []Arg{{Name: "listen-metrics-urls", Value: tc.urls}}}
		if h, p, s := etcdProbe(cfg); h != tc.host || p != tc.port || string(s) != tc.scheme {
			t.Errorf("%s: %s %d %s", tc.urls, h, p, s)
		}
	}
}
