package build

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/images/elfdeps/elftest"
	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/payload"
)

// A release's programs may need libraries: those that the node has.
func TestReleasedProgramsFindTheirLibraries(t *testing.T) {
	file := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(file, elftest.File{Interp: "/lib64/ld-linux-x86-64.so.2", Needed: []string{"libc.so.6"}}.Bytes(), 0o755); err != nil {
		t.Fatal(err)
	}
	ps := programs{}
	for _, n := range append(payload.CNIPlugins(), "kubelet", "kubectl", payload.Containerd, payload.Shim, payload.Ctr, firstbootProgram, installProgram) {
		ps[n] = program{path: file}
	}
	record := Payload{Source: spec.PayloadRelease, Arch: "amd64", Kubernetes: "v1.37.2", Parts: []payload.Origin{{Name: "kubelet", Version: "v1.37.2", SHA256: "00"}}}
	for _, libc := range []bool{true, false} {
		tr := tree.New()
		tr.AddFile("usr/lib/os-release", 0o644, []byte("ID=debian\n"))
		tr.AddFile("usr/lib64/ld-linux-x86-64.so.2", 0o755, elftest.File{}.Bytes())
		if libc {
			tr.AddFile("usr/lib/x86_64-linux-gnu/libc.so.6", 0o755, elftest.File{}.Bytes())
		}
		installed, err := osPrograms(ps)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range installed {
			tr.Set(p.Path, &tree.Entry{Type: tree.File, Mode: 0o755, Content: p.Content})
		}
		err = describePayload(tr, inputs{programs: ps, payload: payloadParts{record: record}})
		if !libc {
			if err == nil || !strings.Contains(err.Error(), "needs libc.so.6") {
				t.Errorf("without libc: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := tr.ReadFile("usr/lib/os-release")
		if err != nil || string(b) != "ID=debian\nKILN_PAYLOAD=release\nKILN_KUBERNETES=v1.37.2\n" {
			t.Errorf("os-release %q, %v", b, err)
		}
		var got Payload
		b, err = tr.ReadFile("usr/share/kiln/payload.json")
		if err == nil {
			err = json.Unmarshal(b, &got)
		}
		if err != nil || len(got.Parts) != 1 || got.Parts[0] != record.Parts[0] || got.Source != spec.PayloadRelease {
			t.Errorf("record %+v, %v", got, err)
		}
	}
}
