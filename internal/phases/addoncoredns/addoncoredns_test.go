package addoncoredns

import (
	"context"
	"io"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kiln-os/kiln/internal/apitest"
	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/internal/phase"
)

// TestAsKubeadm compares the objects with the output of
// "kubeadm init phase addon coredns --print-manifest".
func TestAsKubeadm(t *testing.T) {
	o, err := render(apitest.Config("192.0.2.10"))
	if err != nil {
		t.Fatal(err)
	}
	want := apitest.Manifests(t, "testdata/kubeadm-v1.37.2.yaml")
	// kubeadm's way to update a Service whose version it does not know.
	want["Service kube-dns"].(*corev1.Service).ResourceVersion = ""
	apitest.SameObjects(t, want, map[string]runtime.Object{
		"ConfigMap coredns": o.configMap, "ClusterRole system:coredns": o.role, "ClusterRoleBinding system:coredns": o.binding,
		"ServiceAccount coredns": o.account, "Deployment coredns": o.deployment, "Service kube-dns": o.service,
	})
}

func TestCorefileIsDefault(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       bool
	}{
		{"of this cluster", corefile("cluster.local"), true},
		{"of another domain", corefile("k8s.example.org"), true},
		{"with a rule of its own", strings.Replace(corefile("cluster.local"), "    reload\n", "    reload\n    log\n", 1), false},
		{"with two domains", strings.Replace(corefile("cluster.local"), "kubernetes cluster.local", "kubernetes example.org", 1), false},
		{"empty", "", false},
		{"something else", ".:53 {\n    whoami\n}\n", false},
	} {
		if got := isDefault(tc.text); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}

func TestDNSAddress(t *testing.T) {
	cfg := apitest.Config("2001:db8::1")
	cfg.Plan.Cluster.ServiceSubnets = []string{"fd00:10:96::/108", "10.96.0.0/12"}
	o, err := render(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if got := o.service.Spec.ClusterIP; got != "fd00:10:96::a" {
		t.Errorf("address %s", got)
	}
	cfg.Plan.Cluster.ServiceSubnets = []string{"10.96.0.0/30"}
	if _, err := render(cfg); err == nil {
		t.Error("a subnet with four addresses has a tenth")
	}
}

func TestDisabled(t *testing.T) {
	cfg := apitest.Config("192.0.2.10")
	cfg.Plan.Cluster.Kubeadm.DNS.Disabled = true
	// Without a client, whatever it did to the cluster would panic.
	if err := Run(context.Background(), cfg, host.Paths{}, nil, phase.NewPrinter(io.Discard)); err != nil {
		t.Error(err)
	}
}

func TestPatched(t *testing.T) {
	cfg := apitest.Config("192.0.2.10")
	cfg.Plan.Node.Patches = []bootplan.Patch{{File: "corednsdeployment.yaml", Data: "spec: {replicas: 1, template: {spec: {containers: [{name: coredns, resources: {limits: {memory: 1Gi}}}]}}}"}}
	o, err := render(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if c := o.deployment.Spec.Template.Spec.Containers; *o.deployment.Spec.Replicas != 1 || len(c) != 1 || c[0].Resources.Limits.Memory().String() != "1Gi" || c[0].Image != kubeadmapi.DefaultImageRepository+"/coredns/coredns:"+kubeadmapi.CoreDNSTag {
		t.Errorf("%+v", o.deployment.Spec)
	}
}
