package main

import (
	"context"
	"io"
	"slices"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/nodetest"
	"github.com/kiln-os/kiln/internal/phase"
)

// The scripts run the real program: the test binary is it when called firstboot.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"firstboot": main})
}

func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", RequireExplicitExec: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"node": cmdNode, "deliver": cmdDeliver},
	})
}

// cmdNode is the script command `node DIR`: the file system of a control-plane node
// whose certificates and kubeconfigs are issued.
func cmdNode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: node DIR")
	}
	ts.Check(nodetest.ControlPlane(context.Background(), nodetest.Config(), host.Paths{Root: ts.MkAbs(args[0])}, phase.NewPrinter(io.Discard)))
}

// cmdDeliver is the script command `deliver DIR`: the file system of a control-plane
// node before its first boot.
func cmdDeliver(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: deliver DIR")
	}
	ts.Check(nodetest.Deliver(nodetest.Config(), host.Paths{Root: ts.MkAbs(args[0])}))
}

// TestRehearsedPhasesExist: a phase that is called another name would not be rehearsed.
func TestRehearsedPhasesExist(t *testing.T) {
	all := slices.Concat((node{}).initPhases(), (node{}).joinWorkerPhases(), (node{}).joinControlPlanePhases())
	for _, name := range rehearsed {
		if !slices.ContainsFunc(all, func(p phase.Phase) bool { return p.Name == name }) {
			t.Errorf("there is no phase %s", name)
		}
	}
}

func TestPhaseOrder(t *testing.T) {
	order := []string{
		"preflight", "kubeconfig", "pod-network", "kubelet-start", "images", "certs", "etcd", "control-plane",
		"wait-control-plane", "upload-config", "mark-control-plane", "bootstrap-token", "kubelet-finalize",
		"addon-flannel", "addon-kube-proxy", "addon-coredns", "ready",
	}
	phases := (node{}).initPhases()
	if len(phases) != len(order) {
		t.Fatalf("%d phases, want %d", len(phases), len(order))
	}
	for i, p := range phases {
		if p.Name != order[i] {
			t.Errorf("phase %d is %s, want %s", i+1, p.Name, order[i])
		}
		if p.Summary == "" || p.Run == nil {
			t.Errorf("phase %s is incomplete", p.Name)
		}
	}
}
