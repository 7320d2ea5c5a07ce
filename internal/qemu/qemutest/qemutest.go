// Package qemutest gives boot tests their QEMU.
package qemutest

import (
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/cache"
	"github.com/kiln-os/kiln/internal/hosttools"
	"github.com/kiln-os/kiln/internal/qemu"
)

// Find returns the architecture with the given Go name and a QEMU for it, which
// is unpacked into the user's cache if the host has none that is new enough.
func Find(t testing.TB, goarch string) (arch.Arch, *qemu.Tools) {
	t.Helper()
	a, err := arch.Get(goarch)
	if err != nil {
		t.Fatal(err)
	}
	c, err := cache.Open("")
	if err != nil {
		t.Fatal(err)
	}
	tools, err := qemu.Find(t.Context(), a, hosttools.Options{Cache: c, Now: time.Now(), Log: func(s string) { t.Log(s) }})
	if err != nil {
		t.Fatal(err)
	}
	return a, tools
}
