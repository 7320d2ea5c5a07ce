//go:build boot

package qemutests

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/template"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kiln-os/kiln/internal/clusternet"
	"github.com/kiln-os/kiln/internal/qemu"
	"github.com/kiln-os/kiln/internal/qemu/cluster"
	"github.com/kiln-os/kiln/internal/qemu/qemutest"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/profiles"
)

// workerMemoryMiB is what a worker needs; control planes get guestMemoryMiB.
const workerMemoryMiB = 2048

// networkFile is a cluster file of several nodes.
var networkFile = template.Must(template.New("cluster.yaml").Parse(`apiVersion: kiln-os.dev/v1alpha1
kind: Cluster
name: story
nodes:
{{- range .Nodes}}
  - {name: {{.Name}}, role: {{.Role}}, profile: qemu-{{.Arch}}, addresses: [{{.Addresses}}], gateways: [{{.Gateways}}], nameservers: [{{.Gateways}}]}
{{- end}}
ssh:
  authorizedKeys:
    - {{.Key}}
{{.More}}`))

// families are subnets that a node of a network has one address in each of, from the
// cluster's primary one on: cp-3 has the address that ends in 13, worker-1 in 21, the
// gateway in 1.
type families []struct {
	subnet string // what comes before the last number
	bits   int
}

var (
	ipv4 = families{{"192.168.78.", 24}}
	ipv6 = families{{"fd00:78::", 64}}
	dual = families{ipv4[0], ipv6[0]}
)

// networkText fills networkFile in for nodes whose names say what they are: cp-N or
// worker-N, with :ARCH behind it if the machine is no amd64 one.
func networkText(t *testing.T, on families, key, more string, names ...string) []byte {
	t.Helper()
	type line struct {
		Name, Role, Arch    string
		Addresses, Gateways string
	}
	var nodes []line
	for _, name := range names {
		var l line
		host := 0
		l.Name, l.Arch = splitArch(name)
		kind, number, _ := strings.Cut(l.Name, "-")
		switch kind {
		case "cp":
			l.Role, host = "control-plane", 10
		case "worker":
			l.Role, host = "worker", 20
		default:
			t.Fatalf("node %s: want cp-N or worker-N", name)
		}
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 || n > 9 {
			t.Fatalf("node %s: want a number from 1 to 9", name)
		}
		var addresses, gateways []string
		for _, f := range on {
			addresses = append(addresses, fmt.Sprintf("%q", fmt.Sprintf("%s%d/%d", f.subnet, host+n, f.bits)))
			gateways = append(gateways, fmt.Sprintf("%q", f.subnet+"1"))
		}
		l.Addresses, l.Gateways = strings.Join(addresses, ", "), strings.Join(gateways, ", ")
		nodes = append(nodes, l)
	}
	var b bytes.Buffer
	if err := networkFile.Execute(&b, map[string]any{"Nodes": nodes, "Key": key, "More": more}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// splitArch splits NODE:ARCH.
func splitArch(s string) (node, goarch string) {
	node, goarch, ok := strings.Cut(s, ":")
	if !ok {
		goarch = "amd64"
	}
	return node, goarch
}

// network is a cluster of several nodes on one network that leads nowhere.
type network struct {
	names     []string // in the file's order
	nodes     map[string]*node
	plan      clusternet.Plan
	net       *clusternet.Network
	file      string // the cluster file
	out       string // imagegen's output folder
	artifacts string
	turns     *qemu.Turns

	// client goes through a port that leads to a control plane that answers.
	client kubernetes.Interface
	rest   *rest.Config
}

// bakeNetwork builds the images of nodes named as for networkText with the real
// imagegen, and starts their network. more are further settings of the cluster file.
func bakeNetwork(t *testing.T, more string, names ...string) *network {
	t.Helper()
	return bakeNetworkOn(t, ipv4, more, names...)
}

// bakeNetworkOn is bakeNetwork with addresses of other families.
func bakeNetworkOn(t *testing.T, on families, more string, names ...string) *network {
	t.Helper()
	c := &network{nodes: map[string]*node{}, artifacts: artifactsDir(t), turns: qemu.NewTurns()}
	key, err := cluster.NewKey("kiln-boot-test")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "cluster.yaml")
	c.file, c.out = path, filepath.Join(dir, "out")
	text := networkText(t, on, key.Authorized, more, names...)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	imagegen := imagegenPath(t)
	start := time.Now()
	build := run
	if slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(n, ":ppc64le") }) {
		build = buildAnySuite
	}
	build(t, imagegen, "build", path, "-o", c.out)
	took := time.Since(start)

	cl, mistakes := spec.Parse(path, text, spec.Known{Profiles: profiles.Names(), Versions: []string{spec.DefaultKubernetesVersion}})
	if len(mistakes) != 0 {
		t.Fatal(mistakes)
	}
	if c.plan, err = clusternet.NewPlan(cl); err != nil {
		t.Fatal(err)
	}
	if c.net, err = clusternet.Start(filepath.Join(dir, "network"), c.plan); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.net.Close(); err != nil {
			t.Error(err)
		}
	})
	secrets := filepath.Join(c.out, "secrets")
	admin, err := os.ReadFile(filepath.Join(secrets, "admin.conf"))
	if err != nil {
		t.Fatal(err)
	}
	if c.client, c.rest, err = cluster.Client(secret.New(admin), c.net.API); err != nil {
		t.Fatal(err)
	}
	machines := map[string]node{}
	for _, name := range names {
		name, goarch := splitArch(name)
		m, ok := machines[goarch]
		if !ok {
			m.arch, m.tools = qemutest.Find(t, goarch)
			m.accel = qemu.ProbeAccel(t.Context(), m.tools, m.arch)
			t.Logf("%s: QEMU %s (%s), %s", goarch, m.tools.Version, m.tools.Origin, m.accel)
			machines[goarch] = m
		}
		c.names = append(c.names, name)
		n := &node{
			arch: m.arch, tools: m.tools, accel: m.accel, key: key, times: newTimeline(),
			image: filepath.Join(c.out, name+".img"), secrets: secrets, adminConf: secret.New(admin), artifacts: filepath.Join(c.artifacts, name),
			client: c.client, rest: c.rest,
		}
		n.times.add("imagegen build", took)
		c.nodes[name] = n
	}
	return c
}

// node returns a node by its name.
func (c *network) node(t *testing.T, name string) *node {
	t.Helper()
	n := c.nodes[name]
	if n == nil {
		t.Fatalf("there is no node %s", name)
	}
	return n
}

// start switches nodes on for the first time.
func (c *network) start(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		c.powerOn(t, name, false)
	}
}

// startFresh switches a node that was killed on with its image as it is now, as one
// does who has written a card anew.
func (c *network) startFresh(t *testing.T, name string) {
	t.Helper()
	c.node(t, name).ssh = nil
	c.powerOn(t, name, false)
}

// kill cuts a node's power, as it happens: nobody on the network is told.
func (c *network) kill(t *testing.T, name string) {
	t.Helper()
	c.node(t, name).machine.Kill()
}

// startAgain switches a node that was killed or shut down on, with its disk as it is.
func (c *network) startAgain(t *testing.T, name string) {
	t.Helper()
	c.powerOn(t, name, true)
}

// losePower cuts a node's power, calls meanwhile, switches the node on again, and waits
// until its kubelet has reported the boot and all its pods run.
func (c *network) losePower(t *testing.T, name string, meanwhile func()) {
	t.Helper()
	const bootID = "cat /proc/sys/kernel/random/boot_id"
	n := c.node(t, name)
	before := n.sh(t, bootID)
	state, err := cluster.Get(c.within(t, time.Minute), c.client)
	if err != nil {
		t.Fatal(err)
	}
	c.kill(t, name)
	meanwhile()
	start := time.Now()
	c.startAgain(t, name)
	if err := n.ssh.Wait(c.within(t, 3*time.Minute)); err != nil {
		t.Fatal(err)
	}
	after := n.sh(t, bootID)
	if after == before {
		t.Errorf("%s has not booted again", name)
	}
	if _, err := cluster.WaitBooted(c.within(t, 5*time.Minute), c.client, progress(t, start), name, after, state); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s is back after %.0f s", name, time.Since(start).Seconds())
}

func (c *network) powerOn(t *testing.T, name string, again bool) {
	t.Helper()
	n := c.node(t, name)
	at, _ := c.plan.Node(name)
	var cable *os.File
	var ports clusternet.Ports
	// The network notices a moment later that the machine of before is gone.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		var err error
		if cable, ports, err = c.net.Plug(ctx, at); err == nil {
			break
		}
		if n.machine == nil || ctx.Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	memory := workerMemoryMiB
	if at.ControlPlane {
		memory = guestMemoryMiB
	}
	m, err := qemu.Start(context.WithoutCancel(t.Context()), n.tools, qemu.Config{
		Arch: n.arch, Accel: n.accel, Name: name, Dir: filepath.Join(n.artifacts, "machine"), Reuse: again,
		// Not Fast: tests cut the power of these machines.
		Disks:     append([]qemu.Disk{{Image: n.image, SizeBytes: diskBytes}}, n.disks...),
		MemoryMiB: memory, CPUs: guestCPUs, Ethernet: &qemu.Ethernet{MAC: at.MAC, Cable: cable},
		Turns: c.turns, ExtraArgs: n.extraArgs,
	})
	if err != nil {
		t.Fatal(err)
	}
	n.machine = m
	if n.ssh == nil { // its host key stays the same
		n.ssh = &cluster.SSH{Port: ports.SSH, User: "root", Key: n.key}
	}
	t.Cleanup(func() {
		m.Kill()
		disks, _ := filepath.Glob(filepath.Join(m.Dir(), "disk*.qcow2"))
		for _, d := range disks {
			_ = os.Remove(d)
		}
	})
	t.Cleanup(func() {
		if t.Failed() && n.machine == m {
			ctx, cancel := context.WithTimeout(context.Background(), m.Scale(time.Minute))
			defer cancel()
			t.Logf("=== %s\n%s", name, cluster.Diagnose(ctx, filepath.Join(n.artifacts, "diagnostics"), m, n.client, n.ssh))
		}
	})
	t.Logf("%s started; console: %s", name, filepath.Join(m.Dir(), "console.log"))
}

// within returns a context that ends after d, stretched to the accelerator and to the
// turns that the machines take, and as soon as one that runs now will not get any further.
func (c *network) within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	var running []*node
	for _, name := range c.names {
		if n := c.nodes[name]; n.machine != nil && n.machine.Context().Err() == nil {
			running = append(running, n)
		}
	}
	if len(running) == 0 {
		t.Fatal("no machine runs")
	}
	d = c.turns.Scale(running[0].machine.Scale(d))
	ctx, cancel := context.WithCancelCause(t.Context())
	t.Cleanup(func() { cancel(nil) })
	timer := time.AfterFunc(d, func() { cancel(fmt.Errorf("%v have passed", d)) })
	t.Cleanup(func() { timer.Stop() })
	for _, n := range running {
		m := n.machine
		stop := context.AfterFunc(m.Context(), func() { cancel(context.Cause(m.Context())) })
		t.Cleanup(func() { stop() })
	}
	return ctx
}

// ready waits until the nodes are Ready and all pods run.
func (c *network) ready(t *testing.T, d time.Duration, names ...string) cluster.State {
	t.Helper()
	start := time.Now()
	state, err := cluster.WaitReady(c.within(t, d), c.client, progress(t, start), names...)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s ready after %.0f s\n%s", strings.Join(names, ", "), time.Since(start).Seconds(), state.Table())
	return state
}
