//go:build boot && long

package qemutests

import (
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestAddressFamilies boots a control plane and a worker that have IPv6 alone, and
// two that have both families.
func TestAddressFamilies(t *testing.T) {
	for _, f := range []struct {
		name string
		on   families
		more string
		pods []bool // whether a pod's addresses are IPv6, in their order
	}{
		{"IPv6 alone", ipv6, "", []bool{true}},
		{"dual stack", dual, `network:
  podSubnets: [10.244.0.0/16, "fd00:10:244::/56"]
  serviceSubnets: [10.96.0.0/12, "fd00:10:96::/112"]
`, []bool{false, true}},
	} {
		t.Run(f.name, func(t *testing.T) {
			c := bakeNetworkOn(t, f.on, f.more, "cp-1", "worker-1")
			c.start(t, "cp-1", "worker-1")
			state := c.ready(t, 20*time.Minute, "cp-1", "worker-1")
			for _, n := range state.Nodes {
				checkFamilies(t, "node "+n.Name, internal(n), f.pods)
			}
			dns := 0
			for _, p := range state.Pods {
				if p.Labels["k8s-app"] != "kube-dns" {
					continue
				}
				dns++
				var ips []string
				for _, ip := range p.Status.PodIPs {
					ips = append(ips, ip.IP)
				}
				checkFamilies(t, "pod "+p.Name, ips, f.pods)
			}
			if dns == 0 {
				t.Error("there is no pod of CoreDNS")
			}
			checkAcrossNodes(t, c, "cp-1", "worker-1")
			svc, err := c.client.CoreV1().Services(metav1.NamespaceDefault).Get(c.within(t, time.Minute), "kubernetes", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			checkFamilies(t, "service kubernetes", svc.Spec.ClusterIPs, f.pods[:1])
		})
	}
}

// internal returns a node's addresses.
func internal(n corev1.Node) []string {
	var out []string
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			out = append(out, a.Address)
		}
	}
	return out
}

func checkFamilies(t *testing.T, what string, addresses []string, v6 []bool) {
	t.Helper()
	ok := len(addresses) == len(v6)
	for i := 0; ok && i < len(v6); i++ {
		a, err := netip.ParseAddr(addresses[i])
		ok = err == nil && a.Is6() == v6[i]
	}
	if !ok {
		t.Errorf("%s has the addresses %v, want families (IPv6: %v)", what, addresses, v6)
	}
}
