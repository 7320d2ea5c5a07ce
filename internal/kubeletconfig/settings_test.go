package kubeletconfig

import (
	"maps"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
)

// TestSettingsAsKubeadm: config-settings.yaml is what kubeadm 1.37.2 writes with
// `kubeadm init phase kubelet-start`, given these settings. configmap-settings.yaml is
// that file with the node's containerRuntimeEndpoint emptied by hand.
func TestSettingsAsKubeadm(t *testing.T) {
	cfg := config()
	cfg.ResolvConf = "/run/systemd/resolve/resolv.conf" // the user's stands before it
	cfg.Plan.Cluster.Kubeadm.CertificatesDir = "/etc/kubernetes/certs"
	cfg.Plan.Cluster.Kubelet = []byte(`{"maxPods": 50, "clusterDNS": ["169.254.20.10"], "resolvConf": "/etc/own-resolv.conf", "healthzPort": 10249,
		"authentication": {"anonymous": {"enabled": true}}, "evictionHard": {"memory.available": "5%"}, "featureGates": {"NodeSwap": false}, "shutdownGracePeriod": "30s"}`)
	node, err1 := ForNode(cfg)
	cluster, err2 := ForCluster(cfg)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	file, err1 := Marshal(node)
	shared, err2 := Marshal(cluster)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	for name, got := range map[string][]byte{"config-settings.yaml": file, "configmap-settings.yaml": shared} {
		want, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%s is\n%s\nwant\n%s", name, got, want)
		}
	}
}

func TestUnknownSetting(t *testing.T) {
	cfg := config()
	cfg.Plan.Cluster.Kubelet = []byte(`{"maxPod": 50}`)
	if _, err := ForNode(cfg); err == nil {
		t.Error("an unknown setting is ignored")
	}
}

// TestPatchesAndFlags: patches are this node's alone and cannot move the container
// runtime; the user's flags come last and replace.
func TestPatchesAndFlags(t *testing.T) {
	cfg := config()
	cfg.Plan.Node.Patches = []bootplan.Patch{{File: "kubeletconfiguration0+merge.yaml", Data: "maxPods: 42\ncontainerRuntimeEndpoint: unix:///x\n"}, {File: "etcd.yaml", Data: "spec: {}"}}
	node, err1 := ForNode(cfg)
	cluster, err2 := ForCluster(cfg)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if node.MaxPods != 42 || node.ContainerRuntimeEndpoint != CRISocket || cluster.MaxPods != 0 {
		t.Errorf("%d at %s, for the cluster %d", node.MaxPods, node.ContainerRuntimeEndpoint, cluster.MaxPods)
	}
	cfg.Plan.Node.Patches[0].Data = "maxPodz: 42"
	if _, err := ForNode(cfg); err == nil {
		t.Error("an unknown setting in a patch is ignored")
	}
	cfg.Hostname, cfg.Plan.Node.Labels = "other", map[string]string{"a": "b"}
	cfg.Plan.Node.KubeletExtraArgs = []kubeadmapi.Arg{{Name: "v", Value: "2"}, {Name: "node-labels", Value: "c=d"}, {Name: "v", Value: "4"}}
	flags, err := Flags(cfg)
	if want := "KUBELET_KUBEADM_ARGS=\"--hostname-override=" + cfg.NodeName + " --v=2 --node-labels=c=d --v=4\"\n"; string(flags) != want || err != nil {
		t.Errorf("%s, want %s; %v", flags, want, err)
	}
}

// A node that brings the pod network says so, whatever other labels it has.
func TestPodNetworkLabel(t *testing.T) {
	for _, c := range []struct {
		network string
		labels  map[string]string
		want    string
	}{
		{"flannel", nil, "--node-labels=kiln-os.dev/pod-network=flannel"},
		{"flannel", map[string]string{"a": "b", "x.k8s.io/y": "z"}, "--node-labels=a=b,kiln-os.dev/pod-network=flannel"},
		{"flannel", map[string]string{"kiln-os.dev/pod-network": "mine"}, "--node-labels=kiln-os.dev/pod-network=mine"},
		{"none", nil, ""},
	} {
		cfg := config()
		cfg.Plan.Cluster.PodNetwork, cfg.Plan.Node.Labels = c.network, c.labels
		before := maps.Clone(c.labels)
		got, err := Flags(cfg)
		if want := `KUBELET_KUBEADM_ARGS="` + c.want + "\"\n"; err != nil || string(got) != want {
			t.Errorf("%s, %v: %s, %v; want %s", c.network, c.labels, got, err, want)
		}
		if !maps.Equal(before, cfg.Plan.Node.Labels) {
			t.Errorf("the plan's labels have become %v", cfg.Plan.Node.Labels)
		}
	}
}

func TestNodeIPs(t *testing.T) {
	cfg := config()
	cfg.Hostname = cfg.NodeName
	cfg.NodeIPs = []netip.Addr{netip.MustParseAddr("fd00::15"), netip.MustParseAddr("10.0.2.15")}
	if flags, err := Flags(cfg); err != nil || !strings.Contains(string(flags), `"--node-ip=fd00::15,10.0.2.15`) {
		t.Errorf("%s, %v", flags, err)
	}
	cfg.Plan.Node.KubeletExtraArgs = []kubeadmapi.Arg{{Name: "node-ip", Value: "10.0.2.16"}}
	if flags, err := Flags(cfg); err != nil || strings.Count(string(flags), "node-ip") != 1 || !strings.Contains(string(flags), "--node-ip=10.0.2.16") {
		t.Errorf("%s, %v", flags, err)
	}
}
