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
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeadmconfig"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/kubeletconfig"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
)

// upload is a ConfigMap and the name of the Role and RoleBinding that let readers
// get it.
type upload struct {
	configMap *corev1.ConfigMap
	role      string
	readers   []rbacv1.Subject
}

// Run stores both configurations and lets them be read, in kubeadm's order.
func Run(ctx context.Context, cfg nodeconfig.Config, _ host.Paths, api *kubeapi.API, r phase.Report) error {
	uploads, err := render(cfg)
	if err != nil {
		return phase.Permanent(err)
	}
	for _, u := range uploads {
		r.Step("storing %s", u.configMap.Name)
		if err := api.ApplyConfigMap(ctx, u.configMap); err != nil {
			return err
		}
		role, binding := kubeapi.ConfigMapReaders(u.configMap.Namespace, u.role, u.configMap.Name, u.readers...)
		if err := api.ApplyRole(ctx, role); err != nil {
			return err
		}
		if err := api.ApplyRoleBinding(ctx, binding); err != nil {
			return err
		}
	}
	return nil
}

func render(cfg nodeconfig.Config) ([]upload, error) {
	cluster, err := kubeadmconfig.Marshal(kubeadmconfig.ForCluster(cfg))
	if err != nil {
		return nil, err
	}
	kc, err := kubeletconfig.ForCluster(cfg)
	if err != nil {
		return nil, err
	}
	kubelet, err := kubeletconfig.Marshal(kc)
	if err != nil {
		return nil, err
	}
	tokens, nodes := kubeapi.Group(kubeapi.NodeTokenGroup), kubeapi.Group(kubeapi.NodesGroup)
	out := []upload{
		{configMap("kubeadm-config", "ClusterConfiguration", cluster), "kubeadm:nodes-kubeadm-config", []rbacv1.Subject{tokens, nodes}},
		{configMap("kubelet-config", "kubelet", kubelet), "kubeadm:kubelet-config", []rbacv1.Subject{nodes, tokens}},
	}
	if cfg.Plan.Cluster.Kubelet == nil {
		// By the signature kubeadm upgrade tells what it may generate anew.
		kubeapi.SignConfigMap(out[1].configMap)
	}
	return out, nil
}

func configMap(name, key string, data []byte) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: name},
		Data:       map[string]string{key: string(data)},
	}
}
