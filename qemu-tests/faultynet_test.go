//go:build boot

package qemutests

import (
	"context"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/kiln-os/kiln/internal/qemu"
	"github.com/kiln-os/kiln/internal/qemu/cluster"
)

// endpoint is a name that no name server knows (RFC 6761).
const endpoint = "api.story.test"

// dhcpFile is of a node that asks DHCP for everything.
var dhcpFile = template.Must(template.New("cluster.yaml").Parse(`apiVersion: kiln-os.dev/v1alpha1
kind: Cluster
name: story
controlPlaneEndpoint: {{.Endpoint}}
nodes:
  - name: {{.Name}}
    role: control-plane
    profile: qemu-amd64
    taints: []
ssh:
  authorizedKeys:
    - {{.Key}}
`))

// lateDHCP is how late the DHCP server is.
const lateDHCP = 5 * time.Minute

// testNetworkFaults has one machine go through every fault of its network, one
// after the other; each heals, and the boot goes on.
func testNetworkFaults(t *testing.T) {
	n := bakeFile(t, "amd64", dhcpFile, map[string]string{"Name": nodeName, "Endpoint": endpoint})
	// A slot that is empty, and a switch that loses what is sent into it: nobody
	// listens at the discard port.
	m := n.startFaulty(t, "network", n.image, func(c *qemu.Config) {
		c.ExtraArgs = []string{
			"-device", "pcie-root-port,id=emptyslot,chassis=1", "-netdev", "hubport,id=wire,hubid=0",
			"-netdev", "dgram,id=nowhere,local.type=inet,local.host=127.0.0.1,local.port=0,remote.type=inet,remote.host=127.0.0.1,remote.port=9",
			"-netdev", "hubport,id=nowhere-port,hubid=0,netdev=nowhere",
		}
	})
	const nic, mac = "nic", "52:54:00:6b:69:6c"

	m.says(t, 0, m.slow(2*time.Minute),
		`waiting for a default route \(\w+ of 30m\): this machine has no network device: none is plugged in, or the image has no driver for it`,
		`last error +this machine has no network device`) // the login screen

	mark := m.Console().Mark()
	m.control(t, "device_add", map[string]any{"driver": "virtio-net-pci", "id": nic, "bus": "emptyslot", "netdev": "wire", "mac": mac, "romfile": ""})
	plugged := time.Now()
	m.says(t, mark, m.slow(time.Minute), `waiting for a default route .*: no address at \w+ \(`+mac+`\): no DHCP server has answered there; it is asked until one does`)

	mark = m.Console().Mark()
	m.control(t, "set_link", map[string]any{"name": nic, "up": false})
	m.says(t, mark, m.slow(time.Minute), `no link at \w+ \(`+mac+`\): plug in the cable, or look at the switch's port`)
	m.control(t, "set_link", map[string]any{"name": nic, "up": true})

	select {
	case <-time.After(time.Until(plugged.Add(lateDHCP))):
	case <-m.Context().Done():
		t.Fatal(context.Cause(m.Context()))
	}
	m.says(t, m.Console().Mark(), m.slow(time.Minute), `waiting for a default route \(([5-9]|1\d)m\S+ of 30m\): no address at \w+ `)

	// Within what networkd lets pass between two questions, which grows to a minute.
	mark = m.Console().Mark()
	m.router(t, "early", true)
	m.says(t, mark, m.slow(2*time.Minute), `no default route at \w+ \(`+mac+`\) with 10\.0\.2\.15/24: the DHCP server names no router`)

	// A restricted network of QEMU's has no router; this one has, and is asked again.
	m.control(t, "netdev_del", map[string]any{"id": "early-port"})
	m.control(t, "netdev_del", map[string]any{"id": "early"})
	mark = m.Console().Mark()
	m.router(t, "late", false)
	m.says(t, mark, m.slow(2*time.Minute), `waiting for the name api\.story\.test \(\w+ of 30m\): api\.story\.test does not resolve: .*name server 10\.0\.2\.3`)

	// The name server answers for others too; who repairs it adds a record.
	ssh := &cluster.SSH{Port: m.forwarded(t), User: "root", Key: n.key}
	ctx, cancel := context.WithTimeout(m.Context(), m.slow(time.Minute))
	defer cancel()
	if err := ssh.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	// Nothing on the node takes a late network for a failure.
	if out, err := ssh.Run(ctx, "systemctl --failed --no-legend --plain"); err != nil || strings.TrimSpace(out) != "" {
		t.Errorf("failed units: %s, %v", out, err)
	}
	if _, err := ssh.Run(ctx, "echo 10.0.2.15 "+endpoint+" >> /etc/hosts"); err != nil {
		t.Fatal(err)
	}
	// Said once, perhaps behind the prompt that stood there before: no mark.
	m.says(t, 0, m.slow(2*time.Minute), `init of cluster story: story-1 at 10\.0\.2\.15`, `preflight: done`, `certs: done`)
}

// control runs a command of QEMU's machine protocol.
func (f *faulty) control(t *testing.T, command string, args map[string]any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(f.Context(), time.Minute)
	defer cancel()
	if err := f.Control(ctx, command, args, nil); err != nil {
		t.Fatal(err)
	}
}

// router connects a network with a DHCP server to the switch. One without a router
// announces none, and reaches nothing.
func (f *faulty) router(t *testing.T, name string, none bool) {
	t.Helper()
	f.control(t, "netdev_add", map[string]any{
		"type": "user", "id": name, "ipv6": false, "restrict": none, "hostfwd": []any{map[string]any{"str": "tcp:127.0.0.1:0-10.0.2.15:22"}},
	})
	f.control(t, "netdev_add", map[string]any{"type": "hubport", "id": name + "-port", "hubid": 0, "netdev": name})
}

// forwarded returns the port of this host that leads to the guest's SSH server.
func (f *faulty) forwarded(t *testing.T) int {
	t.Helper()
	var out string
	ctx, cancel := context.WithTimeout(f.Context(), time.Minute)
	defer cancel()
	if err := f.Control(ctx, "human-monitor-command", map[string]any{"command-line": "info usernet"}, &out); err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)\s`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("no port is forwarded: %s", out)
	}
	port, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return port
}
