// Package kubeletstart is the phase that configures the kubelet and starts it.
//
// INPUTS: cluster DNS and domain, the node's name, host name, labels and resolver
// file, whether it swaps; /etc/kubernetes/kubelet.conf.
//
// OUTPUTS: /var/lib/kubelet/{kubeadm-flags.env,instance-config.yaml,config.yaml}
// (0644), in kubeadm's order; kubelet.service restarted.
package kubeletstart

import (
	"bytes"
	"context"
	"fmt"
	"os"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeletconfig"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
)

const unit = "kubelet.service"

// Run writes the kubelet's files and restarts it. A kubelet that runs with the
// very same files is left alone.
func Run(ctx context.Context, cfg nodeconfig.Config, paths host.Paths, units host.Units, r phase.Report) error {
	flags, err := kubeletconfig.Flags(cfg)
	if err != nil {
		return phase.Permanent(err)
	}
	kc, err := kubeletconfig.ForNode(cfg)
	if err != nil {
		return phase.Permanent(err)
	}
	config, err := kubeletconfig.Marshal(kc)
	if err != nil {
		return phase.Permanent(err)
	}
	files := []struct {
		name string
		data []byte
	}{
		{"kubeadm-flags.env", flags},
		{"instance-config.yaml", kubeletconfig.InstanceConfig(cfg)},
		{"config.yaml", config},
	}
	// A kubelet that finds no folder of manifests looks for it again only now and then.
	for _, dir := range []string{paths.Kubelet(), paths.Manifests()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	same := true
	for _, f := range files {
		old, err := os.ReadFile(paths.Kubelet(f.name))
		if err != nil && !os.IsNotExist(err) {
			return err
		}
		same = same && err == nil && bytes.Equal(old, f.data)
	}
	running, err := units.Active(ctx, unit)
	if err != nil {
		return err
	}
	if same && running {
		return nil
	}
	if running {
		// A kubelet with half of the new files would register the node wrongly.
		if err := units.Stop(ctx, unit); err != nil {
			return err
		}
	}
	for _, f := range files {
		if err := atomicfile.WriteFile(paths.Kubelet(f.name), f.data, 0o644); err != nil {
			return err
		}
	}
	if err := units.Reload(ctx); err != nil {
		return err
	}
	r.Step("starting %s", unit)
	if err := units.Restart(ctx, unit); err != nil {
		return fmt.Errorf("start the kubelet: %w", err)
	}
	return nil
}
