package addonkubeproxy

import (
	"context"
	"io"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kubeproxyv1alpha1 "k8s.io/kube-proxy/config/v1alpha1"
	"sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/internal/apitest"
	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/phase"
)

// TestAsKubeadm compares the objects with the output of
// "kubeadm init phase addon kube-proxy --print-manifest", run without proxy
// variables. What it prints lacks the annotation that it adds on upload.
func TestAsKubeadm(t *testing.T) {
	o, err := render(apitest.Config("192.0.2.10"))
	if err != nil {
		t.Fatal(err)
	}
	want := apitest.Manifests(t, "testdata/kubeadm-v1.37.2.yaml")
	kubeapi.SignConfigMap(want["ConfigMap kube-proxy"].(*corev1.ConfigMap))
	apitest.SameObjects(t, want, map[string]runtime.Object{
		"ConfigMap kube-proxy": o.configMap, "DaemonSet kube-proxy": o.daemonSet, "ServiceAccount kube-proxy": o.account,
		"ClusterRoleBinding kubeadm:node-proxier": o.binding, "Role kube-proxy": o.role, "RoleBinding kube-proxy": o.roleBinding,
	})
}

func TestEndpointAndFamily(t *testing.T) {
	cfg := apitest.Config("2001:db8::1")
	cfg.Plan.Cluster.ControlPlaneEndpoint = "api.example.org"
	cfg.Plan.Cluster.PodSubnets = []string{"fd00:10:244::/56", "10.244.0.0/16"}
	o, err := render(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(o.configMap.Data["kubeconfig.conf"], "server: https://api.example.org:6443\n") {
		t.Errorf("kubeconfig:\n%s", o.configMap.Data["kubeconfig.conf"])
	}
	var c kubeproxyv1alpha1.KubeProxyConfiguration
	if err := yaml.UnmarshalStrict([]byte(o.configMap.Data["config.conf"]), &c); err != nil {
		t.Fatal(err)
	}
	if c.BindAddress != "::" || c.ClusterCIDR != "fd00:10:244::/56,10.244.0.0/16" || c.Mode != "iptables" {
		t.Errorf("bindAddress %q, clusterCIDR %q, mode %q", c.BindAddress, c.ClusterCIDR, c.Mode)
	}
}

// TestSettingsAsKubeadm compares with the same command's output when it is given these
// settings. kubeadm does not sign a configuration that is the user's.
func TestSettingsAsKubeadm(t *testing.T) {
	cfg := apitest.Config("192.0.2.10")
	cfg.Plan.Cluster.KubeProxy = []byte(`{"mode": "nftables", "bindAddress": "192.0.2.10", "conntrack": {"maxPerCore": 1024, "tcpCloseWaitTimeout": "30m"}}`)
	o, err := render(cfg)
	if err != nil {
		t.Fatal(err)
	}
	want := apitest.Manifests(t, "testdata/kubeadm-v1.37.2-settings.yaml")
	apitest.SameObjects(t, map[string]runtime.Object{"ConfigMap kube-proxy": want["ConfigMap kube-proxy"]}, map[string]runtime.Object{"ConfigMap kube-proxy": o.configMap})
}

func TestDisabled(t *testing.T) {
	cfg := apitest.Config("192.0.2.10")
	cfg.Plan.Cluster.Kubeadm.Proxy.Disabled = true
	// Without a client, whatever it did to the cluster would panic.
	if err := Run(context.Background(), cfg, host.Paths{}, nil, phase.NewPrinter(io.Discard)); err != nil {
		t.Error(err)
	}
}

func TestPatched(t *testing.T) {
	cfg := apitest.Config("192.0.2.10")
	cfg.Plan.Node.Patches = []bootplan.Patch{{File: "kubeproxydaemonset+json.yaml", Data: "- {op: add, path: /spec/template/metadata/annotations, value: {a: b}}"}}
	o, err := render(cfg)
	if err != nil || o.daemonSet.Spec.Template.Annotations["a"] != "b" {
		t.Errorf("%v, %v", o.daemonSet, err)
	}
}
