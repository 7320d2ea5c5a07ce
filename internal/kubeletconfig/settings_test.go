package kubeletconfig

import (
	"os"
	"testing"
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
