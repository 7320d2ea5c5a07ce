// Package clusterconfig is the phase that asks the cluster how its nodes are
// configured.
//
// INPUTS: /var/lib/kiln/join/discovery.conf; in kube-system the ConfigMaps
// kubeadm-config and kubelet-config; the boot plan's role and Kubernetes version, which
// is that of the programs in the image.
//
// OUTPUTS: /var/lib/kiln/join/{cluster-configuration,kubelet-configuration}.yaml (0644).
// Later phases do what these say rather than what the boot plan says of the cluster.
package clusterconfig

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/joinconfig"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/internal/kubeadmconfig"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/kubeletconfig"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/internal/skew"
)

// interval is between two tries.
const interval = 5 * time.Second

// Run stores the cluster's configuration. Whatever is wrong with it can be made right
// in the cluster: it is asked for again until then.
func Run(ctx context.Context, cfg nodeconfig.Config, paths host.Paths, api *kubeapi.API, r phase.Report) error {
	var cluster, kubelet []byte
	err := phase.Poll(ctx, r, "the cluster's configuration", interval, time.Duration(cfg.Plan.Timeouts.Discovery), func(ctx context.Context) (err error) {
		if cluster, err = read(ctx, api, "kubeadm-config", kubeadmapi.Kind); err != nil {
			return err
		}
		if kubelet, err = read(ctx, api, "kubelet-config", "kubelet"); err != nil {
			return err
		}
		if err := check(cfg.Plan, cluster); err != nil {
			return err
		}
		kubelet, err = known(kubelet)
		return err
	})
	if err != nil {
		return err
	}
	// The cluster's last: with it both are there.
	if err := atomicfile.WriteFile(paths.Join(joinconfig.KubeletFile), kubelet, 0o644); err != nil {
		return err
	}
	return atomicfile.WriteFile(paths.Join(joinconfig.ClusterFile), cluster, 0o644)
}

// read returns a key of a ConfigMap in kube-system.
func read(ctx context.Context, api *kubeapi.API, name, key string) ([]byte, error) {
	cm, err := api.Client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsUnauthorized(err):
		return nil, fmt.Errorf("the API server refuses this node's credentials for joining: the bootstrap token has expired or was deleted: %w", err)
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("the ConfigMap %s is not there yet: the control plane is being set up", name)
	case err != nil:
		return nil, fmt.Errorf("ConfigMap %s: %w", name, err)
	}
	return value(cm, key)
}

func value(cm *corev1.ConfigMap, key string) ([]byte, error) {
	if cm.Data[key] == "" {
		return nil, fmt.Errorf("the ConfigMap %s has no key %s", cm.Name, key)
	}
	return []byte(cm.Data[key]), nil
}

// check reports why this image cannot be a node of the cluster.
func check(plan bootplan.Plan, data []byte) error {
	c, err := kubeadmconfig.Parse(data)
	if err != nil {
		return err
	}
	if _, err := kubeadmconfig.ToPlan(plan.Cluster, c); err != nil {
		return err
	}
	theirs, err := version.ParseSemantic(c.KubernetesVersion)
	if err != nil {
		return fmt.Errorf("the cluster's Kubernetes version: %w", err)
	}
	own, err := version.ParseSemantic(plan.Cluster.KubernetesVersion)
	if err != nil {
		return fmt.Errorf("the boot plan's Kubernetes version: %w", err)
	}
	if plan.Role == bootplan.RoleJoinControlPlane {
		if c.ControlPlaneEndpoint == "" {
			return errors.New("the cluster has no controlPlaneEndpoint: it cannot have a second control plane, and none can be added later")
		}
		if !theirs.EqualTo(own) {
			return fmt.Errorf("the cluster's control plane is Kubernetes v%s, this image holds v%s; build it with the cluster's version", theirs, own)
		}
		return nil
	}
	return skew.Join(plan.Role, plan.Cluster.KubernetesVersion, c.KubernetesVersion)
}

// known drops what this version's kubelet does not know: the cluster may be newer.
func known(data []byte) ([]byte, error) {
	var kc kubeletv1beta1.KubeletConfiguration
	if err := yaml.Unmarshal(data, &kc); err != nil {
		return nil, fmt.Errorf("the cluster's KubeletConfiguration: %w", err)
	}
	return kubeletconfig.Marshal(&kc)
}
