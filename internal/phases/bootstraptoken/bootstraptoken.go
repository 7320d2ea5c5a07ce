// Package bootstraptoken is the phase that lets other machines join.
//
// INPUTS: the boot plan's bootstrap tokens; admin.conf, whose CA and server are
// published; admin rights.
//
// OUTPUTS: a Secret kube-system/bootstrap-token-<id> per token; the RBAC objects by
// which a token's holder may ask for a node's certificate, gets it, and may have it
// renewed; those by which the API server may speak to kubelets; the ConfigMap
// kube-public/cluster-info, which everybody may read. The controller manager signs
// cluster-info with each token.
package bootstraptoken

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	bootstrapapi "k8s.io/cluster-bootstrap/token/api"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/internal/tokens"
)

// description is what kubeadm token list shows.
const description = "Created with the cluster by imagegen."

// Run creates everything in kubeadm's order.
func Run(ctx context.Context, cfg nodeconfig.Config, paths host.Paths, api *kubeapi.API, r phase.Report) error {
	now := time.Now()
	for _, t := range cfg.Plan.Tokens {
		if !t.Expires.IsZero() && !now.Before(t.Expires) {
			// The controller manager would delete it at once.
			r.Warn("bootstrap token %s expired on %s and is not created; to let nodes join, create one with firstboot token create", t.ID, t.Expires.UTC().Format(time.RFC3339))
			continue
		}
		r.Step("creating bootstrap token %s", t.ID)
		if err := api.ApplySecret(ctx, asToken(t).Object()); err != nil {
			return err
		}
	}
	if err := applyRBAC(ctx, api); err != nil {
		return err
	}
	info, err := clusterInfo(paths.Kubeconfig(kubeapi.AdminConf))
	if err != nil {
		return phase.Permanent(err)
	}
	r.Step("publishing %s", info.Name)
	if err := api.ApplyConfigMap(ctx, info); err != nil {
		return err
	}
	// The user, not the group of all without credentials: so kubeadm has it.
	role, binding := kubeapi.ConfigMapReaders(metav1.NamespacePublic, "kubeadm:bootstrap-signer-clusterinfo", info.Name, kubeapi.User("system:anonymous"))
	if err := api.ApplyRole(ctx, role); err != nil {
		return err
	}
	return api.ApplyRoleBinding(ctx, binding)
}

// asToken completes a token of the plan: what it leaves open has kubeadm's defaults.
// Without an expiration it is valid for ever.
func asToken(t bootplan.Token) tokens.Token {
	out := tokens.Token{
		ID: t.ID, Secret: t.Secret, Expires: t.Expires, Description: cmp.Or(t.Description, description),
		Usages: t.Usages, Groups: t.Groups,
	}
	if len(out.Usages) == 0 {
		out.Usages = tokens.Usages()
	}
	if len(out.Groups) == 0 && slices.Contains(out.Usages, tokens.Authentication) {
		out.Groups = []string{kubeapi.NodeTokenGroup}
	}
	return out
}

func applyRBAC(ctx context.Context, api *kubeapi.API) error {
	tokens := kubeapi.Group(kubeapi.NodeTokenGroup)
	const getNodes = "kubeadm:get-nodes"
	// A joining machine looks whether a Node of its name exists.
	if err := api.ApplyClusterRole(ctx, &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: getNodes},
		Rules:      []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"nodes"}}},
	}); err != nil {
		return err
	}
	for _, b := range []*rbacv1.ClusterRoleBinding{
		kubeapi.BindClusterRole(getNodes, getNodes, tokens),
		kubeapi.BindClusterRole("kubeadm:kubelet-bootstrap", "system:node-bootstrapper", tokens),
		kubeapi.BindClusterRole("kubeadm:node-autoapprove-bootstrap", "system:certificates.k8s.io:certificatesigningrequests:nodeclient", tokens),
		kubeapi.BindClusterRole("kubeadm:node-autoapprove-certificate-rotation", "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", kubeapi.Group(kubeapi.NodesGroup)),
		// The API server's client certificate for kubelets is in no group: without
		// this nobody gets logs.
		kubeapi.BindClusterRole("kubeadm:apiserver-kubelet-client", "system:kubelet-api-admin", kubeapi.User("kube-apiserver-kubelet-client")),
	} {
		if err := api.ApplyClusterRoleBinding(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// clusterInfo is the ConfigMap with a kubeconfig that has no user and whose only
// cluster, without a name, is that of admin.conf: the shared endpoint, not this
// node's own.
func clusterInfo(adminConf string) (*corev1.ConfigMap, error) {
	kc, err := clientcmd.LoadFromFile(adminConf)
	if err != nil {
		// The error may quote the file, which holds a private key.
		return nil, fmt.Errorf("%s cannot be read as a kubeconfig", adminConf)
	}
	current := kc.Contexts[kc.CurrentContext]
	if current == nil || kc.Clusters[current.Cluster] == nil {
		return nil, fmt.Errorf("%s: its current context names no cluster", adminConf)
	}
	cluster := kc.Clusters[current.Cluster]
	if len(cluster.CertificateAuthorityData) == 0 {
		return nil, fmt.Errorf("%s: it holds no CA certificate", adminConf)
	}
	out, err := clientcmd.Write(clientcmdapi.Config{Clusters: map[string]*clientcmdapi.Cluster{"": cluster}})
	if err != nil {
		return nil, errors.New("cluster-info cannot be rendered")
	}
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespacePublic, Name: bootstrapapi.ConfigMapClusterInfo},
		Data:       map[string]string{bootstrapapi.KubeConfigKey: string(out)},
	}, nil
}
