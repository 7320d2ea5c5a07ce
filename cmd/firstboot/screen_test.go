package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/internal/secret"
)

const (
	tokenID, tokenSecret = "abcdef", "0123456789abcdef"
	head                 = "  cluster     home\n  node        kiln-1\n  role        control plane\n"
	tail                 = "  kubeconfig  secrets/admin.conf where the image was built; /etc/kubernetes/admin.conf here\n\n"
)

func testScreen(t *testing.T) (*screen, func() string) {
	t.Helper()
	paths := host.Paths{Root: t.TempDir()}
	plan := bootplan.Plan{
		Role: bootplan.RoleInit, Cluster: bootplan.Cluster{Name: "home"}, Node: bootplan.Node{Name: "kiln-1"},
		Tokens: []bootplan.Token{{ID: tokenID, Secret: secret.FromString(tokenSecret)}},
	}
	s := newScreen(paths, plan, func(format string, args ...any) { t.Errorf("warning: "+format, args...) })
	return s, func() string {
		t.Helper()
		b, err := os.ReadFile(paths.Issue())
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
}

// TestScreen goes through the states of a first boot.
func TestScreen(t *testing.T) {
	s, shown := testScreen(t)
	finished := time.Date(2026, 1, 1, 0, 8, 0, 0, time.UTC)
	done := func(names ...string) (out []phase.PhaseRecord) {
		for _, n := range names {
			out = append(out, phase.PhaseRecord{Name: n, Done: true, Attempts: 2, LastError: "it was not there at first"})
		}
		return out
	}
	waiting := append(done("preflight", "kubeconfig", "pod-network", "kubelet-start", "images", "certs", "etcd", "control-plane"), phase.PhaseRecord{Name: "wait-control-plane", Attempts: 1})
	again := append(done("preflight", "kubeconfig", "pod-network", "kubelet-start", "images"), phase.PhaseRecord{Name: "certs", Attempts: 3, LastError: "CA ca:\n\tno such file"})
	const addr = "  address     10.0.2.15\n"
	for _, c := range []struct {
		name string
		show func()
		want string
	}{
		{"before the network", func() { s.show(phase.Record{State: phase.StateNone}) },
			head + "  state       first boot: getting ready, waiting for the network\n" + tail},
		{"no network", func() { s.failed(errors.New("waited 30m for a default route")) },
			head + "  state       first boot failed; it is tried again (journalctl -u firstboot)\n  last error  waited 30m for a default route\n" + tail},
		{"first phase", func() { s.address = "10.0.2.15"; s.show(phase.Record{State: phase.StateRunning}) },
			head + addr + "  state       first boot, phase 1 of 17 (preflight): checking the machine\n" + tail},
		{"a later phase", func() { s.show(phase.Record{State: phase.StateRunning, Phases: waiting}) },
			head + addr + "  state       first boot, phase 9 of 17 (wait-control-plane): waiting for the control plane\n" + tail},
		{"tried again", func() { s.show(phase.Record{State: phase.StateRunning, Phases: again}) },
			head + addr + "  state       first boot, phase 6 of 17 (certs): issuing this node's certificates, attempt 3\n  last error  CA ca: no such file\n" + tail},
		{"gave up", func() { s.failed(fmt.Errorf("phase certs: %w", errors.New("CA ca: no such file"))) },
			head + addr + "  state       first boot failed; it is tried again (journalctl -u firstboot)\n  last error  phase certs: CA ca: no such file\n" + tail},
		{"wrong plan", func() { s.failed(planError{errors.New("boot plan: role")}) },
			head + addr + "  state       first boot failed: the boot plan cannot be carried out\n  last error  boot plan: role\n" + tail},
		{"power off", func() { s.failed(fmt.Errorf("phase certs: %w", context.Canceled)) },
			head + addr + "  state       first boot interrupted; it continues when the machine starts again\n" + tail},
		{"done", func() {
			s.show(phase.Record{State: phase.StateComplete, Finished: &finished, Phases: done("preflight")})
		}, head + addr + "  state       Ready since 2026-01-01 00:08:00 UTC\n" + tail},
	} {
		c.show()
		if got := shown(); got != c.want {
			t.Errorf("%s:\n%s\nwant:\n%s", c.name, got, c.want)
		}
	}
}

// TestScreenFollowsTheRunner: every phase is on the screen while it runs.
func TestScreenFollowsTheRunner(t *testing.T) {
	s, shown := testScreen(t)
	var phases []phase.Phase
	seen := 0
	for i, p := range (node{}).initPhases() {
		p.Run = func(context.Context, phase.Report) error {
			if want := fmt.Sprintf("phase %d of 17 (%s): %s\n", i+1, p.Name, p.Summary); !strings.Contains(shown(), want) {
				t.Errorf("in %s the screen is:\n%s", p.Name, shown())
			}
			seen++
			return nil
		}
		phases = append(phases, p)
	}
	record := filepath.Join(t.TempDir(), "record.json")
	r := phase.Runner{Phases: phases, RecordPath: record, Out: phase.NewPrinter(t.Output()), Saved: s.show}
	if err := r.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	if seen != 17 || !strings.Contains(shown(), "state       Ready since ") {
		t.Errorf("%d phases; in the end the screen is:\n%s", seen, shown())
	}
}

// TestScreenOfHostileText: no secret, no terminal or agetty escape, one line a value.
func TestScreenOfHostileText(t *testing.T) {
	s, shown := testScreen(t)
	s.failed(errors.New("token " + tokenID + "." + tokenSecret + " \x1b[2J\r\nstate  fine \\4{eth0} " + strings.Repeat("x", 5000)))
	got := shown()
	for _, bad := range []string{tokenSecret, "\x1b", "\r", "\nstate"} {
		if strings.Contains(got, bad) {
			t.Errorf("the screen holds %q:\n%s", bad, got)
		}
	}
	if !strings.Contains(got, `[redacted]`) || !strings.Contains(got, `\\4{eth0}`) || len(got) > 1200 {
		t.Errorf("the screen is:\n%s", got)
	}
}

func TestScreenFile(t *testing.T) {
	s, shown := testScreen(t)
	reload := s.paths.LoginReload()
	if err := os.MkdirAll(filepath.Dir(reload), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(reload, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Unix(1e9, 0)
	touched := func() bool {
		t.Helper()
		st, err := os.Stat(reload)
		if err != nil {
			t.Fatal(err)
		}
		return !st.ModTime().Equal(old)
	}
	for i, want := range []bool{true, false} { // the same text again disturbs nobody
		if err := os.Chtimes(reload, old, old); err != nil {
			t.Fatal(err)
		}
		s.show(phase.Record{State: phase.StateRunning})
		if touched() != want {
			t.Errorf("time %d: agetty was told: %v", i+1, !want)
		}
	}
	if st, err := os.Stat(s.paths.Issue()); err != nil || st.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v: everybody may read it", st, err)
	}
	left, err := os.ReadDir(filepath.Dir(s.paths.Issue()))
	if err != nil || len(left) != 1 {
		t.Errorf("beside it is %v, %v", left, err)
	}

	// Where it cannot be written there is a warning, and the boot goes on.
	warned := 0
	s.warn = func(string, ...any) { warned++ }
	before := shown()
	if err := os.Rename(filepath.Dir(s.paths.Issue()), filepath.Dir(s.paths.Issue())+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Dir(s.paths.Issue()), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.show(phase.Record{State: phase.StateComplete})
	if warned != 1 || !strings.Contains(before, "phase 1 of 17") {
		t.Errorf("%d warnings", warned)
	}
}

func TestScreenOfAWorker(t *testing.T) {
	s, shown := testScreen(t)
	s.role = roleName(bootplan.RoleJoinWorker)
	s.show(phase.Record{State: phase.StateComplete})
	if got := shown(); strings.Contains(got, "/etc/kubernetes/admin.conf") || !strings.Contains(got, "role        worker\n") {
		t.Errorf("a worker has no admin.conf:\n%s", got)
	}
}
