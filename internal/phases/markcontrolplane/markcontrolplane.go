// Package markcontrolplane is the phase that labels and taints the Node as a
// control plane.
//
// INPUTS: the labels and taints of the boot plan; admin rights; a kubelet that
// registers its Node.
//
// OUTPUTS: the Node's labels node-role.kubernetes.io/control-plane and
// node.kubernetes.io/exclude-from-external-load-balancers, those labels of the plan
// that a kubelet may not set itself, and its taints.
package markcontrolplane

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/kubeletconfig"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
)

// roleKey is the key of the label and of the taint of control planes.
const roleKey = "node-role.kubernetes.io/control-plane"

// Run waits until the kubelet has registered the Node and marks it.
//
// The Node is updated, not patched as kubeadm does: its taints are one list, and a
// patch would drop one that a controller adds at the same time. An update that
// meets another fails and is tried again.
func Run(ctx context.Context, cfg nodeconfig.Config, _ host.Paths, api *kubeapi.API, r phase.Report) error {
	nodes := api.Client.CoreV1().Nodes()
	bound := time.Duration(cfg.Plan.Timeouts.NodeReady)
	return phase.Poll(ctx, r, "node "+cfg.NodeName+" to be registered", kubeapi.Interval, bound, func(ctx context.Context) error {
		n, err := nodes.Get(ctx, cfg.NodeName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		// The kubelet sets this label with its first status; before, it may still
		// replace the labels.
		if _, ok := n.Labels[corev1.LabelHostname]; !ok {
			return fmt.Errorf("node %s has no label %s yet", n.Name, corev1.LabelHostname)
		}
		if !mark(n, cfg) {
			return nil
		}
		_, err = nodes.Update(ctx, n, metav1.UpdateOptions{})
		return err
	})
}

// mark changes n and reports whether there was anything to change.
func mark(n *corev1.Node, cfg nodeconfig.Config) bool {
	labels := maps.Clone(n.Labels)
	_, admin := kubeletconfig.SplitLabels(cfg.Plan.Node.Labels)
	maps.Copy(labels, admin)
	labels[roleKey] = ""
	labels[corev1.LabelNodeExcludeBalancers] = ""

	taints := wantTaints(cfg)
	for _, have := range n.Spec.Taints {
		if !slices.ContainsFunc(taints, func(t corev1.Taint) bool { return t.MatchTaint(&have) }) {
			taints = append(taints, have)
		}
	}
	changed := !maps.Equal(n.Labels, labels) || !sameTaints(n.Spec.Taints, taints)
	n.Labels, n.Spec.Taints = labels, taints
	return changed
}

// wantTaints are the plan's taints: nil means the default, an empty list none.
func wantTaints(cfg nodeconfig.Config) []corev1.Taint {
	if cfg.Plan.Node.Taints == nil {
		return []corev1.Taint{{Key: roleKey, Effect: corev1.TaintEffectNoSchedule}}
	}
	var out []corev1.Taint
	for _, t := range cfg.Plan.Node.Taints {
		out = append(out, corev1.Taint{Key: t.Key, Value: t.Value, Effect: corev1.TaintEffect(t.Effect)})
	}
	return out
}

// sameTaints compares without regard to order and to when a taint was added.
func sameTaints(a, b []corev1.Taint) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(x corev1.Taint) bool {
		return !slices.ContainsFunc(b, func(y corev1.Taint) bool { return x.MatchTaint(&y) && x.Value == y.Value })
	})
}
