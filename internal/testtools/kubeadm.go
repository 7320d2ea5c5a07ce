package testtools

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/kiln-os/kiln/internal/cache"
	"github.com/kiln-os/kiln/payload"
)

// kubeadm is compiled once for all tests of a module graph.
var kubeadm = sync.OnceValues(compileKubeadm)

// Kubeadm returns the path of real kubeadm, of the version that Kiln's nodes run,
// compiled out of the module that the payload is of.
func Kubeadm(t testing.TB) string {
	t.Helper()
	path, err := kubeadm()
	if err != nil {
		t.Fatalf("kubeadm: %v", err)
	}
	return path
}

func compileKubeadm() (string, error) {
	ctx := context.Background()
	source, err := payload.FindSource("")
	if err != nil {
		return "", err
	}
	source = filepath.Join(source, "kubernetes")
	parts := []string{"kubeadm", payload.KubernetesVersion}
	for _, f := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join(source, f))
		if err != nil {
			return "", err
		}
		parts = append(parts, string(b))
	}
	store, err := cache.Open("")
	if err != nil {
		return "", err
	}
	dir, err := store.Dir(ctx, "reference", cache.Key(parts...), func(tmp string) error {
		// The payload's go.sum has no sums of what kubeadm alone imports.
		work, err := os.MkdirTemp("", "kiln-kubeadm-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(work)
		for i, f := range []string{"go.mod", "go.sum"} {
			if err := os.WriteFile(filepath.Join(work, f), []byte(parts[2+i]), 0o600); err != nil {
				return err
			}
		}
		cmd := exec.CommandContext(ctx, "go", "build", "-C", source, "-modfile", filepath.Join(work, "go.mod"), "-mod=mod", "-trimpath",
			"-ldflags", "-s -w -X k8s.io/component-base/version.gitVersion="+payload.KubernetesVersion,
			"-o", filepath.Join(tmp, "kubeadm"), "k8s.io/kubernetes/cmd/kubeadm")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go build: %w\n%s", err, out)
		}
		return nil
	})
	return filepath.Join(dir, "kubeadm"), err
}
