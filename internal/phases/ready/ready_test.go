package ready

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kiln-os/kiln/internal/apitest"
	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
)

func pod(namespace, name, node string, labels map[string]string, ok bool) corev1.Pod {
	p := corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels},
		Spec:       corev1.PodSpec{NodeName: node},
		Status:     corev1.PodStatus{Phase: corev1.PodPending},
	}
	if ok {
		p.Status.Phase = corev1.PodRunning
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	}
	return p
}

// complete are the pods of a node that is set up.
func complete() []corev1.Pod {
	var out []corev1.Pod
	for _, c := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
		out = append(out, pod("kube-system", c+"-cp1", "cp1", map[string]string{"component": c, "tier": "control-plane"}, true))
	}
	dns := map[string]string{"k8s-app": "kube-dns"}
	return append(out,
		pod("kube-system", "kube-proxy-a", "cp1", map[string]string{"k8s-app": "kube-proxy"}, true),
		pod("kube-flannel", "kube-flannel-ds-a", "cp1", map[string]string{"app": "flannel"}, true),
		pod("kube-system", "coredns-a", "cp1", dns, true), pod("kube-system", "coredns-b", "cp1", dns, true))
}

func TestPodTrouble(t *testing.T) {
	waiting := func(reason string) corev1.PodStatus {
		return corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{
			{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}},
		}}
	}
	for _, tc := range []struct {
		name   string
		change func([]corev1.Pod) []corev1.Pod
		want   string
	}{
		{"all ready", func(p []corev1.Pod) []corev1.Pod { return p }, ""},
		{"two are not", func(p []corev1.Pod) []corev1.Pod {
			p[6].Status, p[7].Status = waiting("ContainerCreating"), waiting("ErrImageNeverPull")
			return p
		}, "2 of 8 pods not ready: coredns-a ContainerCreating, coredns-b ErrImageNeverPull"},
		{"crashed", func(p []corev1.Pod) []corev1.Pod {
			p[5].Status = corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{
				{State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Error", ExitCode: 2}}},
			}}
			return p
		}, "1 of 8 pods not ready: kube-flannel-ds-a Error (exit code 2)"},
		{"readiness probe fails", func(p []corev1.Pod) []corev1.Pod {
			p[6].Status.Conditions[0].Status = corev1.ConditionFalse
			return p
		}, "1 of 8 pods not ready: coredns-a running, not ready"},
		{"not scheduled", func(p []corev1.Pod) []corev1.Pod {
			p[6].Spec.NodeName = ""
			p[6].Status = corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{
				{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "0/1 nodes are available: 1 Too many pods. preemption: not helpful."},
			}}
			return p
		}, "1 of 8 pods not ready: coredns-a not scheduled: 0/1 nodes are available: 1 Too many pods"},
		{"a controller has not made its pods", func(p []corev1.Pod) []corev1.Pod { return p[:6] }, "coredns has 0 of 2 pods"},
		{"no mirror pod yet", func(p []corev1.Pod) []corev1.Pod { return p[1:] }, "etcd has 0 of 1 pods"},
		{"another node's pods", func(p []corev1.Pod) []corev1.Pod {
			p[7].Spec.NodeName = "worker1"
			return append(p, pod("kube-system", "kube-proxy-b", "worker1", map[string]string{"k8s-app": "kube-proxy"}, false))
		}, ""},
		{"kube-proxy on another node only", func(p []corev1.Pod) []corev1.Pod {
			p[4].Spec.NodeName = "worker1"
			return p
		}, "kube-proxy has 0 of 1 pods"},
		{"a finished and a deleted pod", func(p []corev1.Pod) []corev1.Pod {
			done, gone := pod("kube-system", "job", "cp1", nil, false), pod("kube-system", "old", "cp1", nil, false)
			done.Status.Phase = corev1.PodSucceeded
			now := metav1.Now()
			gone.DeletionTimestamp = &now
			return append(p, done, gone)
		}, ""},
	} {
		if got := strings.Join(podTrouble(apitest.Config("192.0.2.10"), tc.change(complete())), "; "); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestNodeTrouble(t *testing.T) {
	condition := func(s corev1.ConditionStatus, message string) corev1.Node {
		return corev1.Node{Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
			{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionTrue}, {Type: corev1.NodeReady, Status: s, Message: message},
		}}}
	}
	for _, tc := range []struct {
		name string
		node corev1.Node
		want string
	}{
		{"ready", condition(corev1.ConditionTrue, "kubelet is posting ready status"), ""},
		{"not ready", condition(corev1.ConditionFalse, "cni plugin not initialized"), "the node is not ready: cni plugin not initialized"},
		{"unknown", condition(corev1.ConditionUnknown, "Kubelet stopped posting node status."), "the node is not ready: Kubelet stopped posting node status."},
		{"new", corev1.Node{}, "the kubelet has not reported the node's state"},
	} {
		if got := nodeTrouble(tc.node); got != tc.want {
			t.Errorf("%s: %q", tc.name, got)
		}
	}
}

func TestDisabledAddOnsAreNotWaitedFor(t *testing.T) {
	cfg := apitest.Config("192.0.2.10")
	cfg.Plan.Cluster.Kubeadm.Proxy.Disabled, cfg.Plan.Cluster.Kubeadm.DNS.Disabled = true, true
	for _, w := range workloads(cfg) {
		if w.name == "kube-proxy" || w.name == "coredns" {
			t.Errorf("%s is waited for", w.name)
		}
	}
}

// TestWorkloads: each role waits for what runs on its node, and no other.
func TestWorkloads(t *testing.T) {
	for role, want := range map[bootplan.Role]string{
		bootplan.RoleInit:             "etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy kube-flannel coredns",
		bootplan.RoleJoinControlPlane: "etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy kube-flannel",
		bootplan.RoleJoinWorker:       "kube-proxy kube-flannel",
	} {
		cfg := apitest.Config("192.0.2.10")
		cfg.Plan.Role = role
		names := func() string {
			var out []string
			for _, w := range workloads(cfg) {
				out = append(out, w.name)
			}
			return strings.Join(out, " ")
		}
		if got := names(); got != want {
			t.Errorf("%s: %s, want %s", role, got, want)
		}
		cfg.Plan.Cluster.Kubeadm.Etcd.External = &kubeadmapi.ExternalEtcd{}
		if got, want := names(), strings.TrimPrefix(want, "etcd "); got != want {
			t.Errorf("%s with an external etcd: %s, want %s", role, got, want)
		}
	}
}
