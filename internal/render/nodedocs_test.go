package render

import (
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/spec"
)

// TestNodeDocuments: tokens of the InitConfiguration go to the node that creates the
// cluster and to no other; what the documents say of a node is in its plan.
func TestNodeDocuments(t *testing.T) {
	text := string(spec.Example()) + `
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
bootstrapTokens: [{token: friend.aaaaaaaaaaaaaaaa, ttl: 1h}]
nodeRegistration: {ignorePreflightErrors: [NumCPU]}
patches: {directory: p}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
nodeRegistration: {kubeletExtraArgs: [{name: v, value: "3"}]}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ResetConfiguration
force: true
`
	k := known
	k.Patches = func(string) ([]bootplan.Patch, []error) {
		return []bootplan.Patch{{File: "etcd.yaml", Data: "spec: {priority: 1}\n"}}, nil
	}
	c, list := spec.Parse("cluster.yaml", []byte(text), k)
	if len(list) > 0 {
		t.Fatal(list)
	}
	threeNodes(c)
	for i, want := range []struct {
		tokens, patches, flags int
		ignored                string
	}{{2, 1, 0, "NumCPU"}, {1, 0, 1, ""}, {1, 0, 1, ""}} {
		r, _, inline := render(t, c, i)
		n := r.Plan.Node
		if len(r.Plan.Tokens) != want.tokens || len(n.Patches) != want.patches || len(n.KubeletExtraArgs) != want.flags || strings.Join(n.IgnorePreflightErrors, " ") != want.ignored || !n.Reset.Force {
			t.Errorf("node %d: %+v", i, n)
		}
		plan, err := bootplan.Parse([]byte(inline[bootplan.Path]))
		if err != nil || len(plan.Node.Patches) != want.patches {
			t.Errorf("node %d: %v", i, err)
		}
		if i == 0 && !plan.Tokens[1].Expires.Equal(fixture(t).Created().Add(time.Hour)) {
			t.Errorf("the token's life does not count from the cluster's creation: %v", plan.Tokens[1])
		}
	}
}
