package reset

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/kiln-os/kiln/internal/kubeclient"
	"github.com/kiln-os/kiln/internal/phase"
)

// answerTimeout is how long an API server may take to answer before the next way to
// reach the cluster is tried.
const answerTimeout = 10 * time.Second

// connect returns a client of the cluster with the best credentials that the node has:
// the administrator's on a control plane, also straight at this node's own API server
// if the shared endpoint does not answer, else the kubelet's. node is the Node object,
// nil if there is none. If the node has no kubeconfig at all, client is nil.
func (n Node) connect(ctx context.Context) (client kubernetes.Interface, node *corev1.Node, err error) {
	var errs []error
	for _, way := range []struct{ file, server string }{
		{"admin.conf", "admin.conf"}, {"admin.conf", "controller-manager.conf"}, {"kubelet.conf", "kubelet.conf"},
	} {
		client, node, err := n.try(ctx, way.file, way.server)
		switch {
		case err == nil:
			return client, node, nil
		case ctx.Err() != nil:
			return nil, nil, ctx.Err()
		case !errors.Is(err, fs.ErrNotExist):
			errs = append(errs, err)
		}
	}
	return nil, nil, errors.Join(errs...)
}

// try uses the credentials of one kubeconfig at the server of another.
func (n Node) try(ctx context.Context, credentials, server string) (kubernetes.Interface, *corev1.Node, error) {
	file, err := kubeclient.Read(n.Paths.Kubeconfig(credentials))
	if err != nil {
		return nil, nil, err
	}
	at, err := kubeclient.Read(n.Paths.Kubeconfig(server))
	if err != nil {
		return nil, nil, err
	}
	rc, err := file.RESTConfig()
	if err != nil {
		return nil, nil, err
	}
	rc.Host = at.Server()
	client, err := kubernetes.NewForConfig(rc)
	if err != nil {
		return nil, nil, fmt.Errorf("%s is not a usable kubeconfig", file.Path)
	}
	limited, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	node, err := client.CoreV1().Nodes().Get(limited, n.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return client, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("cluster at %s: %w", rc.Host, err)
	}
	return client, node, nil
}

// deleteNode stops the kubelet, which would register the node again, and deletes its
// Node object. Without the rights or the cluster it says how to.
func deleteNode(ctx context.Context, n Node) ([]Change, error) {
	if n.Options.KeepNode {
		return nil, nil
	}
	client, node, err := n.connect(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		n.Report.Warn("the Node object %s is left in the cluster, which does not answer this node: %v. If it goes on without this node: kubectl delete node %s", n.Name, err, n.Name)
		return nil, nil
	}
	if node == nil {
		return nil, nil
	}
	out, err := stopKubelet(ctx, n)
	if err != nil {
		return nil, err
	}
	return append(out, Change{
		Text: "delete the Node object " + n.Name, Optional: true,
		Do: func(ctx context.Context) error {
			err := client.CoreV1().Nodes().Delete(ctx, n.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &node.UID}})
			switch {
			case apierrors.IsNotFound(err):
				return nil
			case apierrors.IsForbidden(err):
				return fmt.Errorf("this node may not do that; an administrator does: kubectl delete node %s", n.Name)
			case err != nil:
				return fmt.Errorf("%w; later: kubectl delete node %s", err, n.Name)
			}
			return nil
		},
	}), nil
}

// drain cordons the node and evicts its pods, as kubectl drain --ignore-daemonsets
// --delete-emptydir-data does.
func drain(ctx context.Context, n Node) ([]Change, error) {
	if !n.Options.Drain {
		return nil, nil
	}
	client, node, err := n.connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w; without --drain the node is reset all the same", err)
	}
	if node == nil { // also a reset that goes on after it has deleted the Node
		return nil, nil
	}
	var out []Change
	if !node.Spec.Unschedulable {
		out = append(out, Change{Text: "cordon " + n.Name, Do: func(ctx context.Context) error {
			_, err := client.CoreV1().Nodes().Patch(ctx, n.Name, types.StrategicMergePatchType, []byte(`{"spec":{"unschedulable":true}}`), metav1.PatchOptions{})
			return err
		}})
	}
	pods, err := n.evictable(ctx, client)
	if err != nil {
		return nil, err
	}
	for _, p := range pods {
		out = append(out, Change{Text: "evict the pod " + p.Namespace + "/" + p.Name, Do: func(ctx context.Context) error { return n.evict(ctx, client, p) }})
	}
	if len(pods) > 0 {
		out = append(out, Change{Text: "wait until the evicted pods are gone", Do: func(ctx context.Context) error { return n.waitGone(ctx, client, pods) }})
	}
	return out, nil
}

// evictable are the node's pods that another node can run: not those of DaemonSets,
// not static ones, and not those that have ended.
func (n Node) evictable(ctx context.Context, client kubernetes.Interface) ([]corev1.Pod, error) {
	list, err := client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", n.Name).String()})
	if err != nil {
		return nil, fmt.Errorf("the node's pods: %w", err)
	}
	var out []corev1.Pod
	for _, p := range list.Items {
		_, static := p.Annotations[corev1.MirrorPodAnnotationKey]
		daemon := slices.ContainsFunc(p.OwnerReferences, func(o metav1.OwnerReference) bool { return o.Kind == "DaemonSet" })
		ended := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
		if !static && !daemon && !ended {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b corev1.Pod) int { return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name) })
	return out, nil
}

// DefaultDrainTimeout is how long evictions may take.
const DefaultDrainTimeout = 5 * time.Minute

func (n Node) drainTimeout() time.Duration {
	if n.Options.DrainTimeout > 0 {
		return n.Options.DrainTimeout
	}
	return DefaultDrainTimeout
}

// evict waits while a disruption budget forbids it.
func (n Node) evict(ctx context.Context, client kubernetes.Interface, p corev1.Pod) error {
	what := fmt.Sprintf("the eviction of %s/%s to be allowed", p.Namespace, p.Name)
	return phase.Poll(ctx, n.Report, what, pause, n.drainTimeout(), func(ctx context.Context) error {
		err := client.PolicyV1().Evictions(p.Namespace).Evict(ctx, &policyv1.Eviction{
			ObjectMeta:    metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name},
			DeleteOptions: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &p.UID}},
		})
		switch {
		case err == nil, apierrors.IsNotFound(err), apierrors.IsConflict(err): // gone, or replaced by another of its name
			return nil
		case apierrors.IsTooManyRequests(err), apierrors.IsServiceUnavailable(err), apierrors.IsServerTimeout(err):
			return err
		}
		return phase.Permanent(err)
	})
}

func (n Node) waitGone(ctx context.Context, client kubernetes.Interface, pods []corev1.Pod) error {
	return phase.Poll(ctx, n.Report, "the evicted pods to be gone", pause, n.drainTimeout(), func(ctx context.Context) error {
		left, err := n.evictable(ctx, client)
		if err != nil {
			return err
		}
		for _, p := range left {
			if slices.ContainsFunc(pods, func(q corev1.Pod) bool { return q.UID == p.UID }) {
				return fmt.Errorf("%s/%s is still there", p.Namespace, p.Name)
			}
		}
		return nil
	})
}
