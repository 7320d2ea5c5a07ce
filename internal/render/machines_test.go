package render

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/pki"
)

// TestMachines: the image of several machines has a table with their networks, a plan
// without a name, and the cluster's token even if there is one for a node of its name.
func TestMachines(t *testing.T) {
	c := cluster(t, func(c *spec.Cluster) {
		c.Nodes = append(c.Nodes, spec.Node{
			Name: "workers", Role: spec.RoleWorker, Profile: "qemu-amd64", Gateway: netip.MustParseAddr("10.0.2.2"), NamePrefix: "worker-",
			Machines: []spec.Machine{
				{MAC: "52:54:00:ab:cd:01", Name: "alpha", Address: netip.MustParsePrefix("10.0.2.21/24")},
				{Serial: "10000000abcdef01", Name: "beta"},
			},
		})
	})
	a := fixture(t)
	a.NodeTokens = map[string]pki.Token{"workers": {ID: "single", Secret: secret.FromString("fedcba9876543210")}}
	r, err := Node(c, a, c.Nodes[1])
	if err != nil {
		t.Fatal(err)
	}
	if n := r.Plan.Node; n.Name != "" || !n.FromTable || len(r.Plan.Tokens) != 1 || r.Plan.Tokens[0].ID != "abcdef" {
		t.Errorf("node %+v, tokens %+v", n, r.Plan.Tokens)
	}
	files := parse(t, r).inline
	if files["/etc/hostname"] != "workers\n" || !strings.Contains(files["/etc/systemd/network/10-kiln.network"], "DHCP=yes") {
		t.Errorf("%q, %q", files["/etc/hostname"], files["/etc/systemd/network/10-kiln.network"])
	}
	table, err := bootplan.ParseMachines([]byte(files[bootplan.MachinesPath]))
	if err != nil {
		t.Fatal(err)
	}
	want := []bootplan.Machine{
		{MAC: "52:54:00:ab:cd:01", Name: "alpha", Addresses: []string{"10.0.2.21/24"}, Network: "[Match]\nMACAddress=52:54:00:ab:cd:01\nType=ether\nKind=!*\n\n[Network]\nAddress=10.0.2.21/24\nGateway=10.0.2.2\n"},
		{Serial: "10000000abcdef01", Name: "beta"},
	}
	if table.NamePrefix != "worker-" || !reflect.DeepEqual(table.Machines, want) {
		t.Errorf("table %+v", table)
	}
	again, err := Node(c, a, c.Nodes[1])
	if err != nil || !again.Ignition.Equal(r.Ignition) {
		t.Errorf("rendered again it is another config: %v", err)
	}
}
