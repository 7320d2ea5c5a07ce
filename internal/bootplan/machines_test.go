package bootplan

import (
	"net"
	"reflect"
	"strings"
	"testing"
)

func TestMachines(t *testing.T) {
	want := Machines{APIVersion: APIVersion, Kind: KindMachines, NamePrefix: "worker-", Machines: []Machine{
		{MAC: "52:54:00:00:00:01", Name: "a", Addresses: []string{"10.0.2.21/24"}, Network: "[Network]\n"}, {Serial: "7", Name: "b"},
	}}
	data, err := want.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseMachines(data); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for name, c := range map[string]struct{ from, to, want string }{
		"an unknown key": {"namePrefix", "prefix", "unknown field"},
		"another kind":   {"kind: Machines", "kind: Plan", `kind "Plan"`},
		"no prefix":      {"namePrefix: worker-", `namePrefix: ""`, "namePrefix is empty"},
		"no name":        {"name: b", `name: ""`, "machines[1] needs a name"},
		"upper case":     {"52:54:00:00:00:01", "52:54:00:00:00:0A", "machines[0].mac"},
		"no prefix bits": {"10.0.2.21/24", "10.0.2.21", "machines[0].addresses"},
		"a serial":       {`serial: "7"`, "serial: A7", "machines[1].serial"},
	} {
		text := strings.Replace(string(data), c.from, c.to, 1)
		if _, err := ParseMachines([]byte(text)); text == string(data) || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestFallbackName(t *testing.T) {
	if got := FallbackName("worker-", net.HardwareAddr{0x52, 0x54, 0, 0x0a, 0xb, 0xcd}); got != "worker-0a0bcd" {
		t.Error(got)
	}
	if got := Serial(" 10000000ABCDEF01\x00\n"); got != "10000000abcdef01" {
		t.Errorf("%q", got)
	}
}

func FuzzParseMachines(f *testing.F) {
	f.Add([]byte("apiVersion: " + APIVersion + "\nkind: Machines\nnamePrefix: w-\nmachines:\n- {mac: \"52:54:00:00:00:01\", name: a}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		table, err := ParseMachines(data)
		if err != nil {
			return
		}
		again, err := table.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := ParseMachines(again); err != nil || len(back.Machines) != len(table.Machines) {
			t.Errorf("%+v, then %+v, %v", table, back, err)
		}
	})
}
