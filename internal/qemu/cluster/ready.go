package cluster

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/client-go/kubernetes"
)

// poll is how often the API is asked. A boot takes minutes; asking more often
// would only slow an emulated machine down.
const poll = 2 * time.Second

// State is what the API server says about the cluster at one moment.
type State struct {
	Nodes       []corev1.Node
	Pods        []corev1.Pod
	Deployments []appsv1.Deployment
	DaemonSets  []appsv1.DaemonSet
}

// Get reads the state of all namespaces.
func Get(ctx context.Context, c kubernetes.Interface) (State, error) {
	// A request that hangs, as they do while a machine reboots, is asked again.
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var s State
	nodes, err := c.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return s, err
	}
	pods, err := c.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return s, err
	}
	deployments, err := c.AppsV1().Deployments("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return s, err
	}
	daemonSets, err := c.AppsV1().DaemonSets("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return s, err
	}
	return State{nodes.Items, pods.Items, deployments.Items, daemonSets.Items}, nil
}

// NodeReady reports whether the node's kubelet says it is ready, and otherwise why not.
func NodeReady(n corev1.Node) (bool, string) {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue, oneLine(c.Message)
		}
	}
	return false, "the kubelet has not reported yet"
}

// PodTrouble says what keeps a pod from being fully up; "" if nothing does.
func PodTrouble(p corev1.Pod) string {
	if p.Status.Phase == corev1.PodSucceeded {
		return ""
	}
	for _, cs := range append(append([]corev1.ContainerStatus(nil), p.Status.InitContainerStatuses...), p.Status.ContainerStatuses...) {
		switch {
		case cs.State.Waiting != nil:
			return oneLine(fmt.Sprintf("%s: %s: %s %s", p.Status.Phase, cs.Name, cs.State.Waiting.Reason, cs.State.Waiting.Message))
		case cs.State.Terminated != nil && cs.State.Terminated.ExitCode != 0:
			return oneLine(fmt.Sprintf("%s: %s ended with code %d %s", p.Status.Phase, cs.Name, cs.State.Terminated.ExitCode, cs.State.Terminated.Reason))
		}
	}
	if p.Status.Phase != corev1.PodRunning {
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status != corev1.ConditionTrue {
				return oneLine(fmt.Sprintf("%s: %s", p.Status.Phase, c.Message))
			}
		}
		return string(p.Status.Phase)
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status != corev1.ConditionTrue {
			return "running, not ready"
		}
	}
	return ""
}

// Pending lists, sorted, what the cluster still lacks to be ready: each of the
// named nodes Ready, every pod running and ready, and every deployment and
// daemon set complete. Without nodes, any one node will do.
func (s State) Pending(nodes ...string) []string {
	var out []string
	add := func(format string, a ...any) { out = append(out, fmt.Sprintf(format, a...)) }
	byName := map[string]corev1.Node{}
	for _, n := range s.Nodes {
		byName[n.Name] = n
		if ready, why := NodeReady(n); !ready {
			add("node %s: %s", n.Name, why)
		}
	}
	for _, n := range nodes {
		if _, ok := byName[n]; !ok {
			add("node %s: not registered", n)
		}
	}
	if len(s.Nodes) == 0 && len(nodes) == 0 {
		add("no node is registered")
	}
	if len(s.Pods) == 0 {
		add("there are no pods")
	}
	for _, p := range s.Pods {
		if why := PodTrouble(p); why != "" {
			add("pod %s/%s: %s", p.Namespace, p.Name, why)
		}
	}
	// An object that its controller has not looked at yet has no pods at all,
	// which must not count as "all of its pods run".
	for _, d := range s.Deployments {
		want := int32(1)
		if d.Spec.Replicas != nil {
			want = *d.Spec.Replicas
		}
		if d.Status.ObservedGeneration < d.Generation || d.Status.AvailableReplicas < want {
			add("deployment %s/%s: %d of %d available", d.Namespace, d.Name, d.Status.AvailableReplicas, want)
		}
	}
	for _, d := range s.DaemonSets {
		want := d.Status.DesiredNumberScheduled
		if d.Status.ObservedGeneration < d.Generation || want == 0 && s.wantedBy(d) || d.Status.NumberReady < want {
			add("daemon set %s/%s: %d of %d ready", d.Namespace, d.Name, d.Status.NumberReady, want)
		}
	}
	sort.Strings(out)
	return out
}

// wantedBy reports whether one of the nodes is of those that a daemon set is for, by
// its node selector and affinity. Until its controller has seen that node the daemon set
// has no pods either, which is not the same as having all.
func (s State) wantedBy(d appsv1.DaemonSet) bool {
	spec := d.Spec.Template.Spec
	terms := []corev1.NodeSelectorTerm{{}}
	if a := spec.Affinity; a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		terms = a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	}
	return slices.ContainsFunc(s.Nodes, func(n corev1.Node) bool {
		return labels.SelectorFromSet(spec.NodeSelector).Matches(labels.Set(n.Labels)) &&
			slices.ContainsFunc(terms, func(t corev1.NodeSelectorTerm) bool { return matches(t, n) })
	})
}

// matches compares a node's labels with a term. What cannot be compared may match.
func matches(t corev1.NodeSelectorTerm, n corev1.Node) bool {
	operators := map[corev1.NodeSelectorOperator]selection.Operator{
		corev1.NodeSelectorOpIn: selection.In, corev1.NodeSelectorOpNotIn: selection.NotIn,
		corev1.NodeSelectorOpExists: selection.Exists, corev1.NodeSelectorOpDoesNotExist: selection.DoesNotExist,
		corev1.NodeSelectorOpGt: selection.GreaterThan, corev1.NodeSelectorOpLt: selection.LessThan,
	}
	for _, e := range t.MatchExpressions {
		r, err := labels.NewRequirement(e.Key, operators[e.Operator], e.Values)
		if err == nil && !r.Matches(labels.Set(n.Labels)) {
			return false
		}
	}
	return true
}

// WaitReady waits until nothing is pending and a DNS deployment exists, and
// returns that state. progress, if set, gets a line whenever what is waited for
// changes. When ctx ends the error names what was still missing.
func WaitReady(ctx context.Context, c kubernetes.Interface, progress func(string), nodes ...string) (State, error) {
	return waitFor(ctx, c, progress, func(s State) []string {
		pending := s.Pending(nodes...)
		// The add-ons are the last thing a first boot makes. Before they exist,
		// "everything runs" is true too early.
		if len(s.Deployments) == 0 || len(s.DaemonSets) == 0 {
			pending = append(pending, "the add-ons are not there yet")
		}
		return pending
	})
}

// WaitBooted waits until the node's kubelet reports the given boot id
// (/proc/sys/kernel/random/boot_id) and everything is ready. After a reboot the
// API shows the state of the previous boot until the kubelet has reported, and it
// reports the pods after the node: a pod that still has one of the containers in
// before, the state when the node went down, is not reported yet.
func WaitBooted(ctx context.Context, c kubernetes.Interface, progress func(string), node, bootID string, before State) (State, error) {
	return waitFor(ctx, c, progress, func(s State) []string {
		for _, n := range s.Nodes {
			if n.Name == node && n.Status.NodeInfo.BootID != bootID {
				return []string{fmt.Sprintf("node %s: no report from its kubelet since boot %s", node, bootID)}
			}
		}
		return append(s.notReported(node, before), s.Pending(node)...)
	})
}

// notReported lists, sorted, the node's pods whose containers are those of before.
func (s State) notReported(node string, before State) []string {
	old := map[string]bool{}
	for _, p := range before.Pods {
		for _, c := range p.Status.ContainerStatuses {
			if p.Spec.NodeName == node && c.State.Running != nil {
				old[c.ContainerID] = true
			}
		}
	}
	var out []string
	for _, p := range s.Pods {
		if slices.ContainsFunc(p.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool {
			return c.State.Running != nil && old[c.ContainerID]
		}) {
			out = append(out, fmt.Sprintf("pod %s/%s: no report since the boot", p.Namespace, p.Name))
		}
	}
	sort.Strings(out)
	return out
}

func waitFor(ctx context.Context, c kubernetes.Interface, progress func(string), pending func(State) []string) (State, error) {
	last := ""
	for {
		s, err := Get(ctx, c)
		var missing []string
		if err != nil {
			missing = []string{"API server: " + oneLine(err.Error())}
		} else if missing = pending(s); len(missing) == 0 {
			return s, nil
		}
		if now := strings.Join(missing, "; "); now != last {
			// An API call that was cut off by ctx says nothing about the cluster.
			if ctx.Err() == nil || last == "" {
				last = now
			}
			if progress != nil && ctx.Err() == nil {
				progress(now)
			}
		}
		select {
		case <-ctx.Done():
			return s, fmt.Errorf("cluster is not ready: %w; waiting for: %s", context.Cause(ctx), last)
		case <-time.After(poll):
		}
	}
}

// oneLine shortens a message for a progress line.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "…"
	}
	return s
}
