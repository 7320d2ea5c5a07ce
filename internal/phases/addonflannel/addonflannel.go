// Package addonflannel has two phases: one prepares the node for flannel, and one
// installs flannel as the cluster's pod network.
//
// INPUTS: the boot plan's pod network ("none" installs nothing) and pod subnets;
// admin rights.
//
// OUTPUTS: on the node /etc/cni/net.d/10-flannel.conflist (0644); in the cluster the
// objects of flannel's Documentation/kube-flannel.yml: the namespace kube-flannel
// with the ServiceAccount flannel, the ConfigMap kube-flannel-cfg and the DaemonSets
// kube-flannel-ds and kube-flannel-install; ClusterRole and ClusterRoleBinding flannel.
//
// Upstream's DaemonSet puts the CNI plugin and its configuration onto the host
// with init containers. Here the plugins are part of the operating system, in
// /usr/lib/cni, and each node writes the configuration itself, before its kubelet
// starts: the node is Ready when it registers, and not a status update later. Machines
// that others have made, and that joined with kubeadm, have neither. The init
// containers are in a DaemonSet of their own, whose pods Kiln's nodes do not get:
// their kubelets set the label nodelabels.PodNetwork.
package addonflannel

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
)

var (
	//go:embed cni-conf.json
	cniConf []byte
	//go:embed daemonset.yaml
	daemonSetManifest []byte
	//go:embed install.yaml
	installManifest []byte
)

const (
	namespace = "kube-flannel"
	name      = "flannel"
	// conflist is where containerd looks for the CNI configuration.
	conflist = "/etc/cni/net.d/10-flannel.conflist"
)

// objects are what makes up the add-on.
type objects struct {
	namespace *corev1.Namespace
	role      *rbacv1.ClusterRole
	binding   *rbacv1.ClusterRoleBinding
	account   *corev1.ServiceAccount
	configMap *corev1.ConfigMap
	daemonSet *appsv1.DaemonSet
	install   *appsv1.DaemonSet
}

// Image is the container image of flannel.
func Image() (string, error) {
	ds, err := kubeapi.Decode[appsv1.DaemonSet](daemonSetManifest)
	if err != nil {
		return "", err
	}
	return ds.Spec.Template.Spec.Containers[0].Image, nil
}

// Run creates the objects.
func Run(ctx context.Context, cfg nodeconfig.Config, _ host.Paths, api *kubeapi.API, r phase.Report) error {
	if cfg.Plan.Cluster.PodNetwork != name {
		r.Step("the cluster's pod network is installed by its administrator")
		return nil
	}
	o, err := render(cfg)
	if err != nil {
		return phase.Permanent(err)
	}
	r.Step("installing flannel")
	if err := api.ApplyNamespace(ctx, o.namespace); err != nil {
		return err
	}
	if err := api.ApplyClusterRole(ctx, o.role); err != nil {
		return err
	}
	if err := api.ApplyClusterRoleBinding(ctx, o.binding); err != nil {
		return err
	}
	if err := api.ApplyServiceAccount(ctx, o.account); err != nil {
		return err
	}
	if err := api.ApplyConfigMap(ctx, o.configMap); err != nil {
		return err
	}
	if err := api.ApplyDaemonSet(ctx, o.daemonSet); err != nil {
		return err
	}
	return api.ApplyDaemonSet(ctx, o.install)
}

// Prepare writes the node's CNI configuration.
func Prepare(_ context.Context, cfg nodeconfig.Config, paths host.Paths, r phase.Report) error {
	if cfg.Plan.Cluster.PodNetwork != name {
		r.Step("the cluster's pod network is installed by its administrator")
		return nil
	}
	return writeConflist(paths.At(conflist))
}

// writeConflist writes the CNI configuration unless it is there: containerd reads
// the folder again with every change.
func writeConflist(path string) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, cniConf) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return atomicfile.WriteFile(path, cniConf, 0o644)
}

func render(cfg nodeconfig.Config) (objects, error) {
	network, err := netConf(cfg.Plan.Cluster.PodSubnets)
	if err != nil {
		return objects{}, err
	}
	daemonSet, err := kubeapi.Decode[appsv1.DaemonSet](daemonSetManifest)
	if err != nil {
		return objects{}, err
	}
	install, err := kubeapi.Decode[appsv1.DaemonSet](installManifest)
	if err != nil {
		return objects{}, err
	}
	// flannel comes up beside kube-proxy, not after it: through the Service's address
	// it would crash, and wait longer each time, until kube-proxy has made its rules.
	apiHost, apiPort, err := net.SplitHostPort(cfg.ControlPlaneEndpoint())
	if err != nil {
		return objects{}, fmt.Errorf("flannel: control-plane endpoint: %w", err)
	}
	flanneld := &daemonSet.Spec.Template.Spec.Containers[0]
	flanneld.Env = append(flanneld.Env, corev1.EnvVar{Name: "KUBERNETES_SERVICE_HOST", Value: apiHost}, corev1.EnvVar{Name: "KUBERNETES_SERVICE_PORT", Value: apiPort})
	if cfg.Plan.Cluster.VirtualIP != "" && cfg.AdvertiseAddress.Is4() {
		// flannel would take the first address of the interface, which can be the virtual
		// IP; with IPv6 it leaves that out, because it is a deprecated address.
		flanneld.Env = append(flanneld.Env, corev1.EnvVar{Name: "FLANNELD_IFACE", ValueFrom: &corev1.EnvVarSource{
			FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "status.hostIP"},
		}})
	}
	labels := map[string]string{"k8s-app": name}
	o := objects{
		namespace: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace, Labels: map[string]string{
			"k8s-app":                            name,
			"pod-security.kubernetes.io/enforce": "privileged",
		}}},
		role: &rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
			Rules: []rbacv1.PolicyRule{
				{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get"}},
				{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"get", "list", "watch"}},
				{APIGroups: []string{""}, Resources: []string{"nodes/status"}, Verbs: []string{"patch"}},
			},
		},
		binding: kubeapi.BindClusterRole(name, name, kubeapi.ServiceAccount(namespace, name)),
		account: &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels}},
		configMap: &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "kube-flannel-cfg", Labels: map[string]string{
				"tier": "node", "k8s-app": name, "app": name,
			}},
			Data: map[string]string{"cni-conf.json": string(cniConf), "net-conf.json": string(network)},
		},
		daemonSet: daemonSet,
		install:   install,
	}
	o.binding.Labels = labels
	return o, nil
}

// netConf is flannel's network configuration (its Documentation/configuration.md).
// The rules are made with nftables, like all of the node's.
func netConf(podSubnets []string) ([]byte, error) {
	type backend struct{ Type string }
	conf := struct {
		Network        string `json:",omitempty"`
		IPv6Network    string `json:",omitempty"`
		EnableIPv4     bool
		EnableIPv6     bool
		EnableNFTables bool
		Backend        backend
	}{EnableNFTables: true, Backend: backend{"vxlan"}}
	for _, s := range podSubnets {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("flannel: pod subnet: %w", err)
		}
		switch {
		case p.Addr().Is4() && conf.Network == "":
			conf.Network, conf.EnableIPv4 = p.Masked().String(), true
		case p.Addr().Is6() && conf.IPv6Network == "":
			conf.IPv6Network, conf.EnableIPv6 = p.Masked().String(), true
		}
	}
	out, err := json.MarshalIndent(conf, "", "  ")
	return append(out, '\n'), err
}
