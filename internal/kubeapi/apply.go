package kubeapi

import (
	"context"
	"fmt"
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kiln-os/kiln/internal/phase"
)

// object is what all API objects have.
type object interface {
	runtime.Object
	metav1.Object
}

// resource is the part of a typed client that Apply needs.
type resource[T object] interface {
	Get(context.Context, string, metav1.GetOptions) (T, error)
	Create(context.Context, T, metav1.CreateOptions) (T, error)
	Update(context.Context, T, metav1.UpdateOptions) (T, error)
}

// apply creates want, or brings the object that has its name to want: its labels
// and annotations are added to those it has, and set copies the rest. set returns
// an error for what cannot be changed. Everything else that goes wrong is tried
// again for api.Bound: an API server that restarts, a namespace or a role that its
// controllers make a moment after it answers, an update by somebody else.
func apply[T object](ctx context.Context, api *API, kind string, res resource[T], want T, set func(live, want T) error) error {
	what := kind + " " + want.GetName()
	if ns := want.GetNamespace(); ns != "" {
		what = kind + " " + ns + "/" + want.GetName()
	}
	return phase.Poll(ctx, api.report, what+" to be accepted", api.interval, api.Bound, func(ctx context.Context) error {
		live, err := res.Get(ctx, want.GetName(), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			_, err = res.Create(ctx, want, metav1.CreateOptions{})
			return judge(err)
		}
		if err != nil {
			return judge(err)
		}
		updated, ok := live.DeepCopyObject().(T)
		if !ok {
			return phase.Permanent(fmt.Errorf("%s: unexpected type %T", what, live))
		}
		updated.SetLabels(merge(live.GetLabels(), want.GetLabels()))
		updated.SetAnnotations(merge(live.GetAnnotations(), want.GetAnnotations()))
		if err := set(updated, want); err != nil {
			return phase.Permanent(err)
		}
		if equality.Semantic.DeepEqual(live, updated) {
			return nil
		}
		_, err = res.Update(ctx, updated, metav1.UpdateOptions{})
		return judge(err)
	})
}

// judge marks the errors that do not heal: the API server will never accept the
// object as it is. An address of a Service that "is already allocated" is Invalid
// too, but does heal: it is what an interrupted creation leaves for a while.
func judge(err error) error {
	if apierrors.IsInvalid(err) {
		status, _ := err.(apierrors.APIStatus)
		if status != nil && status.Status().Details != nil && status.Status().Details.Kind == "Service" {
			return err
		}
		return phase.Permanent(err)
	}
	if apierrors.IsBadRequest(err) || apierrors.IsRequestEntityTooLargeError(err) {
		return phase.Permanent(err)
	}
	return err
}

// merge adds want to live. It keeps nil if there is nothing.
func merge(live, want map[string]string) map[string]string {
	if len(live)+len(want) == 0 {
		return live
	}
	out := map[string]string{}
	maps.Copy(out, live)
	maps.Copy(out, want)
	return out
}

// ApplyNamespace creates a namespace or adds labels and annotations to it.
func (a *API) ApplyNamespace(ctx context.Context, want *corev1.Namespace) error {
	return apply(ctx, a, "Namespace", a.Client.CoreV1().Namespaces(), want, func(_, _ *corev1.Namespace) error { return nil })
}

// ApplyServiceAccount creates a service account or adds labels and annotations to it.
func (a *API) ApplyServiceAccount(ctx context.Context, want *corev1.ServiceAccount) error {
	return apply(ctx, a, "ServiceAccount", a.Client.CoreV1().ServiceAccounts(want.Namespace), want, func(_, _ *corev1.ServiceAccount) error { return nil })
}

// ApplyConfigMap sets the keys that want has. Keys that only the live ConfigMap
// has are kept, because controllers add some, such as the signatures of
// cluster-info; but not in a ConfigMap signed by SignConfigMap.
func (a *API) ApplyConfigMap(ctx context.Context, want *corev1.ConfigMap) error {
	return apply(ctx, a, "ConfigMap", a.Client.CoreV1().ConfigMaps(want.Namespace), want, func(live, want *corev1.ConfigMap) error {
		if _, signed := want.Annotations[ConfigHashAnnotation]; signed {
			live.Data, live.BinaryData = want.Data, want.BinaryData
			return nil
		}
		live.Data = merge(live.Data, want.Data)
		return nil
	})
}

// ApplySecret makes the Secret's data equal to want's. Its type cannot be changed.
func (a *API) ApplySecret(ctx context.Context, want *corev1.Secret) error {
	return apply(ctx, a, "Secret", a.Client.CoreV1().Secrets(want.Namespace), want, func(live, want *corev1.Secret) error {
		if live.Type != want.Type {
			return fmt.Errorf("the Secret %s/%s has type %s, want %s, which cannot be changed: delete it", want.Namespace, want.Name, live.Type, want.Type)
		}
		live.Data = want.Data
		return nil
	})
}

// ApplyService makes the Service's ports and selector equal to want's. Its
// cluster IP cannot be changed.
func (a *API) ApplyService(ctx context.Context, want *corev1.Service) error {
	return apply(ctx, a, "Service", a.Client.CoreV1().Services(want.Namespace), want, func(live, want *corev1.Service) error {
		if live.Spec.ClusterIP != want.Spec.ClusterIP {
			return fmt.Errorf("the Service %s/%s has the address %s, want %s, which cannot be changed: delete it", want.Namespace, want.Name, live.Spec.ClusterIP, want.Spec.ClusterIP)
		}
		live.Spec.Ports, live.Spec.Selector = want.Spec.Ports, want.Spec.Selector
		return nil
	})
}

// ApplyDeployment makes the Deployment's specification equal to want's, except
// for the number of replicas, which is kept: it may have been scaled.
func (a *API) ApplyDeployment(ctx context.Context, want *appsv1.Deployment) error {
	return apply(ctx, a, "Deployment", a.Client.AppsV1().Deployments(want.Namespace), want, func(live, want *appsv1.Deployment) error {
		replicas := live.Spec.Replicas
		live.Spec = *want.Spec.DeepCopy()
		if replicas != nil {
			live.Spec.Replicas = replicas
		}
		return nil
	})
}

// ApplyDaemonSet makes the DaemonSet's specification equal to want's.
func (a *API) ApplyDaemonSet(ctx context.Context, want *appsv1.DaemonSet) error {
	return apply(ctx, a, "DaemonSet", a.Client.AppsV1().DaemonSets(want.Namespace), want, func(live, want *appsv1.DaemonSet) error {
		live.Spec = *want.Spec.DeepCopy()
		return nil
	})
}

// ApplyClusterRole makes the role's rules equal to want's.
func (a *API) ApplyClusterRole(ctx context.Context, want *rbacv1.ClusterRole) error {
	return apply(ctx, a, "ClusterRole", a.Client.RbacV1().ClusterRoles(), want, func(live, want *rbacv1.ClusterRole) error {
		live.Rules = want.Rules
		return nil
	})
}

// ApplyRole makes the role's rules equal to want's.
func (a *API) ApplyRole(ctx context.Context, want *rbacv1.Role) error {
	return apply(ctx, a, "Role", a.Client.RbacV1().Roles(want.Namespace), want, func(live, want *rbacv1.Role) error {
		live.Rules = want.Rules
		return nil
	})
}

// ApplyClusterRoleBinding makes the binding's subjects equal to want's. Its role
// cannot be changed.
func (a *API) ApplyClusterRoleBinding(ctx context.Context, want *rbacv1.ClusterRoleBinding) error {
	return apply(ctx, a, "ClusterRoleBinding", a.Client.RbacV1().ClusterRoleBindings(), want, func(live, want *rbacv1.ClusterRoleBinding) error {
		if err := sameRole("ClusterRoleBinding "+want.Name, live.RoleRef, want.RoleRef); err != nil {
			return err
		}
		live.Subjects = withGroups(want.Subjects)
		return nil
	})
}

// ApplyRoleBinding makes the binding's subjects equal to want's. Its role cannot
// be changed.
func (a *API) ApplyRoleBinding(ctx context.Context, want *rbacv1.RoleBinding) error {
	return apply(ctx, a, "RoleBinding", a.Client.RbacV1().RoleBindings(want.Namespace), want, func(live, want *rbacv1.RoleBinding) error {
		if err := sameRole("RoleBinding "+want.Namespace+"/"+want.Name, live.RoleRef, want.RoleRef); err != nil {
			return err
		}
		live.Subjects = withGroups(want.Subjects)
		return nil
	})
}

func sameRole(what string, live, want rbacv1.RoleRef) error {
	if live != want {
		return fmt.Errorf("%s refers to %s %s, want %s %s, which cannot be changed: delete it", what, live.Kind, live.Name, want.Kind, want.Name)
	}
	return nil
}

// withGroups fills in the API group of users and groups as the API server does,
// so that a binding that is as it should be is seen to be so.
func withGroups(subjects []rbacv1.Subject) []rbacv1.Subject {
	out := append([]rbacv1.Subject(nil), subjects...)
	for i := range out {
		if out[i].APIGroup == "" && out[i].Kind != rbacv1.ServiceAccountKind {
			out[i].APIGroup = rbacv1.GroupName
		}
	}
	return out
}
