package spec

import (
	"strings"
	"testing"
)

const pool = minimal + `- name: workers
  role: worker
  profile: qemu-amd64
  gateways: [10.0.2.2, "fd00::2"]
  labels: {example.org/rack: r1}
  machines:
  - {mac: "52:54:00:AB:CD:01", name: alpha, address: 10.0.2.21/24}
  - {serial: 10000000ABCDEF01, name: beta}
  - {serial: " 7 ", name: gamma, addresses: [10.0.2.23/24, "fd00::23/64"], gateways: [10.0.2.3]}
`

func TestPool(t *testing.T) {
	c, list := Parse("cluster.yaml", []byte(pool), known)
	if len(list) > 0 {
		t.Fatal(list)
	}
	n := c.Nodes[1]
	if !n.Pool() || c.Nodes[0].Pool() || n.NamePrefix != "workers-" || n.Machines[0].MAC != "52:54:00:ab:cd:01" || n.Machines[1].Serial != "10000000abcdef01" {
		t.Errorf("%+v", n)
	}
	for i, want := range []struct{ name, address, gateways, mac string }{
		{"alpha", "10.0.2.21/24", "[10.0.2.2]", "52:54:00:ab:cd:01"},
		{"beta", "invalid Prefix", "[]", ""},
		{"gamma", "10.0.2.23/24", "[10.0.2.3]", ""},
	} {
		m := n.As(n.Machines[i])
		gateways := "["
		for _, g := range m.StaticGateways() {
			gateways += g.String()
		}
		if m.Pool() || m.Image != "workers" || m.Name != want.name || m.Address.String() != want.address || gateways+"]" != want.gateways || m.Interface.MAC != want.mac || m.Serial != n.Machines[i].Serial || m.Labels["example.org/rack"] != "r1" {
			t.Errorf("%+v, gateways %s", m, gateways)
		}
	}
	all := c.Expand()
	if len(all.Nodes) != 1+len(n.Machines) || all.Nodes[1].Name != "alpha" || len(c.Nodes) != 2 || c.Nodes[1].Name != "workers" {
		t.Errorf("%+v", all.Nodes)
	}
	empty, list := Parse("cluster.yaml", []byte(strings.Split(pool, "  gateways")[0]+"  machines: []\n"), known)
	if len(list) > 0 || !empty.Nodes[1].Pool() {
		t.Errorf("an empty list: %v", list)
	}
}

// TestPoolTaken: no machine is there twice, in one table or in two, however its address
// is spelled.
func TestPoolTaken(t *testing.T) {
	second := func(machine string) string {
		return pool + "- {name: others, role: worker, profile: qemu-amd64, gateway: 10.0.2.2, machines: [" + machine + "]}\n"
	}
	for name, c := range map[string]struct{ text, want string }{
		"MAC in one table":      {pool + `  - {mac: 52-54-00-ab-cd-01, name: delta}` + "\n", "nodes[1].machines[3].mac: MAC address 52:54:00:ab:cd:01 is taken by nodes[1].machines[0].mac"},
		"MAC in two tables":     {second("{mac: 5254.00ab.cd01, name: delta}"), "nodes[2].machines[0].mac: MAC address 52:54:00:ab:cd:01 is taken by nodes[1].machines[0].mac"},
		"serial in two tables":  {second("{serial: 10000000abcdef01, name: delta}"), "nodes[2].machines[0].serial: serial number 10000000abcdef01 is taken by nodes[1].machines[1].serial"},
		"name in two tables":    {second(`{mac: "52:54:00:00:00:01", name: alpha}`), "nodes[2].machines[0].name: name alpha is taken by nodes[1].machines[0].name"},
		"address in two tables": {second(`{mac: "52:54:00:00:00:01", name: delta, address: 10.0.2.23/24}`), "nodes[2].machines[0].address: address 10.0.2.23 is taken by nodes[1].machines[2].addresses[0]"},
		"MAC of a node's own": {pool + "- {name: alone, role: worker, profile: qemu-amd64, address: 10.0.2.30/24, gateway: 10.0.2.2, interface: {mac: 52-54-00-AB-CD-01}}\n",
			"nodes[2].interface.mac: MAC address 52:54:00:ab:cd:01 is taken by nodes[1].machines[0].mac"},
	} {
		_, list := Parse("f", []byte(c.text), known)
		if len(list) != 1 || !strings.Contains(list[0].Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, list, c.want)
		}
	}
}
