// Package controlplane is the phase that writes the static pods of the control
// plane.
//
// INPUTS: cluster name, subnets, DNS domain and Kubernetes version of the boot
// plan; the node's advertise address; which folders of CA certificates the host has.
//
// OUTPUTS: /etc/kubernetes/manifests/kube-apiserver.yaml (0600), and those of the
// controller manager and the scheduler if they are there from an earlier run. On a
// new node wait-control-plane writes these two, when there is an API server that
// they can work with. The kubelet, which runs already, starts them.
package controlplane

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/internal/staticpod"
)

// Run writes the manifests.
func Run(ctx context.Context, cfg nodeconfig.Config, paths host.Paths, r phase.Report) error {
	pods, err := staticpod.ControlPlane(cfg, paths)
	if err != nil {
		return err
	}
	for _, pod := range pods {
		if pod.Name != staticpod.APIServer {
			_, err := os.Stat(filepath.Join(paths.Manifests(), pod.Name+".yaml"))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
		}
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
