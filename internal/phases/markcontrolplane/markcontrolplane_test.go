package markcontrolplane

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kiln-os/kiln/internal/apitest"
	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/phase"
)

func TestTaints(t *testing.T) {
	const notReady = "node.kubernetes.io/not-ready:NoSchedule"
	for _, tc := range []struct {
		name string
		plan []bootplan.Taint
		have []corev1.Taint
		want []string
	}{
		{"default", nil, nil, []string{"node-role.kubernetes.io/control-plane:NoSchedule"}},
		{"default beside another", nil, []corev1.Taint{{Key: "node.kubernetes.io/not-ready", Effect: "NoSchedule"}},
			[]string{"node-role.kubernetes.io/control-plane:NoSchedule", notReady}},
		{"none", []bootplan.Taint{}, []corev1.Taint{{Key: "node.kubernetes.io/not-ready", Effect: "NoSchedule"}}, []string{notReady}},
		{"of the plan", []bootplan.Taint{{Key: "gpu", Value: "a", Effect: "NoExecute"}, {Key: "gpu", Effect: "NoSchedule"}}, nil,
			[]string{"gpu=a:NoExecute", "gpu:NoSchedule"}},
		{"with another value", []bootplan.Taint{{Key: "gpu", Value: "b", Effect: "NoExecute"}}, []corev1.Taint{{Key: "gpu", Value: "a", Effect: "NoExecute"}},
			[]string{"gpu=b:NoExecute"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := apitest.Config("192.0.2.10")
			cfg.Plan.Node.Taints = tc.plan
			n := &corev1.Node{
				ObjectMeta: metav1.ObjectMeta{Name: "cp1", Labels: map[string]string{corev1.LabelHostname: "cp1"}},
				Spec:       corev1.NodeSpec{Taints: tc.have},
			}
			if !mark(n, cfg) {
				t.Error("an unmarked node is left alone")
			}
			var got []string
			for _, x := range n.Spec.Taints {
				got = append(got, x.ToString())
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("taints %v, want %v", got, tc.want)
			}
			slices.Reverse(n.Spec.Taints)
			if mark(n, cfg) {
				t.Error("a marked node is marked again")
			}
		})
	}
}

// TestConcurrentUpdate: what a controller adds between reading and writing stays.
func TestConcurrentUpdate(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "cp1", Labels: map[string]string{corev1.LabelHostname: "cp1"}}}
	client := fake.NewClientset(node)
	cfg, r := apitest.Config("192.0.2.10"), phase.NewPrinter(os.Stderr)
	first := true
	client.PrependReactor("update", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) {
		if !first {
			return false, nil, nil
		}
		first = false
		other := node.DeepCopy()
		other.Spec.Taints = []corev1.Taint{{Key: "node.kubernetes.io/unreachable", Effect: "NoSchedule"}}
		if err := client.Tracker().Update(corev1.SchemeGroupVersion.WithResource("nodes"), other, ""); err != nil {
			t.Error(err)
		}
		return true, nil, apierrors.NewConflict(schema.GroupResource{Resource: "nodes"}, "cp1", errors.New("modified"))
	})
	if err := Run(context.Background(), cfg, host.Paths{}, kubeapi.New(client, time.Minute, r), r); err != nil {
		t.Fatal(err)
	}
	got, err := client.CoreV1().Nodes().Get(t.Context(), "cp1", metav1.GetOptions{})
	if err != nil || len(got.Spec.Taints) != 2 {
		t.Errorf("taints %v, %v", got.Spec.Taints, err)
	}
}
