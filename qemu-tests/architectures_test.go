//go:build boot && long

package qemutests

import (
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/qemu/cluster"
)

// TestArchitectures boots a node of each architecture but amd64, which TestSingleNode
// does, from the firmware until all of its pods are ready. A node is of the first suite of
// Debian that the mirror has whole for its architecture.
func TestArchitectures(t *testing.T) {
	for _, a := range []struct{ arch, profile, machine, more string }{
		{"arm64", "qemu-arm64", "aarch64", ""},
		{"arm", "qemu-arm", "armv7l", "encryptionAlgorithm: ECDSA-P256"}, // as imagegen check recommends
		{"ppc64le", "qemu-ppc64le", "ppc64le", ""},
	} {
		t.Run(a.arch, func(t *testing.T) {
			n := bakeBy(t, buildAnySuite, a.arch, clusterFile, words(a.profile, a.more))
			t.Cleanup(func() { t.Logf("times:\n%s", n.times) })
			n.boot(t)
			start := time.Now()
			state, err := cluster.WaitReady(n.within(t, 20*time.Minute), n.client, progress(t, start), nodeName)
			if err != nil {
				t.Fatal(err)
			}
			n.times.addConsole(n.machine.Console())
			n.times.add("from power-on: everything is ready", time.Since(start))
			t.Logf("ready after %.0f s\n%s", time.Since(start).Seconds(), state.Table())
			if err := n.ssh.Wait(n.within(t, 3*time.Minute)); err != nil {
				t.Fatal(err)
			}
			if got := n.sh(t, "uname -m"); got != a.machine {
				t.Errorf("the node's processor is %s, want %s", got, a.machine)
			}
			n.waitFirstbootEnd(t)
			t.Logf("phases:\n%s", n.sh(t, "firstboot status"))
			for _, part := range []struct {
				name  string
				check func(*testing.T, *node)
			}{
				{"/usr is immutable", checkImmutable},
				{"the disk has grown into its layout", checkDisk},
				{"nothing has failed", checkNoFailedUnits},
				{"pods reach services by name", checkPodNetwork},
				{"no secret was printed", checkNoSecretPrinted},
				{"a reboot brings the same cluster back", checkReboot},
				{"nothing has failed after the reboot", checkNoFailedUnits},
			} {
				t.Run(part.name, func(t *testing.T) { part.check(t, n) })
			}
		})
	}
}
