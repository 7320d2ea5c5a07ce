//go:build boot

package qemutests

import (
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/qemu/cluster"
	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/profiles"
)

// TestPair is the smallest cluster with a network between its nodes: a worker joins,
// loses its power, and is back with the same disk.
func TestPair(t *testing.T) {
	c := bakeNetwork(t, "", "cp-1", "worker-1")
	c.start(t, "cp-1", "worker-1")
	c.ready(t, 15*time.Minute, "cp-1", "worker-1")
	for name, other := range map[string]string{"cp-1": "192.168.78.21", "worker-1": "192.168.78.11"} {
		n := c.node(t, name)
		if err := n.ssh.Wait(c.within(t, 2*time.Minute)); err != nil {
			t.Fatal(err)
		}
		if got := n.sh(t, "hostname"); got != name {
			t.Errorf("the SSH port of %s leads to %s", name, got)
		}
		n.sh(t, "timeout 10 bash -c '</dev/tcp/"+other+"/22'")
		// Air-gapped: 192.0.2.1 is nobody (RFC 5737), and a node hears that there is no way.
		if out := n.shFails(t, "timeout 30 bash -c '</dev/tcp/192.0.2.1/443'").Output; !strings.Contains(out, "unreachable") {
			t.Errorf("%s: what is outside of the network: %s", name, out)
		}
	}

	c.losePower(t, "worker-1", func() {})
}

func TestSplitArch(t *testing.T) {
	for in, want := range map[string][2]string{"cp-1": {"cp-1", "amd64"}, "worker-2:arm64": {"worker-2", "arm64"}} {
		if node, goarch := splitArch(in); node != want[0] || goarch != want[1] {
			t.Errorf("%s: %s, %s", in, node, goarch)
		}
	}
}

func TestNetworkFileIsValid(t *testing.T) {
	key, err := cluster.NewKey("kiln-boot-test")
	if err != nil {
		t.Fatal(err)
	}
	text := networkText(t, ipv4, key.Authorized, "controlPlaneEndpoint: 192.168.78.10\n", "cp-1", "cp-2", "cp-3", "worker-1", "worker-2:arm64")
	cl, mistakes := spec.Parse("cluster.yaml", text, spec.Known{Profiles: profiles.Names(), Versions: []string{spec.DefaultKubernetesVersion}})
	if len(mistakes) != 0 {
		t.Fatalf("%v\n%s", mistakes, text)
	}
	if n, _ := cl.Node("cp-3"); n.Address.String() != "192.168.78.13/24" || n.Role != spec.RoleControlPlane {
		t.Errorf("%+v", n)
	}
	if n, _ := cl.Node("worker-2"); n.Profile != "qemu-arm64" {
		t.Errorf("%+v", n)
	}
	if n, _ := cl.Node("worker-1"); n.Address.String() != "192.168.78.21/24" || n.Role != spec.RoleWorker {
		t.Errorf("%+v", n)
	}
}
