package clusterconfig

import (
	"strings"
	"testing"

	"github.com/kiln-os/kiln/internal/bootplan"
)

func document(lines ...string) []byte {
	return []byte("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n" + strings.Join(lines, "\n") + "\n")
}

// TestCheck: the skew policy, and what only a control plane minds.
func TestCheck(t *testing.T) {
	const endpoint = "controlPlaneEndpoint: api.example.org:6443"
	for name, tc := range map[string]struct {
		role bootplan.Role
		own  string
		data []byte
		want string // "" if it may join
	}{
		"same version":              {bootplan.RoleJoinWorker, "v1.37.2", document("kubernetesVersion: v1.37.2"), ""},
		"older patch":               {bootplan.RoleJoinWorker, "v1.37.1", document("kubernetesVersion: v1.37.2"), ""},
		"three minors older":        {bootplan.RoleJoinWorker, "v1.34.0", document("kubernetesVersion: v1.37.2"), ""},
		"four minors older":         {bootplan.RoleJoinWorker, "v1.33.0", document("kubernetesVersion: v1.37.2"), "more than 3 minor versions older"},
		"newer patch":               {bootplan.RoleJoinWorker, "v1.37.3", document("kubernetesVersion: v1.37.2"), ""},
		"newer minor":               {bootplan.RoleJoinWorker, "v1.37.2", document("kubernetesVersion: v1.36.4"), "the kubelet is v1.37.2, newer than the control plane's v1.36.4"},
		"control plane":             {bootplan.RoleJoinControlPlane, "v1.37.2", document("kubernetesVersion: v1.37.2", endpoint), ""},
		"older control plane":       {bootplan.RoleJoinControlPlane, "v1.37.1", document("kubernetesVersion: v1.37.2", endpoint), "this image holds v1.37.1"},
		"second without endpoint":   {bootplan.RoleJoinControlPlane, "v1.37.2", document("kubernetesVersion: v1.37.2"), "has no controlPlaneEndpoint"},
		"keys of a later version":   {bootplan.RoleJoinWorker, "v1.37.2", document("kubernetesVersion: v1.37.2", "later: {a: b}"), ""},
		"older API":                 {bootplan.RoleJoinWorker, "v1.37.2", []byte("apiVersion: kubeadm.k8s.io/v1beta3\nkind: ClusterConfiguration\n"), `apiVersion "kubeadm.k8s.io/v1beta3"`},
		"no version":                {bootplan.RoleJoinWorker, "v1.37.2", document(), "kubernetesVersion is missing"},
		"label instead of version":  {bootplan.RoleJoinWorker, "v1.37.2", document("kubernetesVersion: stable-1"), "the cluster's Kubernetes version"},
		"bad subnet":                {bootplan.RoleJoinWorker, "v1.37.2", document("kubernetesVersion: v1.37.2", "networking: {podSubnet: 10.0.0.0}"), "networking.podSubnet"},
		"something else altogether": {bootplan.RoleJoinWorker, "v1.37.2", []byte("["), "ClusterConfiguration"},
	} {
		err := check(bootplan.Plan{Role: tc.role, Cluster: bootplan.Cluster{KubernetesVersion: tc.own}}, tc.data)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q", name, err, tc.want)
		}
	}
}

// TestKnown: what a newer cluster's kubelets know and this one does not is left out.
func TestKnown(t *testing.T) {
	got, err := known([]byte("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 50\nlater: {a: b}\n"))
	if err != nil || !strings.Contains(string(got), "maxPods: 50\n") || strings.Contains(string(got), "later") {
		t.Errorf("%v\n%s", err, got)
	}
	if _, err := known([]byte("maxPods: many\n")); err == nil {
		t.Error("a wrong type is accepted")
	}
}
