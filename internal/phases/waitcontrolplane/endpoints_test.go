package waitcontrolplane

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/kiln-os/kiln/internal/apitest"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeletconfig"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/staticpod"
)

// written is a node with the files of the phases control-plane and kubelet-start.
func written(t *testing.T, cfg nodeconfig.Config, extra map[string][]string) host.Paths {
	t.Helper()
	paths := host.Paths{Root: t.TempDir()}
	pods, err := staticpod.ControlPlane(cfg, paths)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pods {
		p.Spec.Containers[0].Command = append(p.Spec.Containers[0].Command, extra[p.Name]...)
		if _, err := staticpod.Write(paths, p); err != nil {
			t.Fatal(err)
		}
	}
	kc, err := kubeletconfig.ForNode(cfg)
	if err != nil {
		t.Fatal(err)
	}
	data, err := kubeletconfig.Marshal(kc)
	if err != nil {
		t.Fatal(err)
	}
	path := paths.Kubelet("config.yaml")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return paths
}

func TestEndpoints(t *testing.T) {
	cfg := apitest.Config("192.0.2.10")
	for _, tc := range []struct {
		name  string
		extra map[string][]string
		want  [3]string // kubelet, controller manager, scheduler
	}{
		{"defaults", nil, [3]string{"http://127.0.0.1:10248/healthz", "https://127.0.0.1:10257/healthz", "https://127.0.0.1:10259/livez"}},
		{"moved", map[string][]string{
			"kube-controller-manager": {"--bind-address=::1"}, "kube-scheduler": {"--secure-port=20259"},
		}, [3]string{"http://127.0.0.1:10248/healthz", "https://[::1]:10257/healthz", "https://127.0.0.1:20259/livez"}},
	} {
		paths := written(t, cfg, tc.extra)
		var got [3]string
		var errs [3]error
		got[0], errs[0] = kubeletEndpoint(paths)
		got[1], errs[1] = componentEndpoint(paths, staticpod.ControllerManager)
		got[2], errs[2] = componentEndpoint(paths, staticpod.Scheduler)
		if err := errors.Join(errs[:]...); err != nil || got != tc.want {
			t.Errorf("%s: %+v, %v", tc.name, got, err)
		}
	}
	paths := written(t, cfg, nil)
	if err := os.Remove(filepath.Join(paths.Manifests(), "kube-scheduler.yaml")); err != nil {
		t.Fatal(err)
	}
	if _, err := componentEndpoint(paths, staticpod.Scheduler); !os.IsNotExist(err) {
		t.Errorf("without a manifest: %v", err)
	}
}

func TestSummary(t *testing.T) {
	for in, want := range map[string]string{
		"[+]ping ok\n[-]etcd failed: reason withheld\n[-]poststarthook/rbac failed: not finished\nlivez check failed\n": "etcd failed: reason withheld, poststarthook/rbac failed: not finished",
		"kubelet is not healthy yet\n": "kubelet is not healthy yet",
		"":                             "",
	} {
		if got := summary(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}
