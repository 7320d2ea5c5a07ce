package inspect

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/unit"
	"golang.org/x/crypto/ssh"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/discoveryfile"
)

// Node is whose image it is.
type Node struct {
	Cluster    string        `json:"cluster"`
	Name       string        `json:"name"`
	Role       bootplan.Role `json:"role"`
	Kubernetes string        `json:"kubernetes"` // version that the cluster is to have
	// Addresses are static, with their prefix lengths; without any the node asks DHCP.
	Addresses []string `json:"addresses"`
	Gateway   string   `json:"gateway,omitempty"`
	Interface string   `json:"interface,omitempty"` // MAC address or name
	// ControlPlane is where the API is reached, as far as the image says it.
	ControlPlane string            `json:"controlPlane,omitempty"`
	PodNetwork   string            `json:"podNetwork"`
	Labels       map[string]string `json:"labels,omitempty"`
	Logins       []Login           `json:"logins"`
	// Machines is the table of an image that several machines share; nil if it is that
	// of one node.
	Machines *bootplan.Machines `json:"machines,omitempty"`
	// Elsewhere are parts of the config that the node fetches.
	Elsewhere []string `json:"elsewhere,omitempty"`
}

// Login is an SSH key that opens the node.
type Login struct {
	User        string `json:"user"`
	Fingerprint string `json:"fingerprint"`
	Comment     string `json:"comment,omitempty"`
}

// networkFile is where Kiln writes the node's network settings, see systemd.network(5).
const networkFile = "/etc/systemd/network/10-kiln.network"

// sshKeys is where a user's keys are, below the home folder.
const sshKeys = "/.ssh/authorized_keys"

// node reads the boot plan and the network settings. A plan that cannot be read
// leaves what else is known.
func (c *config) node() (*Node, error) {
	n := &Node{Addresses: []string{}, Logins: c.logins(), Elsewhere: c.elsewhere}
	var errs []error
	if err := c.network(n); err != nil {
		errs = append(errs, err)
	}
	plan, err := c.plan()
	if err != nil {
		return n, errors.Join(append(errs, err)...)
	}
	n.Cluster, n.Name, n.Role, n.Labels = plan.Cluster.Name, plan.Node.Name, plan.Role, plan.Node.Labels
	n.Kubernetes, n.PodNetwork = plan.Cluster.KubernetesVersion, plan.Cluster.PodNetwork
	n.ControlPlane = cmp.Or(plan.Cluster.ControlPlaneEndpoint, plan.Node.AdvertiseAddress)
	if d := plan.Discovery; d != nil && d.Endpoint != "" {
		n.ControlPlane = d.Endpoint
	} else if d != nil {
		if f, err := discoveryfile.Parse(d.Kubeconfig); err == nil {
			n.ControlPlane = strings.TrimPrefix(f.Cluster.Server, "https://")
		}
	}
	if plan.Node.FromTable {
		if err := c.machines(n); err != nil {
			errs = append(errs, err)
		}
	}
	return n, errors.Join(errs...)
}

func (c *config) plan() (bootplan.Plan, error) {
	f, ok := c.files[bootplan.Path]
	if !ok {
		return bootplan.Plan{}, fmt.Errorf("the stamp has no %s: it does not say what the node is to become", bootplan.Path)
	}
	return bootplan.Parse(f.data.Reveal())
}

// machines reads the table of an image that several machines share, which has a name
// of its own.
func (c *config) machines(n *Node) error {
	n.Name = strings.TrimSpace(c.files["/etc/hostname"].data.RevealString())
	f, ok := c.files[bootplan.MachinesPath]
	if !ok {
		return fmt.Errorf("the stamp has no %s, in which the machine is to find its name", bootplan.MachinesPath)
	}
	t, err := bootplan.ParseMachines(f.data.Reveal())
	n.Machines = &t
	return err
}

func (c *config) network(n *Node) error {
	f, ok := c.files[networkFile]
	if !ok {
		return nil // the image's own settings: DHCP
	}
	options, err := unit.DeserializeOptions(strings.NewReader(f.data.RevealString()))
	if err != nil {
		return fmt.Errorf("%s: %w", networkFile, err)
	}
	for _, o := range options {
		switch o.Section + "." + o.Name {
		case "Network.Address":
			n.Addresses = append(n.Addresses, o.Value)
		case "Network.Gateway":
			n.Gateway = o.Value
		case "Match.MACAddress", "Match.Name":
			n.Interface = o.Value
		}
	}
	return nil
}

// logins lists the SSH keys of users, in the config and in files.
func (c *config) logins() []Login {
	out := []Login{}
	add := func(user, line string) {
		for rest := []byte(line); len(rest) > 0; {
			key, comment, _, next, err := ssh.ParseAuthorizedKey(rest)
			if err != nil {
				return // no line is left that sshd would take
			}
			out, rest = append(out, Login{User: user, Fingerprint: ssh.FingerprintSHA256(key), Comment: comment}), next
		}
	}
	for _, u := range c.Passwd.Users {
		for _, k := range u.SSHAuthorizedKeys {
			add(u.Name, string(k))
		}
	}
	for _, p := range slices.Sorted(maps.Keys(c.files)) {
		home, found := strings.CutSuffix(p, sshKeys)
		if found {
			add(home[strings.LastIndex(home, "/")+1:], c.files[p].data.RevealString())
		}
	}
	return out
}

// Expiry is when a secret stops being of use.
type Expiry struct {
	At    time.Time // the zero time unless it is known
	Never bool
}

// String is a date, or a word.
func (e Expiry) String() string {
	switch {
	case e.Never:
		return "never"
	case e.At.IsZero():
		return "unknown"
	}
	return e.At.UTC().Format(time.RFC3339)
}

// MarshalText implements encoding.TextMarshaler.
func (e Expiry) MarshalText() ([]byte, error) { return []byte(e.String()), nil }
