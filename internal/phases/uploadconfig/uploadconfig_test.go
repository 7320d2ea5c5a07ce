package uploadconfig

import (
	"testing"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kiln-os/kiln/internal/apitest"
)

// TestAsKubeadm compares kubelet-config, its hash included, with what
// "kubeadm init phase upload-config kubelet" stores in a cluster.
func TestAsKubeadm(t *testing.T) {
	uploads, err := render(apitest.Config("192.0.2.10"))
	if err != nil {
		t.Fatal(err)
	}
	apitest.SameObjects(t, apitest.Manifests(t, "testdata/kubelet-config-kubeadm-v1.37.2.json"),
		map[string]runtime.Object{"ConfigMap kubelet-config": uploads[1].configMap})
}
