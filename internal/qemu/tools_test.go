package qemu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/internal/arch"
)

// TestHostQEMUIsJudgedByItsVersion puts programs into PATH that answer as an
// installed QEMU does.
func TestHostQEMUIsJudgedByItsVersion(t *testing.T) {
	dir := t.TempDir()
	code, vars := filepath.Join(dir, "code.fd"), filepath.Join(dir, "vars.fd")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	a := arch.Arch{Go: "amd64", QEMU: arch.QEMU{Binary: "qemu-system-x86_64", FirmwarePackage: "ovmf", FirmwareCode: code, FirmwareVars: vars}}
	t.Setenv("PATH", dir)
	find := func() string {
		tools, err := findHost(t.Context(), a)
		if err != nil {
			return err.Error()
		}
		return tools.Version.String()
	}
	expect := func(want string) {
		t.Helper()
		if got := find(); !strings.Contains(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	expect("executable file not found")
	write(filepath.Join(dir, "qemu-system-x86_64"), "#!/bin/sh\necho 'QEMU emulator version 9.2.1 (Debian)'\n")
	expect(`"qemu-img": executable file not found`)
	write(filepath.Join(dir, "qemu-img"), "#!/bin/sh\necho 'qemu-img version 9.2.1 (Debian)'\n")
	expect("firmware of amd64 (Debian package ovmf)")
	write(code, "code")
	write(vars, "vars")
	expect("9.2")
	write(filepath.Join(dir, "qemu-system-x86_64"), "#!/bin/sh\necho 'QEMU emulator version 7.2.15 (Debian)'\n")
	expect("qemu-system-x86_64 is version 7.2; Kiln needs 8.2 or newer")
	write(filepath.Join(dir, "qemu-system-x86_64"), "#!/bin/sh\necho 'cannot open shared object' >&2\nexit 127\n")
	expect("cannot open shared object")
}
