package build

import (
	"slices"
	"testing"

	"github.com/kiln-os/kiln/images/osbase"
	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/profiles"
	"github.com/kiln-os/kiln/units"
)

// TestZram: the package and the configuration of swap space in memory are in images of the
// profiles that have it, and of no other.
func TestZram(t *testing.T) {
	suite, err := osbase.GetSuite(osbase.DefaultSuite)
	if err != nil {
		t.Fatal(err)
	}
	eachProfile(t, func(p profiles.Profile, a arch.Arch) {
		system := tree.New()
		if err := units.System(system, varsOf(a, p)); err != nil {
			t.Fatal(err)
		}
		want := p.Zram != ""
		if slices.Contains(request(a, p, suite).Roots, osbase.ZramPackage) != want || (system.Get("usr/lib/systemd/zram-generator.conf") != nil) != want {
			t.Errorf("%s: zram %q, packages %v", p.Name, p.Zram, request(a, p, suite).Roots)
		}
	})
}
