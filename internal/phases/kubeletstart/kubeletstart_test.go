package kubeletstart

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
)

// units is a systemd that knows one unit and notes what it is told. At a restart it
// looks which files are there.
type units struct {
	paths   host.Paths
	running bool
	calls   []string
	files   []string
	err     error
}

func (u *units) Reload(context.Context) error { u.calls = append(u.calls, "reload"); return nil }
func (u *units) Restart(_ context.Context, unit string) error {
	u.calls = append(u.calls, "restart "+unit)
	entries, err := os.ReadDir(u.paths.Kubelet())
	for _, e := range entries {
		u.files = append(u.files, e.Name())
	}
	u.running = u.err == nil
	return errors.Join(err, u.err)
}
func (u *units) Stop(_ context.Context, unit string) error {
	u.calls = append(u.calls, "stop "+unit)
	u.running = false
	return nil
}
func (u *units) Active(context.Context, string) (bool, error)    { return u.running, nil }
func (u *units) Enabled(context.Context, string) (string, error) { return "enabled", nil }

func config() nodeconfig.Config {
	return nodeconfig.Config{
		Plan:     bootplan.Plan{Cluster: bootplan.Cluster{ServiceSubnets: []string{"10.96.0.0/12"}, DNSDomain: "cluster.local"}},
		NodeName: "kiln-1", Hostname: "kiln-1", AdvertiseAddress: netip.MustParseAddr("10.0.2.15"),
	}
}

func TestRun(t *testing.T) {
	p := host.Paths{Root: t.TempDir()}
	u := &units{paths: p}
	steps := []struct {
		name  string
		cfg   func(*nodeconfig.Config)
		calls []string
	}{
		{"first", func(*nodeconfig.Config) {}, []string{"reload", "restart kubelet.service"}},
		{"again", func(*nodeconfig.Config) {}, nil},
		{"other labels", func(c *nodeconfig.Config) { c.Plan.Node.Labels = map[string]string{"a": "b"} }, []string{"stop kubelet.service", "reload", "restart kubelet.service"}},
	}
	for _, s := range steps {
		cfg := config()
		s.cfg(&cfg)
		u.calls = nil
		if err := Run(context.Background(), cfg, p, u, phase.NewPrinter(io.Discard)); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(u.calls, s.calls) {
			t.Errorf("%s: systemd was told %v, want %v", s.name, u.calls, s.calls)
		}
	}
	if want := []string{"config.yaml", "instance-config.yaml", "kubeadm-flags.env"}; !slices.Equal(u.files[:3], want) {
		t.Errorf("the kubelet was started with %v", u.files)
	}
	flags, err := os.ReadFile(p.Kubelet("kubeadm-flags.env"))
	if err != nil || string(flags) != "KUBELET_KUBEADM_ARGS=\"--node-labels=a=b\"\n" {
		t.Errorf("flags %q, %v", flags, err)
	}
	if st, err := os.Stat(p.Kubelet("config.yaml")); err != nil || st.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

// TestZram: both files by which the kubelet and kubeadm go say that the node swaps.
func TestZram(t *testing.T) {
	p, cfg := host.Paths{Root: t.TempDir()}, config()
	cfg.Plan.Node.Zram = true
	if err := Run(context.Background(), cfg, p, &units{paths: p}, phase.NewPrinter(io.Discard)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"config.yaml", "instance-config.yaml"} {
		if b, err := os.ReadFile(p.Kubelet(name)); err != nil || !strings.Contains(string(b), "\nfailSwapOn: false\n") {
			t.Errorf("%s: %v\n%s", name, err, b)
		}
	}
	cfg.Plan.Cluster.Kubelet = []byte(`{"failSwapOn": true}`)
	if err := Run(context.Background(), cfg, p, &units{paths: p}, phase.NewPrinter(io.Discard)); !phase.IsPermanent(err) {
		t.Errorf("a kubelet that cannot start is started: %v", err)
	}
}

func TestKubeletThatDoesNotStart(t *testing.T) {
	p := host.Paths{Root: t.TempDir()}
	u := &units{paths: p, err: errors.New("the job ended as failed")}
	err := Run(context.Background(), config(), p, u, phase.NewPrinter(io.Discard))
	if err == nil || !strings.Contains(err.Error(), "start the kubelet") || phase.IsPermanent(err) {
		t.Errorf("error %v", err)
	}
}
