package addonflannel

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/kiln-os/kiln/internal/apitest"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/nodelabels"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/payload"
)

// TestAsUpstream compares the objects with flannel's own manifest. What differs
// stands here and nowhere else.
func TestAsUpstream(t *testing.T) {
	o, err := render(apitest.Config("192.0.2.10"))
	if err != nil {
		t.Fatal(err)
	}
	want := apitest.Manifests(t, "testdata/kube-flannel-v0.28.10.yml")

	cm := want["ConfigMap kube-flannel-cfg"].(*corev1.ConfigMap)
	if cm.Data["cni-conf.json"] != string(cniConf) {
		t.Errorf("cni-conf.json differs:\n%s", cniConf)
	}
	cm.Data["net-conf.json"] = o.configMap.Data["net-conf.json"] // see TestNetConf

	spec := &want["DaemonSet kube-flannel-ds"].(*appsv1.DaemonSet).Spec.Template.Spec
	spec.InitContainers = nil // the node has the plugin and its configuration already
	spec.Volumes = slices.DeleteFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Name == "cni" || v.Name == "cni-plugin" })
	spec.Containers[0].ImagePullPolicy = corev1.PullIfNotPresent
	spec.Containers[0].Env = append(spec.Containers[0].Env, // it does not wait for kube-proxy
		corev1.EnvVar{Name: "KUBERNETES_SERVICE_HOST", Value: "192.0.2.10"}, corev1.EnvVar{Name: "KUBERNETES_SERVICE_PORT", Value: "6443"})

	apitest.SameObjects(t, want, map[string]runtime.Object{
		"Namespace kube-flannel": o.namespace, "ClusterRole flannel": o.role, "ClusterRoleBinding flannel": o.binding,
		"ServiceAccount flannel": o.account, "ConfigMap kube-flannel-cfg": o.configMap, "DaemonSet kube-flannel-ds": o.daemonSet,
	})
}

// TestInstall: the DaemonSet for machines that Kiln has not made does what upstream's init
// containers do, and is kept away from those that have the label of Kiln's nodes.
func TestInstall(t *testing.T) {
	o, err := render(apitest.Config("192.0.2.10"))
	if err != nil {
		t.Fatal(err)
	}
	upstream := apitest.Manifests(t, "testdata/kube-flannel-v0.28.10.yml")["DaemonSet kube-flannel-ds"].(*appsv1.DaemonSet)
	got, want := o.install.Spec.Template.Spec, upstream.Spec.Template.Spec
	if !reflect.DeepEqual(got.InitContainers, want.InitContainers) {
		t.Errorf("init containers\n%+v\nwant upstream's\n%+v", got.InitContainers, want.InitContainers)
	}
	for _, v := range got.Volumes {
		i := slices.IndexFunc(want.Volumes, func(w corev1.Volume) bool { return w.Name == v.Name })
		if i < 0 || v.HostPath != nil && v.HostPath.Path != want.Volumes[i].HostPath.Path {
			t.Errorf("volume %s is none of upstream's", v.Name)
		}
	}
	if len(got.Volumes) != 3 || !reflect.DeepEqual(got.Tolerations, want.Tolerations) || !got.HostNetwork {
		t.Errorf("%d volumes, tolerations %v, host's network %v", len(got.Volumes), got.Tolerations, got.HostNetwork)
	}
	if image, want := got.Containers[0].Image, "registry.k8s.io/pause:"+payload.PauseVersion; image != want {
		t.Errorf("what keeps the pod is %s, want %s", image, want)
	}
	terms := want.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	terms[0].MatchExpressions = append(terms[0].MatchExpressions, corev1.NodeSelectorRequirement{Key: nodelabels.PodNetwork, Operator: corev1.NodeSelectorOpDoesNotExist})
	if !reflect.DeepEqual(got.Affinity, want.Affinity) {
		t.Errorf("affinity %+v", got.Affinity)
	}
	// Neither DaemonSet may take the other's pods for its own.
	for _, pair := range [][2]*appsv1.DaemonSet{{o.install, o.daemonSet}, {o.daemonSet, o.install}} {
		selector, err := metav1.LabelSelectorAsSelector(pair[0].Spec.Selector)
		if err != nil {
			t.Fatal(err)
		}
		if !selector.Matches(labels.Set(pair[0].Spec.Template.Labels)) || selector.Matches(labels.Set(pair[1].Spec.Template.Labels)) {
			t.Errorf("%s selects %s", pair[0].Name, selector)
		}
	}
}

// With a virtual IP flannel is told the node's address.
func TestVirtualIP(t *testing.T) {
	for address, want := range map[string]string{"192.0.2.10": "status.hostIP", "2001:db8::10": ""} {
		cfg := apitest.Config(address)
		cfg.Plan.Cluster.VirtualIP = "of the same family"
		o, err := render(cfg)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, e := range o.daemonSet.Spec.Template.Spec.Containers[0].Env {
			if e.Name == "FLANNELD_IFACE" {
				got = e.ValueFrom.FieldRef.FieldPath
			}
		}
		if got != want {
			t.Errorf("%s: the interface is that of %q, want %q", address, got, want)
		}
	}
}

func TestNetConf(t *testing.T) {
	vxlan := map[string]any{"Type": "vxlan"}
	for _, tc := range []struct {
		name string
		pods []string
		want map[string]any
	}{
		{"IPv4", []string{"10.244.0.0/16"}, map[string]any{
			"Network": "10.244.0.0/16", "EnableIPv4": true, "EnableIPv6": false, "EnableNFTables": true, "Backend": vxlan}},
		{"both, IPv6 first", []string{"fd00:10:244::/56", "10.244.0.0/16"}, map[string]any{
			"Network": "10.244.0.0/16", "IPv6Network": "fd00:10:244::/56", "EnableIPv4": true, "EnableIPv6": true, "EnableNFTables": true, "Backend": vxlan}},
		{"IPv6", []string{"fd00:10:244::/56"}, map[string]any{
			"IPv6Network": "fd00:10:244::/56", "EnableIPv4": false, "EnableIPv6": true, "EnableNFTables": true, "Backend": vxlan}},
	} {
		out, err := netConf(tc.pods)
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: %s", tc.name, out)
		}
	}
	if _, err := netConf([]string{"10.244.0.0"}); err == nil {
		t.Error("an address is taken for a subnet")
	}
}

func TestNone(t *testing.T) {
	cfg, paths, client := apitest.Config("192.0.2.10"), host.Paths{Root: t.TempDir()}, fake.NewClientset()
	cfg.Plan.Cluster.PodNetwork = "none"
	r := phase.NewPrinter(os.Stderr)
	if err := Run(context.Background(), cfg, paths, kubeapi.New(client, time.Second, r), r); err != nil {
		t.Fatal(err)
	}
	if n := len(client.Actions()); n != 0 {
		t.Errorf("%d requests: %v", n, client.Actions())
	}
	if _, err := os.Stat(paths.At(conflist)); !os.IsNotExist(err) {
		t.Errorf("%s: %v", conflist, err)
	}
}

func TestConflist(t *testing.T) {
	path := filepath.Join(t.TempDir(), "etc/cni/net.d/10-flannel.conflist")
	if err := writeConflist(path); err != nil {
		t.Fatal(err)
	}
	first, err := os.Stat(path)
	if err != nil || first.Mode().Perm() != 0o644 {
		t.Fatalf("%v, %v", first, err)
	}
	if err := writeConflist(path); err != nil {
		t.Fatal(err)
	}
	if again, err := os.Stat(path); err != nil || !os.SameFile(first, again) {
		t.Errorf("the same configuration is written again: %v", err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeConflist(path); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != string(cniConf) {
		t.Errorf("a damaged configuration is kept: %s, %v", got, err)
	}
}
