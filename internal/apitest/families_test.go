//go:build integration

package apitest

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/internal/staticpod"
)

// TestIPv6: a control plane at [::1] and a port of the user's, with IPv6 alone and
// with both families; patches and a token of an InitConfiguration on the way.
func TestIPv6(t *testing.T) {
	for _, tc := range []struct {
		name           string
		pods, services []string
		port           int
		masks          string // of the node's shares of the pod subnets
	}{
		{"alone", []string{"fd00:10:244::/56"}, []string{"fd00:10:96::/112"}, 16443, "/64"},
		{"first of both", []string{"fd00:10:244::/56", "10.244.0.0/16"}, []string{"fd00:10:96::/112", "10.96.0.0/16"}, 26443, "/64 /24"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			freePorts(t, "::1", tc.port, 2379, 2380, 2381, 10257, 10259)
			friend := bootplan.Token{ID: "friend", Secret: secret.FromString("0123456789abcdef"), Expires: time.Now().Add(time.Hour), Description: "for a friend",
				Usages: []string{"authentication"}, Groups: []string{"system:bootstrappers:friends"}}
			c := NewAt(t, "::1", func(p *bootplan.Plan) {
				p.Cluster.PodSubnets, p.Cluster.ServiceSubnets, p.Node.APIPort = tc.pods, tc.services, tc.port
				p.Tokens = append(p.Tokens, friend)
				p.Node.Patches = []bootplan.Patch{
					{File: "kube-scheduler+json.yaml", Data: "- {op: add, path: /spec/containers/0/command/-, value: --v=3}\n"},
					{File: "corednsdeployment.yaml", Data: "spec: {replicas: 3}\n"},
				}
			})
			c.StartKubelet()
			c.Start(t, staticpod.Etcd, staticpod.APIServer, staticpod.ControllerManager, staticpod.Scheduler)
			for _, p := range []string{"wait-control-plane", "upload-config", "bootstrap-token", "addon-coredns", "addon-kube-proxy", "addon-flannel"} {
				run(t, c, p)
			}
			registerNode(t, c)
			admin, ctx := clientOf(t, c, kubeapi.AdminConf), t.Context()

			for name, want := range map[string]string{"default/kubernetes": "fd00:10:96::1", "kube-system/kube-dns": "fd00:10:96::a"} {
				ns, n, _ := strings.Cut(name, "/")
				eventually(t, time.Minute, "the service "+name, func() (bool, error) {
					s, err := admin.CoreV1().Services(ns).Get(ctx, n, metav1.GetOptions{})
					return err == nil && s.Spec.ClusterIP == want && s.Spec.IPFamilies[0] == corev1.IPv6Protocol, err
				})
			}
			policy := corev1.IPFamilyPolicyPreferDualStack
			s, err := admin.CoreV1().Services("default").Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "both"}, Spec: corev1.ServiceSpec{
				IPFamilyPolicy: &policy, Ports: []corev1.ServicePort{{Port: 80}},
			}}, metav1.CreateOptions{})
			if err != nil || len(s.Spec.ClusterIPs) != len(tc.services) {
				t.Errorf("a service that prefers both families has %v, %v", s.Spec.ClusterIPs, err)
			}
			eventually(t, time.Minute, "the node's share of the pod subnets", func() (bool, error) {
				n, err := admin.CoreV1().Nodes().Get(ctx, c.Config.NodeName, metav1.GetOptions{})
				if err != nil || len(n.Spec.PodCIDRs) < len(tc.pods) {
					return false, err
				}
				var masks []string
				for _, cidr := range n.Spec.PodCIDRs {
					_, mask, _ := strings.Cut(cidr, "/")
					masks = append(masks, "/"+mask)
				}
				if got := strings.Join(masks, " "); got != tc.masks {
					t.Errorf("the node has %v", n.Spec.PodCIDRs)
				}
				return true, nil
			})
			info := configMap(t, admin, "kube-public", "cluster-info")
			if want := "server: https://" + c.Config.LocalAPIEndpoint(); !strings.Contains(info.Data["kubeconfig"], want) {
				t.Errorf("cluster-info does not name %s", want)
			}
			if _, signed := info.Data["jws-kubeconfig-friend"]; signed {
				t.Error("cluster-info is signed with a token that may not sign")
			}
			if cm := configMap(t, admin, "kube-flannel", "kube-flannel-cfg"); !strings.Contains(cm.Data["net-conf.json"], `"EnableIPv6": true`) {
				t.Errorf("flannel: %s", cm.Data["net-conf.json"])
			}
			tok, err := admin.CoreV1().Secrets("kube-system").Get(ctx, "bootstrap-token-friend", metav1.GetOptions{})
			if err != nil || string(tok.Data["auth-extra-groups"]) != "system:bootstrappers:friends" {
				t.Errorf("the friend's token: %v", err)
			}
			d, err := admin.AppsV1().Deployments("kube-system").Get(ctx, "coredns", metav1.GetOptions{})
			if err != nil || *d.Spec.Replicas != 3 {
				t.Errorf("CoreDNS is not patched: %v", err)
			}
			pod := Manifests(t, c.Paths.Manifests()+"/kube-scheduler.yaml")["Pod kube-scheduler"].(*corev1.Pod)
			if !slices.Contains(pod.Spec.Containers[0].Command, "--v=3") {
				t.Errorf("the scheduler is not patched: %v", pod.Spec.Containers[0].Command)
			}
		})
	}
}

// freePorts waits until nobody else of this machine has the ports.
func freePorts(t *testing.T, addr string, ports ...int) {
	t.Helper()
	for _, p := range ports {
		eventually(t, time.Minute, "a free port", func() (bool, error) {
			l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.ParseIP(addr), Port: p})
			if err != nil {
				return false, err
			}
			return true, l.Close()
		})
	}
}
