package staticpod

import (
	"os"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/internal/nodeconfig"
)

func podOf(t *testing.T, cfg nodeconfig.Config, paths host.Paths, name string) corev1.Pod {
	t.Helper()
	pods, err := ControlPlane(cfg, paths)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(pods, func(p corev1.Pod) bool { return p.Name == name })
	return pods[i]
}

// TestExternalEtcd: the API server is sent to all members, with the files that were
// named, whose folders it gets as far as it does not have them.
func TestExternalEtcd(t *testing.T) {
	cfg, paths := config(), host.Paths{Root: t.TempDir()}
	for name, tc := range map[string]struct {
		etcd  kubeadmapi.ExternalEtcd
		flags string
		mount string
	}{
		"with TLS": {kubeadmapi.ExternalEtcd{
			Endpoints: []string{"https://a:2379", "https://b:2379"}, CAFile: "/etc/etcd/ca.crt", CertFile: "/etc/etcd/client/c.crt", KeyFile: "/etc/kubernetes/pki/c.key",
		}, "--etcd-cafile=/etc/etcd/ca.crt --etcd-certfile=/etc/etcd/client/c.crt --etcd-keyfile=/etc/kubernetes/pki/c.key --etcd-servers=https://a:2379,https://b:2379", "/etc/etcd"},
		"without": {kubeadmapi.ExternalEtcd{Endpoints: []string{"http://a:2379"}}, "--etcd-servers=http://a:2379", ""},
	} {
		cfg.Plan.Cluster.Kubeadm.Etcd.External = &tc.etcd
		c := podOf(t, cfg, paths, APIServer).Spec.Containers[0]
		var flags, mounts []string
		for _, a := range c.Command {
			if strings.HasPrefix(a, "--etcd-") {
				flags = append(flags, a)
			}
		}
		for _, m := range c.VolumeMounts {
			if strings.HasPrefix(m.Name, "etcd-certs-") {
				mounts = append(mounts, m.MountPath)
			}
		}
		if got := strings.Join(flags, " "); got != tc.flags || strings.Join(mounts, " ") != tc.mount {
			t.Errorf("%s: %s, mounts %v", name, got, mounts)
		}
	}
}

// TestExternalCA: without the CA's key the controller manager signs nothing.
func TestExternalCA(t *testing.T) {
	cfg, paths := config(), host.Paths{Root: t.TempDir()}
	signing := func() (out []string) {
		for _, a := range podOf(t, cfg, paths, ControllerManager).Spec.Containers[0].Command {
			if strings.HasPrefix(a, "--cluster-signing-") {
				out = append(out, a)
			}
		}
		return out
	}
	if err := os.MkdirAll(paths.PKI(), 0o755); err != nil {
		t.Fatal(err)
	}
	own := []string{"--cluster-signing-cert-file=/etc/kubernetes/pki/ca.crt", "--cluster-signing-key-file=/etc/kubernetes/pki/ca.key"}
	for _, step := range []struct {
		file string
		want []string
	}{
		{"ca.crt", []string{"--cluster-signing-cert-file=", "--cluster-signing-key-file="}},
		{"ca.key", own},
	} {
		if err := os.WriteFile(paths.PKI(step.file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := signing(); !slices.Equal(got, step.want) {
			t.Errorf("with %s: %v, want %v", step.file, got, step.want)
		}
	}
}

// TestJoiningEtcd: all members are named, and no new cluster is begun.
func TestJoiningEtcd(t *testing.T) {
	cfg, paths := config(), host.Paths{Root: t.TempDir()}
	pod, err := JoiningEtcdPod(cfg, "a=https://10.0.0.1:2380,b=https://10.0.0.2:2380")
	if err != nil {
		t.Fatal(err)
	}
	first, err := EtcdPod(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var other []string
	for _, a := range pod.Spec.Containers[0].Command {
		if !slices.Contains(first.Spec.Containers[0].Command, a) {
			other = append(other, a)
		}
	}
	if want := []string{"--initial-cluster=a=https://10.0.0.1:2380,b=https://10.0.0.2:2380", "--initial-cluster-state=existing"}; !slices.Equal(other, want) {
		t.Errorf("%v, want %v", other, want)
	}
	if _, err := InitialCluster(paths); !os.IsNotExist(err) {
		t.Errorf("without a manifest: %v", err)
	}
	if _, err := Write(paths, pod); err != nil {
		t.Fatal(err)
	}
	if got, err := InitialCluster(paths); err != nil || got != "a=https://10.0.0.1:2380,b=https://10.0.0.2:2380" {
		t.Errorf("%q, %v", got, err)
	}
}
