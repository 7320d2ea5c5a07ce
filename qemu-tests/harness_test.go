//go:build boot

package qemutests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"text/template"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/qemu"
	"github.com/kiln-os/kiln/internal/qemu/cluster"
	"github.com/kiln-os/kiln/internal/qemu/qemutest"
	"github.com/kiln-os/kiln/internal/secret"
)

// The node under test. Its network is none that anything else uses, so that a
// node that talks to a default address is noticed.
const (
	nodeName  = "story-1"
	address   = "192.168.76.10/24"
	gateway   = "192.168.76.1"
	dns       = "192.168.76.3"
	dnsDomain = "cluster.local"

	guestCPUs      = 2
	guestMemoryMiB = 4096
	diskBytes      = 12 << 30 // the image grows to it on the first boot
)

var clusterFile = template.Must(template.New("cluster.yaml").Parse(`apiVersion: kiln-os.dev/v1alpha1
kind: Cluster
name: story
nodes:
  - name: {{.Name}}
    role: control-plane
    profile: {{.Profile}}
    address: {{.Address}}
    gateway: {{.Gateway}}
    nameservers: [{{.DNS}}]
    labels:
      example.org/rack: r1
    taints: []
ssh:
  authorizedKeys:
    - {{.Key}}
{{.More}}`))

// node is a baked image, the machine that runs it and the ways to talk to it.
type node struct {
	arch      arch.Arch
	tools     *qemu.Tools
	accel     qemu.Accel
	key       *cluster.Key
	image     string // the disk image
	secrets   string // folder with admin.conf and the cluster's keys
	adminConf secret.Value
	artifacts string      // folder for what explains a failure
	disks     []qemu.Disk // besides the image's
	extraArgs []string    // of QEMU

	machine *qemu.Machine
	client  kubernetes.Interface
	rest    *rest.Config
	ssh     *cluster.SSH
	times   *timeline
}

// bake writes a cluster file and builds its image with the real imagegen.
func bake(t *testing.T) *node { return bakeWith(t, "") }

// bakeWith is bake with more settings in the cluster file.
func bakeWith(t *testing.T, more string) *node {
	t.Helper()
	return bakeFile(t, "amd64", clusterFile, words("qemu-amd64", more))
}

// words are what clusterFile is made of, but for the test's key.
func words(profile, more string) map[string]string {
	return map[string]string{"Name": nodeName, "Profile": profile, "Address": address, "Gateway": gateway, "DNS": dns, "More": more}
}

// bakeFile is bake of a cluster file for an architecture, made of words and the test's
// Key.
func bakeFile(t *testing.T, goarch string, clusterFile *template.Template, words map[string]string) *node {
	t.Helper()
	return bakeBy(t, run, goarch, clusterFile, words)
}

// bakeBy is bakeFile whose image is built by a function that runs imagegen.
func bakeBy(t *testing.T, build func(t *testing.T, imagegen string, args ...string), goarch string, clusterFile *template.Template, words map[string]string) *node {
	t.Helper()
	n := &node{artifacts: artifactsDir(t), times: newTimeline()}
	n.arch, n.tools = qemutest.Find(t, goarch)
	var err error
	if n.key, err = cluster.NewKey("kiln-boot-test"); err != nil {
		t.Fatal(err)
	}
	words["Key"] = n.key.Authorized
	dir := t.TempDir()
	var file bytes.Buffer
	if err := clusterFile.Execute(&file, words); err != nil {
		t.Fatal(err)
	}
	path, out := filepath.Join(dir, "cluster.yaml"), filepath.Join(dir, "out")
	if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	imagegen := imagegenPath(t)
	start := time.Now()
	build(t, imagegen, "build", path, "-o", out)
	n.times.add("imagegen build", time.Since(start))

	n.image, n.secrets = filepath.Join(out, nodeName+".img"), filepath.Join(out, "secrets")
	admin, err := os.ReadFile(filepath.Join(n.secrets, "admin.conf"))
	if err != nil {
		t.Fatal(err)
	}
	n.adminConf = secret.New(admin)
	// What a test changes goes to an overlay; the image itself must not change.
	before := fileState(t, n.image)
	t.Cleanup(func() {
		if after := fileState(t, n.image); after != before {
			t.Errorf("the built image was changed by running it: %s, was %s", after, before)
		}
	})

	n.accel = qemu.ProbeAccel(t.Context(), n.tools, n.arch)
	t.Logf("QEMU %s (%s), %s", n.tools.Version, n.tools.Origin, n.accel)
	return n
}

// isolatedNet is the network that the node under test expects. Nothing is downloaded
// by a node, and this proves it: there is nowhere to download from.
func isolatedNet() *qemu.Net {
	net := qemu.NetFor(netip.MustParsePrefix(address), netip.MustParseAddr(gateway), []netip.Addr{netip.MustParseAddr(dns)}, qemu.Forward{GuestPort: 6443}, qemu.Forward{GuestPort: 22})
	net.Isolated = true
	return net
}

// boot starts the machine, without a network beyond itself, and connects the clients.
func (n *node) boot(t *testing.T) {
	t.Helper()
	n.powerOn(t, false)
}

// bootAgain starts the machine, which was shut down, with its disk as it is.
func (n *node) bootAgain(t *testing.T) {
	t.Helper()
	n.powerOn(t, true)
}

func (n *node) powerOn(t *testing.T, again bool) {
	t.Helper()
	n.start(t, qemu.Config{Disks: append([]qemu.Disk{{Image: n.image, SizeBytes: diskBytes, Fast: true}}, n.disks...), Reuse: again})
}

// start starts a machine that boots from what c says, and connects the clients.
func (n *node) start(t *testing.T, c qemu.Config) {
	t.Helper()
	c.Arch, c.Accel, c.Name, c.Dir = n.arch, n.accel, nodeName, filepath.Join(n.artifacts, nodeName)
	c.MemoryMiB, c.CPUs, c.Net = guestMemoryMiB, guestCPUs, isolatedNet()
	m, err := qemu.Start(context.WithoutCancel(t.Context()), n.tools, c)
	if err != nil {
		t.Fatal(err)
	}
	n.machine = m
	// The machine goes last: what is found out about a failure needs it running.
	t.Cleanup(func() {
		m.Kill()
		disks, _ := filepath.Glob(filepath.Join(m.Dir(), "disk*.qcow2"))
		for _, d := range disks { // gigabytes that explain little
			_ = os.Remove(d)
		}
	})
	t.Cleanup(func() {
		if t.Failed() {
			ctx, cancel := context.WithTimeout(context.Background(), m.Scale(2*time.Minute))
			defer cancel()
			t.Log(cluster.Diagnose(ctx, filepath.Join(n.artifacts, "diagnostics"), m, n.client, n.ssh))
		}
	})
	api, err := m.HostPort(6443)
	if err != nil {
		t.Fatal(err)
	}
	sshPort, err := m.HostPort(22)
	if err != nil {
		t.Fatal(err)
	}
	if n.client, n.rest, err = cluster.Client(n.adminConf, api); err != nil {
		t.Fatal(err)
	}
	n.ssh = &cluster.SSH{Port: sshPort, User: "root", Key: n.key}
	t.Logf("started; console: %s", filepath.Join(m.Dir(), "console.log"))
}

// within returns a context that ends after d, stretched to the accelerator, and
// as soon as the machine shows that it will not get any further.
func (n *node) within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	d = n.machine.Scale(d)
	ctx, cancel := context.WithTimeoutCause(n.machine.Context(), d, fmt.Errorf("%v have passed", d))
	t.Cleanup(cancel)
	return ctx
}

// sh runs a command on the node; one that fails fails the test.
func (n *node) sh(t *testing.T, command string) string {
	t.Helper()
	out, err := n.ssh.Run(n.within(t, time.Minute), command)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// shFails runs a command that must fail on the node, and returns the error.
func (n *node) shFails(t *testing.T, command string) *cluster.RemoteError {
	t.Helper()
	out, err := n.ssh.Run(n.within(t, time.Minute), command)
	var remote *cluster.RemoteError
	if !errors.As(err, &remote) {
		t.Fatalf("%s: got %q, %v; it must fail", command, out, err)
	}
	return remote
}

// artifactsDir returns the folder for what explains a failure.
func artifactsDir(t *testing.T) string {
	t.Helper()
	if d := os.Getenv("KILN_ARTIFACTS"); d != "" {
		d = filepath.Join(d, t.Name())
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		return d
	}
	d, err := os.MkdirTemp("", "kiln-boot-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("kept for you to look at: %s", d)
			return
		}
		_ = os.RemoveAll(d)
	})
	return d
}

// imagegenPath returns the imagegen to test; it is built if none is named.
func imagegenPath(t *testing.T) string {
	t.Helper()
	if p := os.Getenv("KILN_IMAGEGEN"); p != "" {
		p, err := filepath.Abs(p)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := filepath.Join(t.TempDir(), "imagegen")
	run(t, "go", "build", "-o", p, "../cmd/imagegen")
	return p
}

// run runs a program of this host, with its output in the test's log.
func run(t *testing.T, name string, args ...string) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdout = io.MultiWriter(&out, t.Output())
	cmd.Stderr = cmd.Stdout
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v", strings.Join(cmd.Args, " "), err)
	}
}

// fileState is enough to notice that somebody wrote to a file.
func fileState(t *testing.T, path string) string {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d bytes of %s", st.Size(), st.ModTime().UTC().Format(time.RFC3339Nano))
}
