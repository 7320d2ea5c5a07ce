package uploadconfig

import (
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/internal/apitest"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
)

// TestAsKubeadm compares kubelet-config, its hash included, with what
// "kubeadm init phase upload-config kubelet" stores in a cluster.
func TestAsKubeadm(t *testing.T) {
	uploads, err := render(apitest.Config("192.0.2.10"))
	if err != nil {
		t.Fatal(err)
	}
	apitest.SameObjects(t, apitest.Manifests(t, "testdata/kubelet-config-kubeadm-v1.37.2.json"),
		map[string]runtime.Object{"ConfigMap kubelet-config": uploads[1].configMap})
}

// TestSettings: what the user set is stored, and not signed as kubeadm's own.
func TestSettings(t *testing.T) {
	cfg := apitest.Config("192.0.2.10")
	c := &cfg.Plan.Cluster
	c.Kubelet = []byte(`{"maxPods": 50}`)
	c.Kubeadm.Scheduler.ExtraArgs = []kubeadmapi.Arg{{Name: "v", Value: "4"}, {Name: "leader-elect-retry-period", Value: "3s"}}
	c.Kubeadm.Proxy.Disabled = true
	c.Kubeadm.CertificatesDir = "/etc/certs"
	c.Kubeadm.Etcd.Local = &kubeadmapi.LocalEtcd{DataDir: "/var/lib/etcd2", PeerCertSANs: []string{"peer.example.org"}}
	c.Kubeadm.CertificateValidityPeriod = &metav1.Duration{Duration: 48 * time.Hour}
	uploads, err := render(cfg)
	if err != nil {
		t.Fatal(err)
	}
	kubelet := uploads[1].configMap
	if len(kubelet.Annotations) > 0 || !strings.Contains(kubelet.Data["kubelet"], "\nmaxPods: 50\n") {
		t.Errorf("%v\n%s", kubelet.Annotations, kubelet.Data["kubelet"])
	}
	var got kubeadmapi.ClusterConfiguration
	if err := yaml.UnmarshalStrict([]byte(uploads[0].configMap.Data["ClusterConfiguration"]), &got); err != nil {
		t.Fatal(err)
	}
	want := []kubeadmapi.Arg{
		{Name: "leader-elect-lease-duration", Value: "60s"}, {Name: "leader-elect-renew-deadline", Value: "45s"},
		{Name: "v", Value: "4"}, {Name: "leader-elect-retry-period", Value: "3s"},
	}
	if !slices.Equal(got.Scheduler.ExtraArgs, want) {
		t.Errorf("the scheduler's flags: %v", got.Scheduler.ExtraArgs)
	}
	if !got.Proxy.Disabled || got.CertificatesDir != "/etc/certs" || got.Etcd.Local.DataDir != "/var/lib/etcd2" ||
		!slices.Equal(got.Etcd.Local.PeerCertSANs, []string{"peer.example.org"}) || got.CertificateValidityPeriod.Duration != 48*time.Hour ||
		got.CACertificateValidityPeriod.Duration != 87600*time.Hour {
		t.Errorf("%+v", got)
	}
}
