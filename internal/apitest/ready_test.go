//go:build integration

package apitest

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kiln-os/kiln/internal/phases/ready"
	"github.com/kiln-os/kiln/internal/staticpod"
)

// checkReady plays the kubelet: with its rights it reports the Node and runs its
// pods, one thing after the other, while the phase waits.
func checkReady(t *testing.T, c *Cluster, admin kubernetes.Interface) {
	kubelet := clientOf(t, c, "kubelet.conf")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	failed := make(chan error, 1)
	go func() { failed <- playKubelet(ctx, c, kubelet, admin) }()
	said := call(t, c, "ready", ready.Run)
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"waiting for node cp1 and its pods (0s of 1m)", "etcd has 0 of 1 pods", "coredns-", "not scheduled: ", "pods not ready: ",
		"the kubelet has not reported the node's state",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("ready did not say %q:\n%s", want, said)
		}
	}
}

func playKubelet(ctx context.Context, c *Cluster, kubelet, admin kubernetes.Interface) error {
	time.Sleep(3 * time.Second) // the phase sees nothing ready
	node, err := kubelet.CoreV1().Nodes().Get(ctx, c.Config.NodeName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	yes := true
	for _, name := range []string{staticpod.Etcd, staticpod.APIServer, staticpod.ControllerManager, staticpod.Scheduler} {
		mirror := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: metav1.NamespaceSystem, Name: name + "-" + node.Name,
				Labels:          map[string]string{"component": name, "tier": "control-plane"},
				Annotations:     map[string]string{corev1.MirrorPodAnnotationKey: "hash"},
				OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID, Controller: &yes}},
			},
			Spec: corev1.PodSpec{NodeName: node.Name, HostNetwork: true, Containers: []corev1.Container{{Name: name, Image: name}}},
		}
		if _, err := kubelet.CoreV1().Pods(mirror.Namespace).Create(ctx, mirror, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	status := []byte(`{"status":{"allocatable":{"cpu":"4","memory":"4Gi","pods":"110"},"capacity":{"cpu":"4","memory":"4Gi","pods":"110"},"conditions":[{"type":"Ready","status":"True","reason":"KubeletReady","message":"kubelet is posting ready status"}]}}`)
	if _, err := kubelet.CoreV1().Nodes().Patch(ctx, node.Name, "application/strategic-merge-patch+json", status, metav1.PatchOptions{}, "status"); err != nil {
		return err
	}
	// The scheduler places CoreDNS once the Node is Ready; what is placed runs.
	running := map[string]bool{}
	for len(running) < 8 {
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, ns := range []string{metav1.NamespaceSystem, "kube-flannel"} {
			pods, err := admin.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + node.Name})
			if err != nil {
				return err
			}
			for _, p := range pods.Items {
				if running[p.Name] {
					continue
				}
				p.Status.Phase = corev1.PodRunning
				p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue})
				if _, err := kubelet.CoreV1().Pods(ns).UpdateStatus(ctx, &p, metav1.UpdateOptions{}); err != nil {
					return err
				}
				running[p.Name] = true
			}
		}
		time.Sleep(300 * time.Millisecond)
	}
	return nil
}
