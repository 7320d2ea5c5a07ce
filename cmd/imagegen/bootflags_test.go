package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/profiles"
)

func TestNoEmulator(t *testing.T) {
	for profile, want := range map[string]string{
		"qemu-amd64": "node n (profile qemu-amd64) needs an emulator of amd64: none; install qemu-system-x86_64 8.2 or newer (Debian: qemu-system-x86 and ovmf), or give a mirror",
		"qemu-arm":   "node n (profile qemu-arm) needs an emulator of arm: none; install qemu-system-arm 8.2 or newer (Debian: qemu-system-arm and qemu-efi-arm), or give a mirror",
	} {
		p, err := profiles.Load(profile)
		if err != nil {
			t.Fatal(err)
		}
		a, err := arch.Get(p.Arch)
		if err != nil {
			t.Fatal(err)
		}
		if got := noEmulator(spec.Node{Name: "n"}, p, a, errors.New("none")); !strings.HasPrefix(got.Error(), want) {
			t.Errorf("got %v, want %s", got, want)
		}
	}
}

func TestPerNode(t *testing.T) {
	p := perNode{unit: "MiB"}
	for _, bad := range []string{"", "0", "-1", "much", "=5", "kiln-1=", "kiln-1=0", "9999999"} {
		if err := p.Set(bad); err == nil || err.Error() != "want a positive number of MiB, or NODE=NUMBER" {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if p.String() != "" || p.of("kiln-1", 7) != 7 {
		t.Errorf("nothing is set: %q", p.String())
	}
	for _, good := range []string{"kiln-2=8192", "2048", "kiln-1=4096"} {
		if err := p.Set(good); err != nil {
			t.Error(err)
		}
	}
	if p.String() != "2048 kiln-1=4096 kiln-2=8192" || p.of("kiln-2", 7) != 8192 || p.of("kiln-3", 7) != 2048 {
		t.Errorf("%q", p.String())
	}
}
