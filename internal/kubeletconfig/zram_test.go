package kubeletconfig

import (
	"strings"
	"testing"

	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/internal/bootplan"
)

// TestZram: the kubelet of a node that swaps to memory starts, and gives pods none of it
// unless the user says so; other nodes and the cluster's configuration know nothing of it.
func TestZram(t *testing.T) {
	patch := func(text string) []bootplan.Patch {
		return []bootplan.Patch{{File: "kubeletconfiguration+merge.yaml", Data: text}}
	}
	for _, c := range []struct {
		name    string
		zram    bool
		cluster string
		patches []bootplan.Patch
		want    string // failSwapOn and swapBehavior
		wrong   bool
	}{
		{"none", false, ``, nil, "- ", false},
		{"none, and settings", false, `{"failSwapOn": true, "memorySwap": {"swapBehavior": "LimitedSwap"}}`, nil, "true LimitedSwap", false},
		{"zram", true, ``, nil, "false NoSwap", false},
		{"the cluster says the same", true, `{"failSwapOn": false}`, nil, "false NoSwap", false},
		{"the cluster lets pods swap", true, `{"failSwapOn": false, "memorySwap": {"swapBehavior": "LimitedSwap"}}`, nil, "false LimitedSwap", false},
		{"the cluster lets pods swap, and says no more", true, `{"memorySwap": {"swapBehavior": "LimitedSwap"}}`, nil, "false LimitedSwap", false},
		{"the node lets pods swap", true, ``, patch("memorySwap: {swapBehavior: LimitedSwap}"), "false LimitedSwap", false},
		{"the node is an exception of the cluster", true, `{"failSwapOn": true}`, patch("failSwapOn: false"), "false NoSwap", false},
		{"the cluster refuses", true, `{"failSwapOn": true}`, nil, "", true},
		{"the node refuses", true, ``, patch("failSwapOn: true"), "", true},
		{"the node takes it back", true, ``, patch("failSwapOn: null"), "", true},
	} {
		cfg := config()
		cfg.Plan.Node.Zram, cfg.Plan.Node.Patches = c.zram, c.patches
		if c.cluster != "" {
			cfg.Plan.Cluster.Kubelet = []byte(c.cluster)
		}
		node, err := ForNode(cfg)
		if c.wrong {
			if err == nil || !strings.Contains(err.Error(), "want failSwapOn: false") {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := swapSettings(node); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		// What kubeadm upgrade makes of the cluster's configuration and of the instance's.
		cluster, err := ForCluster(cfg)
		if err != nil {
			t.Fatal(err)
		}
		own := swapSettings(cluster)
		if c.cluster == "" && own != "- " {
			t.Errorf("%s: the cluster's configuration says %s", c.name, own)
		}
		if err := yaml.UnmarshalStrict(InstanceConfig(cfg), cluster); err != nil {
			t.Fatal(err)
		}
		_, before, _ := strings.Cut(own, " ")
		failSwapOn, behaviour, _ := strings.Cut(swapSettings(cluster), " ")
		if behaviour != before || cluster.ContainerRuntimeEndpoint != CRISocket {
			t.Errorf("%s: an upgrade makes %s of it", c.name, behaviour)
		}
		if c.zram && failSwapOn != "false" || !c.zram && swapSettings(cluster) != own {
			t.Errorf("%s: after an upgrade failSwapOn is %s", c.name, failSwapOn)
		}
	}
}

func swapSettings(kc *kubeletv1beta1.KubeletConfiguration) string {
	s := "-"
	if kc.FailSwapOn != nil {
		s = "false"
		if *kc.FailSwapOn {
			s = "true"
		}
	}
	return s + " " + kc.MemorySwap.SwapBehavior
}
