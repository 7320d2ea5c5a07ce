package staticpod

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/nodeconfig"
)

// config is the cluster of the golden files. Its startup time is kubeadm's default.
func config() nodeconfig.Config {
	return nodeconfig.Config{
		Plan: bootplan.Plan{
			Cluster: bootplan.Cluster{
				Name: "demo", KubernetesVersion: "v1.37.2", DNSDomain: "cluster.local",
				PodSubnets: []string{"10.244.0.0/16"}, ServiceSubnets: []string{"10.96.0.0/12"},
			},
			Timeouts: bootplan.Timeouts{ControlPlane: bootplan.Duration(4 * time.Minute)},
		},
		NodeName: "kiln-1", Hostname: "kiln-1", AdvertiseAddress: netip.MustParseAddr("10.0.2.15"),
	}
}

func pods(t *testing.T, cfg nodeconfig.Config, paths host.Paths) []corev1.Pod {
	t.Helper()
	out, err := ControlPlane(cfg, paths)
	if err != nil {
		t.Fatal(err)
	}
	etcd, err := EtcdPod(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return append(out, etcd)
}

// rootWith makes a root with the folders of CA certificates that Debian has.
func rootWith(t *testing.T) host.Paths {
	t.Helper()
	p := host.Paths{Root: t.TempDir()}
	for _, d := range []string{"etc/ca-certificates", "usr/share/ca-certificates", "usr/local/share/ca-certificates"} {
		if err := os.MkdirAll(filepath.Join(p.Root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// TestGolden compares with the files that kubeadm 1.37.2 writes for the
// ClusterConfiguration in testdata/kubeadm.yaml or testdata/kubeadm-v6.yaml, byte
// by byte (kubeadm init phase etcd local, kubeadm init phase control-plane all), but
// for one number: see lateLiveness.
func TestGolden(t *testing.T) {
	v6 := config()
	v6.AdvertiseAddress = netip.MustParseAddr("fd00::15")
	v6.Plan.Cluster.PodSubnets = []string{"fd00:10:244::/56"}
	v6.Plan.Cluster.ServiceSubnets = []string{"fd00:10:96::/112"}
	for dir, cfg := range map[string]nodeconfig.Config{"v4": config(), "v6": v6} {
		for _, p := range pods(t, cfg, rootWith(t)) {
			got, err := Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", dir, p.Name+".yaml")
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if want = lateLiveness(t, p.Name, want); string(got) != string(want) {
				t.Errorf("%s: kubeadm writes something else; got\n%s", path, got)
			}
		}
	}
}

// lateLiveness changes kubeadm's manifest where Kiln's is different: the liveness probe of
// what runs before the kubelet does begins when the startup probe would have given up.
func lateLiveness(t *testing.T, name string, manifest []byte) []byte {
	t.Helper()
	if name != Etcd && name != APIServer {
		return manifest
	}
	const kubeadms = "      initialDelaySeconds: 10\n"
	at := bytes.Index(manifest, []byte("    livenessProbe:\n"))
	from := at + bytes.Index(manifest[max(at, 0):], []byte(kubeadms))
	if at < 0 || from < at {
		t.Fatalf("%s: no delay of the liveness probe", name)
	}
	return slices.Concat(manifest[:from], []byte("      initialDelaySeconds: 240\n"), manifest[from+len(kubeadms):])
}

func TestStartupFollowsThePlan(t *testing.T) {
	cfg := config()
	cfg.Plan.Timeouts.ControlPlane = bootplan.Duration(30*time.Minute + time.Second)
	for _, p := range pods(t, cfg, host.Paths{Root: t.TempDir()}) {
		if got := p.Spec.Containers[0].StartupProbe.FailureThreshold; got != 181 {
			t.Errorf("%s: %d failures of ten seconds", p.Name, got)
		}
		want := int32(10)
		if p.Name == Etcd || p.Name == APIServer {
			want = 1810
		}
		if got := p.Spec.Containers[0].LivenessProbe.InitialDelaySeconds; got != want {
			t.Errorf("%s: the liveness probe begins after %d seconds, want %d", p.Name, got, want)
		}
	}
}

func TestProxyVariablesStayOutside(t *testing.T) {
	for _, k := range []string{"http_proxy", "HTTPS_PROXY", "NO_PROXY"} {
		t.Setenv(k, "http://proxy.example:3128")
	}
	for _, p := range pods(t, config(), host.Paths{Root: t.TempDir()}) {
		for _, env := range p.Spec.Containers[0].Env {
			if env.Name != "GOGC" {
				t.Errorf("%s has %v", p.Name, env)
			}
		}
	}
}

func TestCommand(t *testing.T) {
	got := command("p", []Arg{{Name: "b", Value: "1"}, {Name: "a", Value: "2"}, {Name: "c", Value: "3"}}, []Arg{{Name: "z", Value: "9"}, {Name: "b", Value: "7"}, {Name: "b", Value: "8"}})
	if want := []string{"p", "--a=2", "--c=3", "--z=9", "--b=7", "--b=8"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestUnsupportedEtcdArchitecture(t *testing.T) {
	if got := etcdExtraEnvs("amd64"); got != nil {
		t.Errorf("amd64: %v", got)
	}
	if got := etcdExtraEnvs("arm"); !reflect.DeepEqual(got, []corev1.EnvVar{{Name: "ETCD_UNSUPPORTED_ARCH", Value: "arm"}}) {
		t.Errorf("arm: %v", got)
	}
}

func TestEtcdQuota(t *testing.T) {
	if got := quotaArgs(64); got != nil {
		t.Errorf("64 bits: %v", got)
	}
	if got := quotaArgs(32); !slices.Equal(got, []Arg{{Name: "quota-backend-bytes", Value: "1610612736"}}) {
		t.Errorf("32 bits: %v", got)
	}
}

func TestWrite(t *testing.T) {
	p := host.Paths{Root: t.TempDir()}
	pod, err := EtcdPod(config())
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, false} {
		if changed, err := Write(p, pod); err != nil || changed != want {
			t.Errorf("write %d: changed %v, %v", i+1, changed, err)
		}
	}
	pod.Spec.Containers[0].Image = "other"
	if changed, err := Write(p, pod); err != nil || !changed {
		t.Errorf("another pod: changed %v, %v", changed, err)
	}
	entries, err := os.ReadDir(p.Manifests())
	if err != nil || len(entries) != 1 || entries[0].Name() != "etcd.yaml" {
		t.Errorf("the folder holds %v, %v: the kubelet takes every file for a pod", entries, err)
	}
	for path, mode := range map[string]os.FileMode{p.Manifests(): 0o700, filepath.Join(p.Manifests(), "etcd.yaml"): 0o600} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", path, st.Mode(), err)
		}
	}
}
