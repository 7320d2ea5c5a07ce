// Package addonkubeproxy is the phase that installs kube-proxy as kubeadm 1.37
// does (cmd/kubeadm/app/phases/addons/proxy).
//
// INPUTS: the cluster's endpoint, pod subnets and Kubernetes version; the family of
// the node's advertise address and its patches; admin rights.
//
// OUTPUTS: none if the cluster's configuration disables it; else in kube-system the ConfigMap, DaemonSet, ServiceAccount, Role and
// RoleBinding kube-proxy; the ClusterRoleBinding kubeadm:node-proxier.
//
// Unlike kubeadm's, the DaemonSet has none of the proxy variables of firstboot's
// environment: kube-proxy speaks to the API server alone.
package addonkubeproxy

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeproxyv1alpha1 "k8s.io/kube-proxy/config/v1alpha1"
	"sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/patches"
	"github.com/kiln-os/kiln/internal/phase"
)

var (
	//go:embed daemonset.yaml
	daemonSetManifest []byte
	//go:embed kubeconfig.conf
	kubeconfigTemplate string
)

const name = "kube-proxy"

// objects are what makes up the add-on.
type objects struct {
	configMap   *corev1.ConfigMap
	daemonSet   *appsv1.DaemonSet
	account     *corev1.ServiceAccount
	binding     *rbacv1.ClusterRoleBinding
	role        *rbacv1.Role
	roleBinding *rbacv1.RoleBinding
}

// Run creates the objects in kubeadm's order.
func Run(ctx context.Context, cfg nodeconfig.Config, _ host.Paths, api *kubeapi.API, r phase.Report) error {
	if cfg.Plan.Cluster.Kubeadm.Proxy.Disabled {
		r.Step("the configuration has kube-proxy disabled")
		return nil
	}
	o, err := render(cfg)
	if err != nil {
		return phase.Permanent(err)
	}
	r.Step("installing kube-proxy")
	if err := api.ApplyConfigMap(ctx, o.configMap); err != nil {
		return err
	}
	if err := api.ApplyDaemonSet(ctx, o.daemonSet); err != nil {
		return err
	}
	if err := api.ApplyServiceAccount(ctx, o.account); err != nil {
		return err
	}
	if err := api.ApplyClusterRoleBinding(ctx, o.binding); err != nil {
		return err
	}
	if err := api.ApplyRole(ctx, o.role); err != nil {
		return err
	}
	return api.ApplyRoleBinding(ctx, o.roleBinding)
}

func render(cfg nodeconfig.Config) (objects, error) {
	c, err := configuration(cfg)
	if err != nil {
		return objects{}, err
	}
	config, err := yaml.Marshal(c)
	if err != nil {
		return objects{}, fmt.Errorf("configuration of kube-proxy: %w", err)
	}
	daemonSet, err := kubeapi.Decode[appsv1.DaemonSet](daemonSetManifest)
	if err != nil {
		return objects{}, err
	}
	if len(daemonSet.Spec.Template.Spec.Containers) != 1 {
		return objects{}, errors.New("embedded manifest of kube-proxy: want one container")
	}
	daemonSet.Spec.Template.Spec.Containers[0].Image += ":" + cfg.Plan.Cluster.KubernetesVersion
	if err := patches.Apply(cfg.Plan.Node.Patches, patches.KubeProxyDaemonSet, daemonSet); err != nil {
		return objects{}, err
	}
	meta := metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: name}
	kubeconfig := strings.ReplaceAll(kubeconfigTemplate, "CONTROL_PLANE_ENDPOINT", "https://"+cfg.ControlPlaneEndpoint())
	cm := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: meta.Namespace, Name: name, Labels: map[string]string{"app": name}},
		Data: map[string]string{
			"kubeconfig.conf": strings.TrimSuffix(kubeconfig, "\n"),
			"config.conf":     strings.TrimSuffix(string(config), "\n"),
		},
	}
	if cfg.Plan.Cluster.KubeProxy == nil {
		// By the signature kubeadm upgrade tells what it may generate anew.
		kubeapi.SignConfigMap(cm)
	}
	o := objects{
		configMap: cm,
		daemonSet: daemonSet,
		account:   &corev1.ServiceAccount{ObjectMeta: meta},
		binding:   kubeapi.BindClusterRole("kubeadm:node-proxier", "system:node-proxier", kubeapi.ServiceAccount(meta.Namespace, name)),
	}
	o.role, o.roleBinding = kubeapi.ConfigMapReaders(meta.Namespace, name, name, kubeapi.Group(kubeapi.NodeTokenGroup))
	return o, nil
}

// configuration is the user's, completed with kubeadm's defaults. The mode is set
// although it is kube-proxy's own default too: that one is about to change, and
// kube-proxy warns about it.
func configuration(cfg nodeconfig.Config) (kubeproxyv1alpha1.KubeProxyConfiguration, error) {
	var c kubeproxyv1alpha1.KubeProxyConfiguration
	if err := nodeconfig.DecodeComponent(cfg.Plan.Cluster.KubeProxy, &c); err != nil {
		return c, fmt.Errorf("configuration of kube-proxy: %w", err)
	}
	c.TypeMeta = metav1.TypeMeta{APIVersion: kubeproxyv1alpha1.SchemeGroupVersion.String(), Kind: "KubeProxyConfiguration"}
	everywhere := "0.0.0.0"
	if cfg.AdvertiseAddress.Is6() {
		everywhere = "::"
	}
	c.BindAddress = cmp.Or(c.BindAddress, everywhere)
	c.ClusterCIDR = cmp.Or(c.ClusterCIDR, strings.Join(cfg.Plan.Cluster.PodSubnets, ","))
	c.ClientConnection.Kubeconfig = cmp.Or(c.ClientConnection.Kubeconfig, "/var/lib/kube-proxy/kubeconfig.conf")
	c.Mode = cmp.Or(c.Mode, "iptables")
	return c, nil
}
