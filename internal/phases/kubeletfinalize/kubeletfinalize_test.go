package kubeletfinalize

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/kiln-os/kiln/internal/apitest"
	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/pki"
)

// node is a node with the kubelet.conf that the kubeconfig phase makes.
func node(t *testing.T) (paths host.Paths, conf string) {
	t.Helper()
	paths = host.Paths{Root: t.TempDir()}
	now := time.Now()
	ca, err := pki.NewCA(pki.Certificate{File: "ca", CN: "kubernetes"}, "ECDSA-P256", now)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range pki.Kubeconfigs() {
		if row.File != "kubelet.conf" {
			continue
		}
		out, err := ca.IssueKubeconfig(row, "cp1", "kiln", "https://"+netip.MustParseAddr("192.0.2.10").String()+":6443", "ECDSA-P256", 0, now)
		if err != nil {
			t.Fatal(err)
		}
		conf = paths.Kubeconfig(row.File)
		if err := os.MkdirAll(filepath.Dir(conf), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(conf, out.Reveal(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return paths, conf
}

func makeCurrent(t *testing.T, paths host.Paths) {
	t.Helper()
	path := paths.At(currentPEM)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRefersToTheRotatedCertificate(t *testing.T) {
	paths, path := node(t)
	makeCurrent(t, paths)
	before, err := clientcmd.LoadFromFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cfg := apitest.Config("192.0.2.10")
	for i := range 2 {
		if err := Run(context.Background(), cfg, paths, phase.NewPrinter(os.Stderr)); err != nil {
			t.Fatal(err)
		}
		after, err := clientcmd.LoadFromFile(path)
		if err != nil {
			t.Fatal(err)
		}
		user := after.AuthInfos["system:node:cp1"]
		if user == nil || user.ClientCertificate != currentPEM || user.ClientKey != currentPEM || len(user.ClientCertificateData)+len(user.ClientKeyData) != 0 {
			t.Errorf("run %d: user %v", i+1, user)
		}
		if after.CurrentContext != before.CurrentContext || after.Clusters["kiln"].Server != before.Clusters["kiln"].Server {
			t.Errorf("run %d: context %s, server %s", i+1, after.CurrentContext, after.Clusters["kiln"].Server)
		}
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("run %d: mode %v, %v", i+1, st.Mode(), err)
		}
	}
}

func TestWithoutRotatedCertificate(t *testing.T) {
	paths, path := node(t)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cfg := apitest.Config("192.0.2.10")
	cfg.Plan.Timeouts.KubernetesCall = bootplan.Duration(20 * time.Millisecond)
	err = Run(context.Background(), cfg, paths, phase.NewPrinter(os.Stderr))
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "the kubelet's own certificate") {
		t.Errorf("error %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("kubelet.conf was changed: %v", err)
	}
}

func TestErrorsHideTheKey(t *testing.T) {
	paths, path := node(t)
	makeCurrent(t, paths)
	for _, text := range []string{"users: [{name: x, user: {client-key-data: c2VjcmV0LXNlY3JldA", "apiVersion: v1\nkind: Config\nusers:\n- name: x\n  user: {client-key-data: c2VjcmV0LXNlY3JldA==, token: [c2VjcmV0]}\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := Run(context.Background(), apitest.Config("192.0.2.10"), paths, phase.NewPrinter(os.Stderr))
		if err == nil || !phase.IsPermanent(err) || strings.Contains(err.Error(), "c2VjcmV0") || strings.Contains(err.Error(), "secret") {
			t.Errorf("error %v", err)
		}
	}
}
