package controlplane

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/internal/staticpod"
)

func TestRun(t *testing.T) {
	p := host.Paths{Root: t.TempDir()}
	cfg := nodeconfig.Config{NodeName: "kiln-1", AdvertiseAddress: netip.MustParseAddr("10.0.2.15")}
	var out bytes.Buffer
	manifests := func() string {
		entries, err := os.ReadDir(p.Manifests())
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return strings.Join(names, " ")
	}
	// A second run writes nothing: no pod restarts. The third finds manifests of an
	// earlier version, which wait-control-plane wrote.
	for run, want := range []int{1, 0, 2} {
		if run == 2 {
			for _, name := range []string{staticpod.ControllerManager, staticpod.Scheduler} {
				if err := os.WriteFile(filepath.Join(p.Manifests(), name+".yaml"), []byte("old"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		out.Reset()
		if err := Run(context.Background(), cfg, p, phase.NewPrinter(&out)); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(out.String(), "wrote the manifest"); got != want {
			t.Errorf("run %d wrote %d manifests", run+1, got)
		}
		names := "kube-apiserver.yaml"
		if run == 2 {
			names += " kube-controller-manager.yaml kube-scheduler.yaml"
		}
		if got := manifests(); got != names {
			t.Errorf("manifests after run %d: %s", run+1, got)
		}
	}
}
