//go:build boot && long

package qemutests

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestMixedCluster boots a control plane of amd64 and a worker of each other architecture
// out of one cluster file: each runs the images of its own architecture.
func TestMixedCluster(t *testing.T) {
	c := bakeNetwork(t, "", "cp-1", "worker-1:arm64", "worker-2:arm")
	// One after the other, so that the times of one are not those of all.
	for i, name := range c.names {
		c.start(t, name)
		c.ready(t, 30*time.Minute, c.names[:i+1]...)
	}
	for _, want := range []struct{ name, arch, machine string }{
		{"cp-1", "amd64", "x86_64"},
		{"worker-1", "arm64", "aarch64"},
		{"worker-2", "arm", "armv7l"},
	} {
		t.Run(want.name, func(t *testing.T) {
			n, err := c.client.CoreV1().Nodes().Get(c.within(t, time.Minute), want.name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got := n.Status.NodeInfo.Architecture; got != want.arch {
				t.Errorf("the kubelet says %s, want %s", got, want.arch)
			}
			if got := n.Labels["kubernetes.io/arch"]; got != want.arch {
				t.Errorf("the node is labelled %s, want %s", got, want.arch)
			}
			node := c.node(t, want.name)
			if err := node.ssh.Wait(c.within(t, 3*time.Minute)); err != nil {
				t.Fatal(err)
			}
			if got := node.sh(t, "uname -m"); got != want.machine {
				t.Errorf("the processor is %s, want %s", got, want.machine)
			}
			t.Logf("phases:\n%s", node.sh(t, "firstboot status"))
			checkNoFailedUnits(t, node)
		})
	}
	t.Run("pods that run everywhere run on all", func(t *testing.T) {
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
			if len(on) != len(c.names) {
				t.Errorf("%s runs on %v, want all nodes", app, on)
			}
		}
	})
	t.Run("services across nodes", func(t *testing.T) { checkAcrossNodes(t, c, c.names...) })
}
