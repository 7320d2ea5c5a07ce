//go:build boot

package qemutests

import (
	"fmt"
	"sort"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	tokenGroup = "Group system:bootstrappers:kubeadm:default-node-token"
	nodesGroup = "Group system:nodes"
)

// bindings are kubeadm's role bindings. A roleRef cannot be changed later, so a
// binding under one of these names with another role would break every upgrade.
var bindings = []struct{ namespace, name, role, subjects string }{
	{"", "kubeadm:cluster-admins", "ClusterRole cluster-admin", "Group kubeadm:cluster-admins"},
	{"", "kubeadm:get-nodes", "ClusterRole kubeadm:get-nodes", tokenGroup},
	{"", "kubeadm:kubelet-bootstrap", "ClusterRole system:node-bootstrapper", tokenGroup},
	{"", "kubeadm:node-autoapprove-bootstrap", "ClusterRole system:certificates.k8s.io:certificatesigningrequests:nodeclient", tokenGroup},
	{"", "kubeadm:node-autoapprove-certificate-rotation", "ClusterRole system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", nodesGroup},
	{"", "kubeadm:apiserver-kubelet-client", "ClusterRole system:kubelet-api-admin", "User kube-apiserver-kubelet-client"},
	{"", "kubeadm:node-proxier", "ClusterRole system:node-proxier", "ServiceAccount kube-system/kube-proxy"},
	{"", "system:coredns", "ClusterRole system:coredns", "ServiceAccount kube-system/coredns"},
	{"kube-public", "kubeadm:bootstrap-signer-clusterinfo", "Role kubeadm:bootstrap-signer-clusterinfo", "User system:anonymous"},
	{"kube-system", "kubeadm:nodes-kubeadm-config", "Role kubeadm:nodes-kubeadm-config", tokenGroup + "; " + nodesGroup},
	{"kube-system", "kubeadm:kubelet-config", "Role kubeadm:kubelet-config", tokenGroup + "; " + nodesGroup},
	{"kube-system", "kube-proxy", "Role kube-proxy", tokenGroup},
}

// roles are the rules of the roles kubeadm makes.
var roles = []struct{ namespace, name, rules string }{
	{"", "kubeadm:get-nodes", "get nodes"},
	{"", "system:coredns", "list,watch endpoints,namespaces,pods,services; list,watch endpointslices.discovery.k8s.io"},
	{"kube-public", "kubeadm:bootstrap-signer-clusterinfo", "get configmaps/cluster-info"},
	{"kube-system", "kubeadm:nodes-kubeadm-config", "get configmaps/kubeadm-config"},
	{"kube-system", "kubeadm:kubelet-config", "get configmaps/kubelet-config"},
	{"kube-system", "kube-proxy", "get configmaps/kube-proxy"},
}

func checkRBAC(t *testing.T, n *node) {
	ctx := n.within(t, 2*time.Minute)
	for _, want := range bindings {
		var ref rbacv1.RoleRef
		var subjects []rbacv1.Subject
		var err error
		if want.namespace == "" {
			var b *rbacv1.ClusterRoleBinding
			if b, err = n.client.RbacV1().ClusterRoleBindings().Get(ctx, want.name, metav1.GetOptions{}); err == nil {
				ref, subjects = b.RoleRef, b.Subjects
			}
		} else {
			var b *rbacv1.RoleBinding
			if b, err = n.client.RbacV1().RoleBindings(want.namespace).Get(ctx, want.name, metav1.GetOptions{}); err == nil {
				ref, subjects = b.RoleRef, b.Subjects
			}
		}
		if err != nil {
			t.Error(err)
			continue
		}
		if got := ref.Kind + " " + ref.Name; got != want.role || ref.APIGroup != rbacv1.GroupName {
			t.Errorf("%s/%s refers to %s, want %s", want.namespace, want.name, got, want.role)
		}
		if got := subjectList(subjects); got != want.subjects {
			t.Errorf("%s/%s binds %q, want %q", want.namespace, want.name, got, want.subjects)
		}
	}
	for _, want := range roles {
		var rules []rbacv1.PolicyRule
		var err error
		if want.namespace == "" {
			var r *rbacv1.ClusterRole
			if r, err = n.client.RbacV1().ClusterRoles().Get(ctx, want.name, metav1.GetOptions{}); err == nil {
				rules = r.Rules
			}
		} else {
			var r *rbacv1.Role
			if r, err = n.client.RbacV1().Roles(want.namespace).Get(ctx, want.name, metav1.GetOptions{}); err == nil {
				rules = r.Rules
			}
		}
		if err != nil {
			t.Error(err)
			continue
		}
		if got := ruleList(rules); got != want.rules {
			t.Errorf("%s/%s allows %q, want %q", want.namespace, want.name, got, want.rules)
		}
	}
}

// subjectList renders subjects in a fixed order.
func subjectList(subjects []rbacv1.Subject) string {
	var out []string
	for _, s := range subjects {
		name := s.Name
		if s.Namespace != "" {
			name = s.Namespace + "/" + name
		}
		out = append(out, s.Kind+" "+name)
	}
	sort.Strings(out)
	return strings.Join(out, "; ")
}

// ruleList renders rules in a fixed order: verbs, then resources with their API
// group and names.
func ruleList(rules []rbacv1.PolicyRule) string {
	var out []string
	for _, r := range rules {
		var resources []string
		for _, res := range r.Resources {
			for _, group := range r.APIGroups {
				s := res
				if group != "" {
					s += "." + group
				}
				if len(r.ResourceNames) > 0 {
					s += "/" + strings.Join(r.ResourceNames, "+")
				}
				resources = append(resources, s)
			}
		}
		verbs := append([]string(nil), r.Verbs...)
		sort.Strings(verbs)
		sort.Strings(resources)
		out = append(out, fmt.Sprintf("%s %s", strings.Join(verbs, ","), strings.Join(resources, ",")))
	}
	sort.Strings(out)
	return strings.Join(out, "; ")
}
