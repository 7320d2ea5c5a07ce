// Package ready is the phase that waits until the node does its work.
//
// INPUTS: the rights of an administrator or of the node; everything that earlier
// phases started.
//
// OUTPUTS: none. When it is done, the Node is Ready, what its role has of the control
// plane, kube-proxy, CoreDNS and flannel runs on it, and all their pods are ready.
//
// In a cluster whose administrator installs the pod network, the Node cannot be
// Ready yet and CoreDNS cannot run: then only the pods that use the host's network
// are waited for.
package ready

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/internal/staticpod"
)

// interval is between two looks. Each lists pods, which an emulated machine feels.
const interval = 2 * time.Second

const flannelNamespace = "kube-flannel"

// workload is something whose pods must be there: a pod that its controller has
// not created yet would not be missed otherwise.
type workload struct {
	name      string
	namespace string
	labels    map[string]string
	replicas  int
	// anywhere means the pods may run on other nodes.
	anywhere bool
}

// workloads are what runs on a node of the plan's role. CoreDNS is the concern of the
// node that has created the cluster.
func workloads(cfg nodeconfig.Config) []workload {
	var out []workload
	for _, c := range []string{staticpod.Etcd, staticpod.APIServer, staticpod.ControllerManager, staticpod.Scheduler} {
		if cfg.Plan.Role == bootplan.RoleJoinWorker || c == staticpod.Etcd && cfg.Plan.Cluster.ExternalEtcd() != nil {
			continue
		}
		out = append(out, workload{name: c, namespace: metav1.NamespaceSystem, labels: map[string]string{"component": c, "tier": "control-plane"}, replicas: 1})
	}
	disabled := cfg.Plan.Cluster.Kubeadm
	if !disabled.Proxy.Disabled {
		out = append(out, workload{name: "kube-proxy", namespace: metav1.NamespaceSystem, labels: map[string]string{"k8s-app": "kube-proxy"}, replicas: 1})
	}
	if cfg.Plan.Cluster.PodNetwork == "flannel" {
		out = append(out, workload{name: "kube-flannel", namespace: flannelNamespace, labels: map[string]string{"app": "flannel"}, replicas: 1})
		if !disabled.DNS.Disabled && !cfg.Plan.Role.Joins() {
			out = append(out, workload{name: "coredns", namespace: metav1.NamespaceSystem, labels: map[string]string{"k8s-app": "kube-dns"}, replicas: 2, anywhere: true})
		}
	}
	return out
}

// Run waits for at most the plan's Timeouts.NodeReady and says what is not ready.
func Run(ctx context.Context, cfg nodeconfig.Config, _ host.Paths, api *kubeapi.API, r phase.Report) error {
	network := cfg.Plan.Cluster.PodNetwork != "none"
	what := fmt.Sprintf("node %s and its pods", cfg.NodeName)
	if !network {
		r.Step("the node becomes Ready, and CoreDNS starts, once a pod network is installed")
		what = fmt.Sprintf("the control plane and kube-proxy of node %s", cfg.NodeName)
		if cfg.Plan.Role == bootplan.RoleJoinWorker {
			what = fmt.Sprintf("kube-proxy of node %s", cfg.NodeName)
		}
	}
	bound := time.Duration(cfg.Plan.Timeouts.NodeReady)
	var which metav1.ListOptions
	if cfg.Plan.Role.Joins() {
		// A kubelet may list no others.
		which.FieldSelector = "spec.nodeName=" + cfg.NodeName
	}
	return phase.Poll(ctx, r, what, interval, bound, func(ctx context.Context) error {
		node, err := api.Client.CoreV1().Nodes().Get(ctx, cfg.NodeName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		var pods []corev1.Pod
		for _, ns := range []string{metav1.NamespaceSystem, flannelNamespace} {
			list, err := api.Client.CoreV1().Pods(ns).List(ctx, which)
			if err != nil {
				return err
			}
			pods = append(pods, list.Items...)
		}
		if !network {
			pods = slices.DeleteFunc(pods, func(p corev1.Pod) bool { return !p.Spec.HostNetwork })
		}
		trouble := podTrouble(cfg, pods)
		if why := nodeTrouble(*node); network && why != "" {
			trouble = append(trouble, why)
		}
		if len(trouble) > 0 {
			return errors.New(strings.Join(trouble, "; "))
		}
		return nil
	})
}

// nodeTrouble says why the node is not Ready; "" if it is.
func nodeTrouble(n corev1.Node) string {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			if c.Status == corev1.ConditionTrue {
				return ""
			}
			return fmt.Sprintf("the node is not ready: %s", c.Message)
		}
	}
	return "the kubelet has not reported the node's state"
}

// podTrouble lists what is missing and what is not ready among the pods of this
// node and those that are on no node yet. Those of other nodes are not its concern.
func podTrouble(cfg nodeconfig.Config, pods []corev1.Pod) []string {
	var out []string
	for _, w := range workloads(cfg) {
		n := 0
		for _, p := range pods {
			if w.has(p) && (w.anywhere || p.Spec.NodeName == cfg.NodeName) {
				n++
			}
		}
		if n < w.replicas {
			out = append(out, fmt.Sprintf("%s has %d of %d pods", w.name, n, w.replicas))
		}
	}
	var bad []string
	total := 0
	for _, p := range pods {
		if p.Status.Phase == corev1.PodSucceeded || p.DeletionTimestamp != nil || (p.Spec.NodeName != "" && p.Spec.NodeName != cfg.NodeName) {
			continue
		}
		total++
		if why := podState(p); why != "" {
			bad = append(bad, p.Name+" "+why)
		}
	}
	if len(bad) > 0 {
		slices.Sort(bad)
		out = append(out, fmt.Sprintf("%d of %d pods not ready: %s", len(bad), total, strings.Join(bad, ", ")))
	}
	return out
}

func (w workload) has(p corev1.Pod) bool {
	if p.Namespace != w.namespace || p.DeletionTimestamp != nil {
		return false
	}
	for k, v := range w.labels {
		if p.Labels[k] != v {
			return false
		}
	}
	return true
}

// podState says in a word or two why a pod is not ready; "" if it is.
func podState(p corev1.Pod) string {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			return ""
		}
	}
	for _, s := range append(slices.Clone(p.Status.InitContainerStatuses), p.Status.ContainerStatuses...) {
		switch {
		case s.State.Waiting != nil:
			return s.State.Waiting.Reason
		case s.State.Terminated != nil && s.State.Terminated.ExitCode != 0:
			return fmt.Sprintf("%s (exit code %d)", s.State.Terminated.Reason, s.State.Terminated.ExitCode)
		}
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status != corev1.ConditionTrue {
			// The scheduler's message goes on about preemption.
			why, _, _ := strings.Cut(c.Message, ". ")
			return "not scheduled: " + why
		}
	}
	if p.Status.Phase == corev1.PodRunning {
		return "running, not ready"
	}
	return string(p.Status.Phase)
}
