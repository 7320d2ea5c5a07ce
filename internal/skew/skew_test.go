package skew

import (
	"strings"
	"testing"

	"github.com/kiln-os/kiln/internal/bootplan"
)

func TestControlPlane(t *testing.T) {
	for _, tc := range []struct{ version, newer, tooOld string }{
		{"v1.37.2", "", ""},
		{"v1.36.9", "", ""},
		{"v1.37.0-rc.1", "", ""},
		{"v1.38.0", "is newer than the 1.37 that this firstboot knows", ""},
		{"v1.35.9", "", "is too old: this firstboot is kubeadm 1.37, which works with 1.36 and later"},
		{"v2.37.0", "is newer", "is too old"},
		{"stable-1", `version of the control plane: "stable-1" is not one`, `"stable-1" is not one`},
		{"", `"" is not one, such as v1.37.0`, `"" is not one`},
	} {
		check(t, "Newer "+tc.version, Newer(tc.version), tc.newer)
		check(t, "TooOld "+tc.version, TooOld(tc.version), tc.tooOld)
	}
}

func TestKubelet(t *testing.T) {
	for _, tc := range []struct{ kubelet, controlPlane, want string }{
		{"v1.37.2", "v1.37.2", ""},
		{"v1.34.0", "v1.37.2", ""},
		{"v1.33.9", "v1.37.2", "more than 3 minor versions older than the control plane's v1.37.2; build the node with Kubernetes 1.34 or later"},
		{"v1.37.3", "v1.37.2", "newer than the control plane's v1.37.2"},
		{"v1.38.0", "v1.37.2", "upgrade the control plane first"},
		{"x", "v1.37.2", "version of the kubelet"},
		{"v1.37.2", "x", "version of the control plane"},
	} {
		check(t, tc.kubelet+" "+tc.controlPlane, Kubelet(tc.kubelet, tc.controlPlane), tc.want)
	}
	check(t, "supported", Supported("v1.34.0"), "")
	check(t, "unsupported", Supported("v1.33.7"), "starts kubelets of 1.34 and later")
	check(t, "no version", Supported("1"), "is not one")
}

func TestJoin(t *testing.T) {
	const cp, worker = bootplan.RoleJoinControlPlane, bootplan.RoleJoinWorker
	for _, tc := range []struct {
		role                bootplan.Role
		node, cluster, want string
	}{
		{worker, "v1.37.2", "v1.37.2", ""},
		{worker, "v1.37.2", "v1.37.0", ""},
		{worker, "v1.37.2", "v1.36.9", "the kubelet is v1.37.2, newer than the control plane's v1.36.9"},
		{worker, "v1.36.0", "v1.37.2", ""},
		{worker, "v1.35.0", "v1.38.0", ""},
		{worker, "v1.37.2", "v1.35.0", "is too old"},
		{worker, "v1.33.0", "v1.37.2", "more than 3 minor versions older"},
		{worker, "x", "v1.37.2", "version of the node"},
		{cp, "v1.37.2", "v1.37.0", ""},
		{cp, "v1.37.0", "v1.37.2", ""},
		{cp, "v1.36.4", "v1.37.2", "control planes of a cluster are of one minor version; build the node with Kubernetes 1.37"},
		{cp, "v1.37.2", "v1.36.4", "one minor version; upgrade the cluster first"},
		{cp, "v1.37.2", "v1.38.0", "is newer than the 1.37"},
		{cp, "v1.37.2", "v1.30.0", "is too old"},
		{cp, "v1.37.2", "", `"" is not one`},
	} {
		check(t, string(tc.role)+" "+tc.node+" "+tc.cluster, Join(tc.role, tc.node, tc.cluster), tc.want)
	}
}

// check wants no error for "", else one with that text.
func check(t *testing.T, what string, err error, want string) {
	t.Helper()
	if want == "" && err != nil {
		t.Errorf("%s: %v", what, err)
	}
	if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("%s: %v, want %q", what, err, want)
	}
}
