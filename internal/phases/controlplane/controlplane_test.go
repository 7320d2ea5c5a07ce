package controlplane

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
)

func TestRun(t *testing.T) {
	p := host.Paths{Root: t.TempDir()}
	cfg := nodeconfig.Config{NodeName: "kiln-1", AdvertiseAddress: netip.MustParseAddr("10.0.2.15")}
	var out bytes.Buffer
	for run, want := range []int{3, 0} { // a second run writes nothing: no pod restarts
		out.Reset()
		if err := Run(context.Background(), cfg, p, phase.NewPrinter(&out)); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(out.String(), "wrote the manifest"); got != want {
			t.Errorf("run %d wrote %d manifests", run+1, got)
		}
	}
	entries, err := os.ReadDir(p.Manifests())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); got != "kube-apiserver.yaml kube-controller-manager.yaml kube-scheduler.yaml" {
		t.Errorf("manifests: %s", got)
	}
}
