package bootplan

import (
	"reflect"
	"testing"

	"github.com/kiln-os/kiln/internal/kubeadmapi"
)

// TestNodeSettings: what kubeadm's documents say survives the file, and costs nothing
// in a plan without them.
func TestNodeSettings(t *testing.T) {
	p := sample()
	p.Node.NodeSettings = NodeSettings{
		APIPort: 8443, IgnorePreflightErrors: []string{"Swap"}, KubeletExtraArgs: []kubeadmapi.Arg{{Name: "v", Value: "4"}},
		SkipPhases: []string{"preflight"}, Patches: []Patch{{File: "etcd.yaml", Data: "spec: {}\n"}},
		Reset: &kubeadmapi.ResetConfiguration{Force: true, UnmountFlags: []string{"MNT_FORCE"}},
	}
	p.Node.Zram = true
	p.Tokens[0].Description, p.Tokens[0].Usages, p.Tokens[0].Groups = "d", []string{"signing"}, []string{"system:bootstrappers:x"}
	data, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(data)
	if err != nil || !got.Node.Zram || !reflect.DeepEqual(got.Node.NodeSettings, p.Node.NodeSettings) {
		t.Errorf("%+v, %v", got.Node, err)
	}
	if tok := got.Tokens[0]; tok.Description != "d" || tok.Usages[0] != "signing" || tok.Groups[0] != "system:bootstrappers:x" {
		t.Errorf("%+v", tok)
	}
	if got.Node.Port() != 8443 || sample().Node.Port() != 6443 {
		t.Error("the API server's port")
	}
}

func TestIgnores(t *testing.T) {
	s := NodeSettings{IgnorePreflightErrors: []string{"numcpu"}}
	if !s.Ignores("NumCPU") || s.Ignores("Mem") || !(NodeSettings{IgnorePreflightErrors: []string{"All"}}).Ignores("Mem") {
		t.Error("names are compared without regard to case, and all means every check")
	}
}
