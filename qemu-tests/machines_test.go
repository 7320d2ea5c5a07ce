//go:build boot && long

package qemutests

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// sharedFile has a control plane, and one image for three workers.
const sharedFile = `apiVersion: kiln-os.dev/v1alpha1
kind: Cluster
name: shared
network:
  nameservers: [192.168.78.3]
nodes:
  - name: cp-1
    role: control-plane
    profile: qemu-amd64
    address: 192.168.78.11/24
    gateway: 192.168.78.1
  - name: workers
    role: worker
    profile: qemu-amd64
    gateway: 192.168.78.1
    machines:
      - {mac: "52:54:00:00:00:0a", name: alpha, address: 192.168.78.21/24}
      - {mac: "52:54:00:00:00:0b", name: beta}
      - {serial: KILN-4711, name: gamma, address: 192.168.78.23/24}
`

// TestMachines boots three machines with the same image: each takes its name and its
// address from its row, and imagegen boot ends when all four nodes are Ready.
func TestMachines(t *testing.T) {
	imagegen, dir := imagegenPath(t), t.TempDir()
	file, out := filepath.Join(dir, "cluster.yaml"), filepath.Join(dir, "out")
	if err := os.WriteFile(file, []byte(sharedFile), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"build", file, "-o", out}, {"boot", file, "-o", out, "--until-ready"}} {
		text, err := exec.CommandContext(t.Context(), imagegen, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("imagegen %s: %v\n%s", args[0], err, text)
		}
		t.Logf("imagegen %s:\n%s", args[0], text)
	}
	for name, want := range map[string]string{
		"alpha": "this machine is alpha: the table has its MAC address 52:54:00:00:00:0a",
		"gamma": "this machine is gamma: the table has its serial number kiln-4711",
		"beta":  "this machine is beta: the table has its MAC address 52:54:00:00:00:0b",
	} {
		console, err := os.ReadFile(filepath.Join(out, ".boot", name, "console.log"))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(console), want) {
			t.Errorf("the console of %s has no line with %q", name, want)
		}
	}
}
