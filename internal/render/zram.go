package render

import (
	"fmt"
	"strconv"

	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/internal/patches"
)

// zramConfig replaces the image's file, which asks for swap space in memory.
const zramConfig = "/etc/systemd/zram-generator.conf"

// startsWithSwap reports whether the node's kubelet may be told to start on a machine that
// swaps: it may unless the user says failSwapOn: true, for the cluster or for the node.
func startsWithSwap(plan bootplan.Plan) (bool, error) {
	if v, ok := kubeadmapi.ArgValue(plan.Node.KubeletExtraArgs, "fail-swap-on"); ok {
		if refuses, err := strconv.ParseBool(v); err == nil && refuses {
			return false, nil
		}
	}
	var kubelet kubeletv1beta1.KubeletConfiguration
	if plan.Cluster.Kubelet != nil {
		if err := yaml.UnmarshalStrict(plan.Cluster.Kubelet, &kubelet); err != nil {
			return false, fmt.Errorf("the KubeletConfiguration: %w", err)
		}
	}
	if kubelet.FailSwapOn == nil {
		kubelet.FailSwapOn = new(bool) // as firstboot does
	}
	for _, p := range plan.Node.Patches {
		// One that wants what only the whole document has, which firstboot makes, does not
		// fit here, and is passed over.
		patched := kubelet
		if patches.Apply([]bootplan.Patch{p}, patches.KubeletConfiguration, &patched) == nil {
			kubelet = patched
		}
	}
	return kubelet.FailSwapOn != nil && !*kubelet.FailSwapOn, nil
}
