package build

import (
	"testing"

	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/profiles"
)

// TestSmallestDisk: the partitions fill the profile's smallest disk to the last MiB,
// so systemd-repart refuses any that is smaller.
func TestSmallestDisk(t *testing.T) {
	eachProfile(t, func(p profiles.Profile, a arch.Arch) {
		v := varsOf(a, p)
		const tables = 2 * mib // at both ends
		if got, want := tables+int64(p.Disk.PReP+p.Disk.ESP)*mib+2*(v.UsrSize+v.VeritySize)+v.StateSize, int64(p.Disk.Minimum)*mib; got != want {
			t.Errorf("%s: the partitions need %d bytes, and the smallest disk has %d", p.Name, got, want)
		}
		if v.DiskMiB != p.Disk.Minimum {
			t.Errorf("%s: a disk that is refused is told that %d MiB are needed, not %d", p.Name, v.DiskMiB, p.Disk.Minimum)
		}
	})
}

// eachProfile calls f with every profile and its architecture.
func eachProfile(t *testing.T, f func(profiles.Profile, arch.Arch)) {
	t.Helper()
	for _, name := range profiles.Names() {
		p, err := profiles.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		a, err := arch.Get(p.Arch)
		if err != nil {
			t.Fatal(err)
		}
		f(p, a)
	}
}
