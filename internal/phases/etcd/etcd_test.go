package etcd

import (
	"context"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
)

func TestRun(t *testing.T) {
	p := host.Paths{Root: t.TempDir()}
	cfg := nodeconfig.Config{NodeName: "kiln-1", AdvertiseAddress: netip.MustParseAddr("10.0.2.15")}
	if err := os.MkdirAll(p.EtcdData(), 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Run(context.Background(), cfg, p, phase.NewPrinter(io.Discard)); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(p.EtcdData()); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%v, %v", st.Mode(), err)
		}
		if st, err := os.Stat(filepath.Join(p.Manifests(), "etcd.yaml")); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%v", err)
		}
	}
}

func TestDataDir(t *testing.T) {
	p := host.Paths{Root: t.TempDir(), EtcdDataDir: "/var/lib/mine"}
	cfg := nodeconfig.Config{NodeName: "kiln-1", AdvertiseAddress: netip.MustParseAddr("10.0.2.15")}
	cfg.Plan.Cluster.Kubeadm.Etcd.Local = &kubeadmapi.LocalEtcd{DataDir: p.EtcdDataDir}
	if err := Run(context.Background(), cfg, p, phase.NewPrinter(io.Discard)); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(p.At("/var/lib/mine")); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", st, err)
	}
	if _, err := os.Stat(p.At("/var/lib/etcd")); !os.IsNotExist(err) {
		t.Errorf("the default folder is there too: %v", err)
	}
}
