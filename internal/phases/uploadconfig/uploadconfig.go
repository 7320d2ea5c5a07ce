// Package uploadconfig is the phase that stores the cluster's configuration in
// the cluster, where kubeadm's join and upgrade commands read it.
//
// INPUTS: the boot plan's cluster; admin rights.
//
// OUTPUTS: in kube-system the ConfigMaps kubeadm-config (ClusterConfiguration) and
// kubelet-config (KubeletConfiguration without anything of this node), and Roles
// with RoleBindings that let nodes, and machines that want to be nodes, read them.
package uploadconfig

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeadmconfig"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/kubeletconfig"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
)

const (
	kubeadmConfig = "kubeadm-config"
	kubeletConfig = "kubelet-config"
)

// Run stores both configurations and then lets them be read, in kubeadm's order.
func Run(ctx context.Context, cfg nodeconfig.Config, _ host.Paths, api *kubeapi.API, r phase.Report) error {
	cluster, err := kubeadmconfig.ForCluster(cfg).Marshal()
	if err != nil {
		return phase.Permanent(err)
	}
	kc, err := kubeletconfig.ForCluster(cfg)
	if err != nil {
		return phase.Permanent(err)
	}
	kubelet, err := kubeletconfig.Marshal(kc)
	if err != nil {
		return phase.Permanent(err)
	}
	for _, c := range []struct {
		name, key string
		data      []byte
		role      string
		signed    bool
	}{
		{kubeadmConfig, "ClusterConfiguration", cluster, "kubeadm:nodes-kubeadm-config", false},
		{kubeletConfig, "kubelet", kubelet, "kubeadm:kubelet-config", true},
	} {
		r.Step("storing %s", c.name)
		cm := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: c.name},
			Data:       map[string]string{c.key: string(c.data)},
		}
		if c.signed {
			kubeapi.SignConfigMap(cm)
		}
		if err := api.ApplyConfigMap(ctx, cm); err != nil {
			return err
		}
		role, binding := kubeapi.ConfigMapReaders(metav1.NamespaceSystem, c.role, c.name,
			kubeapi.Group(kubeapi.NodeTokenGroup), kubeapi.Group(kubeapi.NodesGroup))
		if err := api.ApplyRole(ctx, role); err != nil {
			return err
		}
		if err := api.ApplyRoleBinding(ctx, binding); err != nil {
			return err
		}
	}
	return nil
}
