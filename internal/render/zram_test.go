package render

import (
	"strings"
	"testing"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/internal/spec"
)

// TestZram: a node whose profile swaps to memory is told so, and does not swap if the
// user's kubelet would not start then.
func TestZram(t *testing.T) {
	patch := func(file, text string) []bootplan.Patch { return []bootplan.Patch{{File: file, Data: text}} }
	const merge = "kubeletconfiguration0+merge.yaml"
	for _, c := range []struct {
		name, profile string
		kubelet       string
		patches       []bootplan.Patch
		args          []kubeadmapi.Arg
		zram, off     bool
	}{
		{"a board", "rpi-arm64", "", nil, nil, true, false},
		{"a board of 32 bits", "rpi-arm", "", nil, nil, true, false},
		{"another machine", "qemu-amd64", "", nil, nil, false, false},
		{"another machine, refused", "metal-arm64", `{"failSwapOn": true}`, nil, nil, false, false},
		{"allowed", "rpi-arm64", `{"failSwapOn": false, "memorySwap": {"swapBehavior": "LimitedSwap"}}`, nil, nil, true, false},
		{"refused", "rpi-arm64", `{"failSwapOn": true}`, nil, nil, false, true},
		{"nothing said", "rpi-arm64", `{"failSwapOn": null}`, nil, nil, true, false},
		{"the node is an exception", "rpi-arm64", `{"failSwapOn": true}`, patch(merge, "failSwapOn: false"), nil, true, false},
		{"the node refuses", "rpi-arm64", "", patch("kubeletconfiguration.yaml", "failSwapOn: true"), nil, false, true},
		{"the node refuses, as JSON", "rpi-arm64", "", patch("kubeletconfiguration+json.yaml", "[{op: replace, path: /failSwapOn, value: true}]"), nil, false, true},
		{"a patch of something else", "rpi-arm64", "", patch("etcd.yaml", "spec: {}"), nil, true, false},
		{"a patch of what firstboot adds", "rpi-arm64", "", patch("kubeletconfiguration+json.yaml", "[{op: replace, path: /authentication/anonymous/enabled, value: true}]"), nil, true, false},
		{"a flag", "rpi-arm64", "", nil, []kubeadmapi.Arg{{Name: "fail-swap-on", Value: "true"}}, false, true},
		{"a flag that allows it", "rpi-arm64", "", nil, []kubeadmapi.Arg{{Name: "fail-swap-on", Value: "false"}}, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl := cluster(t, func(s *spec.Cluster) {
				s.Nodes[0].Profile, s.Nodes[0].KubeletExtraArgs = c.profile, c.args
				if c.kubelet != "" {
					s.Kubelet = []byte(c.kubelet)
				}
				s.Documents.Init, s.Documents.InitPatches = &kubeadmapi.InitConfiguration{}, c.patches
			})
			r, _, files := render(t, cl, 0)
			off, there := files[zramConfig]
			if r.Plan.Node.Zram != c.zram || there != c.off || strings.Contains(off, "[") {
				t.Errorf("swap %t, turned off by %q", r.Plan.Node.Zram, off)
			}
			if strings.Contains(files[bootplan.Path], "\n  zram: true\n") != c.zram {
				t.Errorf("the plan is\n%s", files[bootplan.Path])
			}
		})
	}
}
