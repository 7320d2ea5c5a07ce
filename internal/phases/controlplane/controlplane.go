// Package controlplane is the phase that writes the static pods of the API
// server, the controller manager and the scheduler.
//
// INPUTS: cluster name, subnets, DNS domain and Kubernetes version of the boot
// plan; the node's advertise address; which folders of CA certificates the host has.
//
// OUTPUTS: /etc/kubernetes/manifests/{kube-apiserver,kube-controller-manager,kube-scheduler}.yaml
// (0600). The kubelet, which is not running yet, starts them.
package controlplane

import (
	"context"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/internal/staticpod"
)

// Run writes the three manifests.
func Run(ctx context.Context, cfg nodeconfig.Config, paths host.Paths, r phase.Report) error {
	pods, err := staticpod.ControlPlane(cfg, paths)
	if err != nil {
		return err
	}
	for _, pod := range pods {
		changed, err := staticpod.Write(paths, pod)
		if err != nil {
			return err
		}
		if changed {
			r.Step("wrote the manifest of %s", pod.Name)
		}
	}
	return ctx.Err()
}
