package bootplan

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"sigs.k8s.io/yaml"
)

// MachinesPath is where Ignition puts the table of an image that several machines
// share.
const MachinesPath = "/etc/kiln/machines.yaml"

// KindMachines identifies the table.
const KindMachines = "Machines"

// Machines says which name and addresses each of several machines with the same image
// has. Nothing in it is secret.
type Machines struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	// NamePrefix begins the name of a machine that is not in the table; see FallbackName.
	NamePrefix string    `json:"namePrefix"`
	Machines   []Machine `json:"machines,omitempty"`
}

// Machine is one row: either MAC or Serial says whose it is.
type Machine struct {
	MAC    string `json:"mac,omitempty"`
	Serial string `json:"serial,omitempty"` // as Serial makes it
	Name   string `json:"name"`
	// Addresses are static, with their prefix lengths; without one it asks DHCP.
	Addresses []string `json:"addresses,omitempty"`
	// NodeIPs are Node.NodeIPs.
	NodeIPs []string `json:"nodeIPs,omitempty"`
	// Network is its systemd.network(5) file; "" if it is that of the image.
	Network string `json:"network,omitempty"`
}

// Key is what the machine is known by, in words.
func (m Machine) Key() string {
	if m.MAC != "" {
		return "MAC address " + m.MAC
	}
	return "serial number " + m.Serial
}

// Marshal renders the table as YAML.
func (t Machines) Marshal() ([]byte, error) {
	t.APIVersion, t.Kind = APIVersion, KindMachines
	if err := t.validate(); err != nil {
		return nil, err
	}
	return yaml.Marshal(t)
}

// ParseMachines reads a table strictly.
func ParseMachines(data []byte) (Machines, error) {
	var t Machines
	if err := yaml.UnmarshalStrict(data, &t); err != nil {
		return Machines{}, fmt.Errorf("table of machines: %w", err)
	}
	if t.APIVersion != APIVersion || t.Kind != KindMachines {
		return Machines{}, fmt.Errorf("table of machines: apiVersion %q, kind %q; want %s, kind %s", t.APIVersion, t.Kind, APIVersion, KindMachines)
	}
	return t, t.validate()
}

func (t Machines) validate() error {
	var errs []error
	bad := func(format string, a ...any) {
		errs = append(errs, fmt.Errorf("table of machines: "+format, a...))
	}
	if t.NamePrefix == "" {
		bad("namePrefix is empty")
	}
	for i, m := range t.Machines {
		if m.Name == "" || (m.MAC == "") == (m.Serial == "") {
			bad("machines[%d] needs a name, and one of mac and serial", i)
		}
		if hw, err := net.ParseMAC(m.MAC); m.MAC != "" && (err != nil || hw.String() != m.MAC) {
			bad("machines[%d].mac: %q is not an address in lower case with colons", i, m.MAC)
		}
		if Serial(m.Serial) != m.Serial {
			bad("machines[%d].serial: %q is not in lower case", i, m.Serial)
		}
		for _, a := range m.Addresses {
			if _, err := netip.ParsePrefix(a); err != nil {
				bad("machines[%d].addresses: %q is no address with a prefix length", i, a)
			}
		}
	}
	return errors.Join(errs...)
}

// Serial is the form in which serial numbers are compared: without what the firmware
// puts around it, in lower case.
func Serial(s string) string { return strings.ToLower(strings.Trim(s, " \t\r\n\x00")) }

// FallbackName is what a machine is called that its table does not have: the last
// three bytes of its Ethernet address, which are the interface's own number.
func FallbackName(prefix string, mac net.HardwareAddr) string {
	return fmt.Sprintf("%s%x", prefix, []byte(mac[max(0, len(mac)-3):]))
}

// As makes a plan of an image's table that of one of its machines.
func (p Plan) As(m Machine) Plan {
	p.Node.Name, p.Node.FromTable, p.Node.NodeIPs = m.Name, false, m.NodeIPs
	return p
}
