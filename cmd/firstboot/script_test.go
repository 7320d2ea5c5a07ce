package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The scripts run the real program: the test binary is it when called firstboot.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"firstboot": main})
}

func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", RequireExplicitExec: true})
}

func TestPhaseOrder(t *testing.T) {
	// kubeadm's order, with images where kubeadm pulls them.
	order := []string{
		"preflight", "images", "certs", "kubeconfig", "etcd", "control-plane", "kubelet-start",
		"wait-control-plane", "upload-config", "mark-control-plane", "bootstrap-token", "kubelet-finalize",
		"addon-coredns", "addon-kube-proxy", "addon-flannel", "ready",
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
