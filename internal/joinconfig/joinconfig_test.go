package joinconfig

import (
	"os"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/internal/apitest"
	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
)

func TestLoad(t *testing.T) {
	p := host.Paths{Root: t.TempDir()}
	cfg := apitest.Config("192.0.2.10")
	cfg.Plan.Role = bootplan.RoleJoinWorker
	if got, err := Load(cfg, p); err != nil || got.FromCluster || got.Plan.Cluster.Name != "kiln" {
		t.Errorf("before the cluster was asked: %+v, %v", got, err)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(p.Join(), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p.Join(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(ClusterFile, "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v1.37.2\nclusterName: other\n")
	if _, err := Load(cfg, p); err == nil || !strings.Contains(err.Error(), KubeletFile) {
		t.Errorf("without the kubelet's: %v", err)
	}
	write(KubeletFile, "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 50\n")
	got, err := Load(cfg, p)
	if err != nil || !got.FromCluster || got.Plan.Cluster.Name != "other" || !strings.Contains(string(got.Plan.Cluster.Kubelet), `"maxPods":50`) || got.Plan.Node.Name != "cp1" || got.Plan.Cluster.PodNetwork != "flannel" {
		t.Errorf("%+v, %v", got, err)
	}
	cfg.Plan.Role = bootplan.RoleInit
	if got, err := Load(cfg, p); err != nil || got.FromCluster {
		t.Errorf("a node that creates its cluster goes by %+v, %v", got, err)
	}
	cfg.Plan.Role = bootplan.RoleJoinControlPlane
	write(ClusterFile, "kind: [")
	if _, err := Load(cfg, p); err == nil || !strings.Contains(err.Error(), ClusterFile) {
		t.Errorf("a damaged file: %v", err)
	}
}
