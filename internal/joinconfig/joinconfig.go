// Package joinconfig gives a joining node the configuration that its cluster has
// stored, in place of what the boot plan says of the cluster.
package joinconfig

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeadmconfig"
	"github.com/kiln-os/kiln/internal/nodeconfig"
)

// The files below host.Paths.Join that the phase cluster-config writes.
const (
	ClusterFile = "cluster-configuration.yaml"
	KubeletFile = "kubelet-configuration.yaml"
)

// Load returns cfg with the configuration of the cluster. A node that creates its
// cluster has none, and one that has yet to ask for it goes by its boot plan.
func Load(cfg nodeconfig.Config, paths host.Paths) (nodeconfig.Config, error) {
	if !cfg.Plan.Role.Joins() {
		return cfg, nil
	}
	data, err := os.ReadFile(paths.Join(ClusterFile))
	if errors.Is(err, fs.ErrNotExist) {
		return cfg, nil
	}
	if err != nil {
		return cfg, err
	}
	c, err := kubeadmconfig.Parse(data)
	if err != nil {
		return cfg, fmt.Errorf("%s: %w", paths.Join(ClusterFile), err)
	}
	kubelet, err := os.ReadFile(paths.Join(KubeletFile))
	if err != nil {
		return cfg, err
	}
	cluster, err := kubeadmconfig.ToPlan(cfg.Plan.Cluster, c)
	if err != nil {
		return cfg, fmt.Errorf("%s: %w", paths.Join(ClusterFile), err)
	}
	if cluster.Kubelet, err = yaml.YAMLToJSON(kubelet); err != nil {
		return cfg, fmt.Errorf("%s: %w", paths.Join(KubeletFile), err)
	}
	cfg.Plan.Cluster, cfg.FromCluster = cluster, true
	return cfg, nil
}
