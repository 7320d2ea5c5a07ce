//go:build boot

package cluster

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/qemu"
	"github.com/kiln-os/kiln/internal/qemu/qemutest"
	"github.com/kiln-os/kiln/internal/secret"
)

// TestDiagnose: a machine that does not even boot is described by what there is,
// in seconds, and what cannot be reached is said.
func TestDiagnose(t *testing.T) {
	a, tools := qemutest.Find(t, "amd64")
	dir := t.TempDir()
	m, err := qemu.Start(t.Context(), tools, qemu.Config{
		Arch: a, Dir: filepath.Join(dir, "m"), MemoryMiB: 256,
		Net: &qemu.Net{Forwards: []qemu.Forward{{GuestPort: 22}, {GuestPort: 6443}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Kill)
	port, err := m.HostPort(22)
	if err != nil {
		t.Fatal(err)
	}
	api, err := m.HostPort(6443)
	if err != nil {
		t.Fatal(err)
	}
	key, err := NewKey("kiln test")
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-m.Context().Done(): // the firmware has found nothing to boot
	case <-time.After(time.Minute):
		t.Fatalf("the machine has not given up:\n%s", m.Console().Tail(20))
	}
	anonymous := "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts:\n- name: c\n  context: {cluster: c}\nclusters:\n- name: c\n  cluster: {server: https://192.0.2.1}\n"
	client, _, err := Client(secret.FromString(anonymous), api)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	defer cancel()
	got := Diagnose(ctx, filepath.Join(dir, "diagnostics"), m, client, &SSH{Port: port, User: "root", Key: key})
	for _, want := range []string{"Start PXE", "ssh: ", "not reachable", "console.log", filepath.Join(dir, "diagnostics")} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if b, err := os.ReadFile(filepath.Join(m.Dir(), "console.log")); err != nil || len(b) == 0 {
		t.Errorf("console.log: %v", err)
	}
}
