// Package etcd is the phase that prepares a local etcd.
//
// INPUTS: the node's name and advertise address.
//
// OUTPUTS: /var/lib/etcd (0700) and /etc/kubernetes/manifests/etcd.yaml (0600).
// The kubelet, which is not running yet, starts it. With an external etcd it does nothing.
package etcd

import (
	"context"
	"fmt"
	"os"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/internal/staticpod"
)

// Run writes the manifest of a local etcd and makes its data folder.
func Run(_ context.Context, cfg nodeconfig.Config, paths host.Paths, r phase.Report) error {
	if cfg.Plan.Cluster.ExternalEtcd() != nil {
		r.Step("etcd is external")
		return nil
	}
	// etcd itself warns about a data folder that others may read.
	if err := os.MkdirAll(paths.EtcdData(), 0o700); err != nil {
		return fmt.Errorf("etcd's data folder: %w", err)
	}
	if err := os.Chmod(paths.EtcdData(), 0o700); err != nil {
		return fmt.Errorf("etcd's data folder: %w", err)
	}
	pod, err := staticpod.EtcdPod(cfg)
	if err != nil {
		return phase.Permanent(err)
	}
	changed, err := staticpod.Write(paths, pod)
	if err != nil {
		return err
	}
	if changed {
		r.Step("wrote the manifest of %s", pod.Name)
	}
	return nil
}
