//go:build boot && long

package qemutests

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestMixedCluster boots a control plane of amd64 and a worker of arm64 out of one cluster
// file: each runs the images of its own architecture.
func TestMixedCluster(t *testing.T) {
	c := bakeNetwork(t, "", "cp-1", "worker-1:arm64")
	c.start(t, c.names...)
	c.ready(t, 40*time.Minute, c.names...)
	for name, want := range map[string][2]string{"cp-1": {"amd64", "x86_64"}, "worker-1": {"arm64", "aarch64"}} {
		t.Run(name, func(t *testing.T) {
			n, err := c.client.CoreV1().Nodes().Get(c.within(t, time.Minute), name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got := n.Status.NodeInfo.Architecture; got != want[0] {
				t.Errorf("the kubelet says %s, want %s", got, want[0])
			}
			if got := n.Labels["kubernetes.io/arch"]; got != want[0] {
				t.Errorf("the node is labelled %s, want %s", got, want[0])
			}
			node := c.node(t, name)
			if err := node.ssh.Wait(c.within(t, 3*time.Minute)); err != nil {
				t.Fatal(err)
			}
			if got := node.sh(t, "uname -m"); got != want[1] {
				t.Errorf("the processor is %s, want %s", got, want[1])
			}
			checkNoFailedUnits(t, node)
		})
	}
	t.Run("pods that run everywhere run on both", func(t *testing.T) {
		for _, app := range []string{"kube-proxy", "kube-flannel-ds"} {
			pods, err := c.client.CoreV1().Pods("").List(c.within(t, time.Minute), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			on := map[string]bool{}
			for _, p := range pods.Items {
				if strings.HasPrefix(p.Name, app+"-") {
					on[p.Spec.NodeName] = true
				}
			}
			if len(on) != 2 {
				t.Errorf("%s runs on %v, want both nodes", app, on)
			}
		}
	})
}
