package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/secret"
)

const tableOfTwo = `apiVersion: boot.kiln-os.dev/v1alpha1
kind: Machines
namePrefix: worker-
machines:
- mac: 52:54:00:00:00:01
  name: alpha
- serial: 10000000abcdef01
  name: beta
  addresses: [10.0.2.22/24]
  nodeIPs: [10.0.2.22]
  network: |
    [Network]
    Address=10.0.2.22/24
`

func tablePlan() bootplan.Plan {
	return bootplan.Plan{
		APIVersion: bootplan.APIVersion, Kind: bootplan.Kind, Role: bootplan.RoleJoinWorker,
		Cluster: bootplan.Cluster{
			Name: "kiln", KubernetesVersion: "v1.37.2", PodSubnets: []string{"10.244.0.0/16"}, ServiceSubnets: []string{"10.96.0.0/12"},
			DNSDomain: "cluster.local", EncryptionAlgorithm: "RSA-2048", PodNetwork: "flannel",
		},
		Node:      bootplan.Node{FromTable: true},
		Tokens:    []bootplan.Token{{ID: "abcdef", Secret: secret.FromString("0123456789abcdef")}},
		Discovery: &bootplan.Discovery{Endpoint: "10.0.2.15:6443", CACertHashes: []string{"sha256:" + strings.Repeat("0", 64)}},
		Timeouts:  bootplan.DefaultTimeouts(),
	}
}

func put(t *testing.T, root, name, content string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// TestIdentify: the row's name and addresses come into the plan and the network's
// settings of the machine below a root.
func TestIdentify(t *testing.T) {
	for name, c := range map[string]struct {
		files               map[string]string
		name, said, network string
		ips                 int
	}{
		"serial number": {map[string]string{"proc/device-tree/serial-number": "10000000abcdef01\x00"}, "beta", "this machine is beta: the table has its serial number 10000000abcdef01", "[Network]\nAddress=10.0.2.22/24\n", 1},
		"MAC address":   {nil, "alpha", "this machine is alpha: the table has its MAC address 52:54:00:00:00:01", "DHCP", 0},
		"neither":       {map[string]string{"sys/class/net/enp1s0/address": "52:54:00:0a:0b:0c\n"}, "worker-0a0b0c", "in no row of /etc/kiln/machines.yaml; after its MAC address 52:54:00:0a:0b:0c it is called worker-0a0b0c", "DHCP", 0},
	} {
		t.Run(name, func(t *testing.T) {
			root, out := t.TempDir(), &bytes.Buffer{}
			a := &app{paths: host.Paths{Root: root}, Streams: Streams{Err: out}}
			put(t, root, bootplan.MachinesPath, tableOfTwo)
			put(t, root, "etc/systemd/network/10-kiln.network", "DHCP")
			put(t, root, "sys/class/net/enp1s0/device/uevent", "")
			put(t, root, "sys/class/net/enp1s0/type", "1\n")
			put(t, root, "sys/class/net/enp1s0/addr_assign_type", "0\n")
			put(t, root, "sys/class/net/enp1s0/address", "52:54:00:00:00:01\n")
			if name == "serial number" {
				put(t, root, "sys/class/net/enp1s0/address", "52:54:00:00:00:09\n")
			}
			for f, content := range c.files {
				put(t, root, f, content)
			}
			row, err := a.findRow(t.Context())
			if err != nil || row.Name != c.name || !strings.Contains(out.String(), c.said) {
				t.Fatalf("%+v, %v, said %q", row, err, out)
			}
			if err := os.MkdirAll(filepath.Dir(a.paths.BootPlan()), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := settle(a.paths, tablePlan(), row); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(a.paths.BootPlan())
			if err != nil {
				t.Fatal(err)
			}
			plan, err := bootplan.Parse(data)
			if err != nil || plan.Node.Name != c.name || plan.Node.FromTable || len(plan.Node.NodeIPs) != c.ips || len(plan.Tokens) != 1 {
				t.Errorf("%+v, %v", plan.Node, err)
			}
			if got, _ := os.ReadFile(a.paths.NetworkFile()); string(got) != c.network {
				t.Errorf("network %q, want %q", got, c.network)
			}
		})
	}
}

// TestIdentifyWaits: without a network device there is nothing to be known by.
func TestIdentifyWaits(t *testing.T) {
	root, out := t.TempDir(), &bytes.Buffer{}
	a := &app{paths: host.Paths{Root: root}, Streams: Streams{Err: out}}
	put(t, root, bootplan.MachinesPath, tableOfTwo)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := a.findRow(ctx); !errors.Is(err, context.DeadlineExceeded) || strings.Count(out.String(), "waiting for one") != 1 {
		t.Errorf("%v, said %q", err, out)
	}
	put(t, root, bootplan.MachinesPath, "kind: Machines\n")
	if _, err := a.findRow(t.Context()); err == nil || exitCode(err) != 3 {
		t.Errorf("a wrong table: %v", err)
	}
}
