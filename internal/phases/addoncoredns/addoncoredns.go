// Package addoncoredns is the phase that installs CoreDNS as kubeadm 1.37 does
// (cmd/kubeadm/app/phases/addons/dns).
//
// INPUTS: the cluster's DNS domain and service subnet; the node's patches; admin rights.
//
// OUTPUTS: none if the cluster's configuration disables it; else in kube-system the ConfigMap, ServiceAccount and Deployment coredns and
// the Service kube-dns at the tenth address of the service subnet; ClusterRole and
// ClusterRoleBinding system:coredns.
package addoncoredns

import (
	"context"
	_ "embed"
	"regexp"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/patches"
	"github.com/kiln-os/kiln/internal/phase"
)

var (
	//go:embed Corefile
	corefileTemplate string
	//go:embed deployment.yaml
	deploymentManifest []byte
	//go:embed service.yaml
	serviceManifest []byte
)

const (
	name        = "coredns"
	clusterRole = "system:coredns"
	corefileKey = "Corefile"
)

// objects are what makes up the add-on.
type objects struct {
	configMap  *corev1.ConfigMap
	role       *rbacv1.ClusterRole
	binding    *rbacv1.ClusterRoleBinding
	account    *corev1.ServiceAccount
	deployment *appsv1.Deployment
	service    *corev1.Service
}

// Run creates the objects in kubeadm's order. A Corefile that somebody has
// changed is kept.
func Run(ctx context.Context, cfg nodeconfig.Config, _ host.Paths, api *kubeapi.API, r phase.Report) error {
	if cfg.Plan.Cluster.Kubeadm.DNS.Disabled {
		r.Step("the configuration has CoreDNS disabled")
		return nil
	}
	o, err := render(cfg)
	if err != nil {
		return phase.Permanent(err)
	}
	r.Step("installing CoreDNS")
	if err := applyCorefile(ctx, api, o.configMap, r); err != nil {
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
	if err := api.ApplyDeployment(ctx, o.deployment); err != nil {
		return err
	}
	return api.ApplyService(ctx, o.service)
}

func render(cfg nodeconfig.Config) (objects, error) {
	ip, err := cfg.DNSServiceIP()
	if err != nil {
		return objects{}, err
	}
	deployment, err := kubeapi.Decode[appsv1.Deployment](deploymentManifest)
	if err != nil {
		return objects{}, err
	}
	if err := patches.Apply(cfg.Plan.Node.Patches, patches.CoreDNSDeployment, deployment); err != nil {
		return objects{}, err
	}
	service, err := kubeapi.Decode[corev1.Service](serviceManifest)
	if err != nil {
		return objects{}, err
	}
	service.Spec.ClusterIP = ip.String()
	meta := metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: name}
	watch := []string{"list", "watch"}
	return objects{
		configMap: &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{corefileKey: corefile(cfg.Plan.Cluster.DNSDomain)}},
		role: &rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: clusterRole},
			Rules: []rbacv1.PolicyRule{
				{APIGroups: []string{""}, Resources: []string{"endpoints", "services", "pods", "namespaces"}, Verbs: watch},
				{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: watch},
			},
		},
		binding:    kubeapi.BindClusterRole(clusterRole, clusterRole, kubeapi.ServiceAccount(metav1.NamespaceSystem, name)),
		account:    &corev1.ServiceAccount{ObjectMeta: meta},
		deployment: deployment,
		service:    service,
	}, nil
}

func corefile(domain string) string {
	return strings.ReplaceAll(corefileTemplate, "CLUSTER_DOMAIN", domain)
}

// kubernetesPlugin finds the cluster's domain in a Corefile.
var kubernetesPlugin = regexp.MustCompile(`(?m)^\s*kubernetes (\S+) in-addr\.arpa`)

// isDefault reports whether a Corefile is what this phase writes for some domain.
func isDefault(text string) bool {
	m := kubernetesPlugin.FindStringSubmatch(text)
	return m != nil && text == corefile(m[1])
}

// applyCorefile writes the Corefile unless there is one that somebody has changed.
func applyCorefile(ctx context.Context, api *kubeapi.API, want *corev1.ConfigMap, r phase.Report) error {
	var keep bool
	err := phase.Poll(ctx, r, "ConfigMap kube-system/"+name, kubeapi.Interval, api.Bound, func(ctx context.Context) error {
		live, err := api.Client.CoreV1().ConfigMaps(want.Namespace).Get(ctx, want.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		text := live.Data[corefileKey]
		keep = text != "" && !isDefault(text)
		return nil
	})
	if err != nil {
		return err
	}
	if keep {
		r.Warn("the Corefile in ConfigMap %s/%s is not the default and is kept", want.Namespace, want.Name)
		return nil
	}
	return api.ApplyConfigMap(ctx, want)
}
