package kubeapi

import (
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kiln-os/kiln/internal/tokens"
)

// Groups that kubeadm grants rights to.
const (
	// NodeTokenGroup is that of bootstrap tokens which may join nodes. It is the
	// name of a group, not of a Secret.
	NodeTokenGroup = tokens.NodeGroup
	// NodesGroup is that of kubelets.
	NodesGroup = "system:nodes"
	// AdminsGroup is that of admin.conf.
	AdminsGroup = "kubeadm:cluster-admins"
)

// Group is a group of users.
func Group(name string) rbacv1.Subject { return rbacv1.Subject{Kind: rbacv1.GroupKind, Name: name} }

// User is a single user.
func User(name string) rbacv1.Subject { return rbacv1.Subject{Kind: rbacv1.UserKind, Name: name} }

// ServiceAccount is the user of pods.
func ServiceAccount(namespace, name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: name}
}

// BindClusterRole gives subjects the ClusterRole role everywhere.
func BindClusterRole(name, role string, subjects ...rbacv1.Subject) *rbacv1.ClusterRoleBinding {
	return &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   subjects,
	}
}

// ConfigMapReaders returns a Role that allows to get one ConfigMap, and the
// RoleBinding of the same name that gives it to subjects.
func ConfigMapReaders(namespace, name, configMap string, subjects ...rbacv1.Subject) (*rbacv1.Role, *rbacv1.RoleBinding) {
	meta := metav1.ObjectMeta{Namespace: namespace, Name: name}
	return &rbacv1.Role{
			ObjectMeta: meta,
			Rules: []rbacv1.PolicyRule{{
				Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{configMap},
			}},
		}, &rbacv1.RoleBinding{
			ObjectMeta: meta,
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
			Subjects:   subjects,
		}
}
