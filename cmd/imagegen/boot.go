package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/build"
	"github.com/kiln-os/kiln/internal/cache"
	"github.com/kiln-os/kiln/internal/clusternet"
	"github.com/kiln-os/kiln/internal/hosttools"
	"github.com/kiln-os/kiln/internal/nodeimage"
	"github.com/kiln-os/kiln/internal/progress"
	"github.com/kiln-os/kiln/internal/qemu"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/profiles"
)

// bootTimeout bounds the way from power-on to a Ready cluster; emulated machines
// get several times as long (qemu.Accel.Scale).
const bootTimeout = 10 * time.Minute

// bootDir is the folder in the output folder with what belongs to the running
// machines: their disks' overlays, their consoles, and where their network is.
const bootDir = ".boot"

type bootFlags struct {
	out        string
	nodes      []string
	untilReady bool
	console    bool
	internet   bool
	memory     perNode
	cpus       perNode
	disk       perNode
}

func (a *app) bootCommand() *cobra.Command {
	f := bootFlags{memory: perNode{unit: "MiB"}, cpus: perNode{unit: "CPUs"}, disk: perNode{unit: "GiB"}}
	c := &cobra.Command{
		Use:   "boot FILE",
		Short: "Run a built cluster in QEMU until Ctrl-C",
		Long: `Run the images of a built cluster in QEMU, through firmware and boot loader as on
real machines, until Ctrl-C. The API server is reached through a forwarded port of
127.0.0.1; a kubeconfig that does so is written to kubeconfig in the output folder.

All nodes are on one private network with the addresses, gateways and name servers
of the cluster file; it needs no root and nothing of it is visible on the host but
the forwarded ports: the API server of each control plane, one port that leads to
a control plane that answers, and SSH of each node. The network leads nowhere
unless --internet is given. A controlPlaneEndpoint that is a name, or an address
outside of the nodes' subnets, is balanced over the control planes.

With --node only that node is started: as the first of its cluster, or on the
network of an imagegen boot that runs from the same output folder.

The built images are not changed: the machines write to overlays, which are thrown
away at the end. A QEMU that is too old or absent is replaced by Debian's, unpacked
into the cache; KVM is used only if a probe guest runs with it.

Emulated machines that have more CPUs than the host run in turns: the others stand
still meanwhile, and their clocks with them, so that a cluster of any size boots,
slowly.

Each part of a node's boot and each phase of firstboot on it is shown as a step
with its time.`,
		Example: `  imagegen build cluster.yaml -o out/ && imagegen boot cluster.yaml -o out/
  KUBECONFIG=out/kubeconfig kubectl get pods -A     # in another terminal
  imagegen boot cluster.yaml -o out/ --node kiln-1  # the first control plane alone
  imagegen boot cluster.yaml -o out/ --node kiln-2  # in another terminal: one more
  imagegen boot cluster.yaml -o out/ --memory 3072 --memory kiln-1=8192
  imagegen boot cluster.yaml -o out/ --until-ready  # for CI: 0 only if all is Ready
  imagegen boot cluster.yaml -o out/ --json         # for programs: events on standard error`,
		Args:              exactArgs("FILE"),
		ValidArgsFunction: clusterFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, _, err := a.load(args[0])
			if err != nil {
				return err
			}
			cl = cl.Expand()
			if err := f.check(cl); err != nil {
				return usageError{err}
			}
			return a.boot(cmd.Context(), cl, f)
		},
	}
	fl := c.Flags()
	fl.StringVarP(&f.out, "output", "o", "out", "output folder of the build")
	fl.StringArrayVar(&f.nodes, "node", nil, "start this node alone, or on the running network; may be repeated")
	fl.BoolVar(&f.untilReady, "until-ready", false, "end when the nodes are Ready and all pods run; fail if that takes too long")
	fl.BoolVar(&f.console, "console", false, "show the whole consoles too, not only the steps of the boot")
	fl.BoolVar(&f.internet, "internet", false, "let the nodes reach what this host reaches")
	fl.Var(&f.memory, "memory", "memory in MiB, of each machine or as NODE=MIB of one (default 4096, of workers 2048)")
	fl.Var(&f.cpus, "cpus", "number of CPUs, of each machine or as NODE=N of one (default 2)")
	fl.Var(&f.disk, "disk", "size of the disk in GiB, of each machine or as NODE=GIB of one (default 12)")
	a.jsonFlag(c)
	completeFolder(c, "output")
	for _, name := range []string{"node", "memory", "cpus", "disk"} {
		completeWords(c, name)
	}
	return c
}

// check holds the flags to the nodes of the cluster file.
func (f bootFlags) check(cl *spec.Cluster) error {
	named := append([]string(nil), f.nodes...)
	for _, p := range []perNode{f.memory, f.cpus, f.disk} {
		named = append(named, p.nodes()...)
	}
	for _, name := range named {
		if _, ok := cl.Node(name); !ok {
			var all []string
			for _, n := range cl.Nodes {
				all = append(all, n.Name)
			}
			return fmt.Errorf("there is no node %q in the cluster file; its nodes: %s", name, strings.Join(all, ", "))
		}
	}
	return nil
}

// selected returns the nodes to start, in the file's order.
func (f bootFlags) selected(cl *spec.Cluster) []spec.Node {
	if len(f.nodes) == 0 {
		return cl.Nodes
	}
	var out []spec.Node
	for _, n := range cl.Nodes {
		for _, name := range f.nodes {
			if n.Name == name {
				out = append(out, n)
				break
			}
		}
	}
	return out
}

// boot runs the machines.
func (a *app) boot(ctx context.Context, cl *spec.Cluster, f bootFlags) (err error) {
	report := a.reporter()
	defer func() { report.Finish(err) }()
	// What the network's libraries have to say must not go through the progress.
	logrus.SetOutput(lineWriter(func(line string) { report.Log("network: " + line) }))
	if cl.Existing() {
		return errors.New("the cluster file has workers alone, for a cluster that there is, and the machines' network leads nowhere; boot the images in the network of that cluster")
	}
	nodes := f.selected(cl)
	admin, err := os.ReadFile(filepath.Join(f.out, build.SecretsDir, build.AdminConf))
	if err != nil {
		return fmt.Errorf("%w; imagegen build makes it", err)
	}
	for _, n := range nodes {
		p, err := profiles.Load(n.Profile)
		if err != nil {
			return err
		}
		image := filepath.Join(f.out, build.ImageName(cmp.Or(n.Image, n.Name)))
		if _, err := os.Stat(image); err != nil {
			return fmt.Errorf("%w; imagegen build%s makes it", err, formatHint(p))
		}
		if err := checkImage(image, n, p); err != nil {
			return err
		}
	}
	plan, err := clusternet.NewPlan(cl)
	if err != nil {
		return err
	}
	plan.Config.Internet = f.internet

	dir := filepath.Join(f.out, bootDir)
	network, err := openNetwork(ctx, dir, plan, f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, network.Close()) }()
	emulators, err := a.emulators(ctx, report, nodes)
	if err != nil {
		return orInterrupted(ctx, err)
	}
	kubeconfig := filepath.Join(f.out, "kubeconfig")
	if err := writeKubeconfig(kubeconfig, secret.New(admin), network.API); err != nil {
		return err
	}
	fleet := &fleet{report: report, network: network, kubeconfig: kubeconfig, turns: qemu.NewTurns()}
	defer fleet.kill()
	if err := fleet.start(ctx, a, dir, plan, nodes, emulators, f); err != nil {
		return orInterrupted(ctx, err)
	}
	start := time.Now()
	state, err := fleet.waitReady(ctx, secret.New(admin))
	if err != nil {
		return err
	}
	seconds := time.Since(start).Seconds()
	report.Event(progress.Event{Event: progress.EventReady, Seconds: &seconds})
	if err := a.reportBoot(report, state, fleet, f.out); err != nil || f.untilReady {
		return err
	}
	report.Notef("\nReady. Use it with:\n  KUBECONFIG=%s kubectl get pods -A\nCtrl-C stops it.", kubeconfig)
	return fleet.run(ctx)
}

// openNetwork starts the cluster's network, or finds the one that runs if single
// nodes were asked for.
func openNetwork(ctx context.Context, dir string, plan clusternet.Plan, f bootFlags) (*clusternet.Network, error) {
	if len(f.nodes) > 0 {
		n, err := clusternet.Join(ctx, dir)
		if !errors.Is(err, clusternet.ErrNone) {
			if err == nil && f.internet {
				err = errors.Join(usageError{errors.New("the cluster's network runs already; whether it leads to the Internet was said when it was started")}, n.Close())
			}
			return n, err
		}
	}
	n, err := clusternet.Start(dir, plan)
	if errors.As(err, new(*clusternet.RunningError)) {
		return nil, fmt.Errorf("%w; --node NAME starts one more node of it", err)
	}
	return n, err
}

// emulator is how machines of one architecture run.
type emulator struct {
	arch  arch.Arch
	tools *qemu.Tools
	accel qemu.Accel
}

// checkImage makes sure that an image is what the cluster file says of its node: the
// machine is started for the profile's processor, on which another one's image shows nothing.
func checkImage(path string, n spec.Node, p profiles.Profile) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	profile, _, err := nodeimage.NodeOf(f)
	if err != nil {
		return fmt.Errorf("%s: %w; imagegen build makes it anew", path, err)
	}
	if profile == p.Name {
		return nil
	}
	was, err := profiles.Load(profile)
	if err != nil {
		return err
	}
	return fmt.Errorf("%s is an image of profile %s (%s), and the cluster file says %s (%s) for node %s: imagegen build makes it anew", path, profile, was.Arch, p.Name, p.Arch, n.Name)
}

// noEmulator says which node cannot be run, and what would run it.
func noEmulator(n spec.Node, p profiles.Profile, a arch.Arch, err error) error {
	packages := a.QEMU.Package
	if a.QEMU.FirmwarePackage != "" {
		packages += " and " + a.QEMU.FirmwarePackage
	}
	return fmt.Errorf("node %s (profile %s) needs an emulator of %s: %w; install %s %s or newer (Debian: %s), or give a mirror that can be reached with --mirror",
		n.Name, p.Name, a.Go, err, a.QEMU.Binary, qemu.MinVersion, packages)
}

// emulators finds a QEMU for each node's profile.
func (a *app) emulators(ctx context.Context, report *progress.Reporter, nodes []spec.Node) (map[string]emulator, error) {
	store, err := cache.Open(a.cacheDir)
	if err != nil {
		return nil, err
	}
	store.Log = report.Log
	report.Step("QEMU")
	byProfile, byArch := map[string]emulator{}, map[string]emulator{}
	for _, n := range nodes {
		p, err := profiles.Load(n.Profile)
		if err != nil {
			return nil, err
		}
		e, ok := byArch[p.Arch]
		if !ok {
			if e.arch, err = arch.Get(p.Arch); err != nil {
				return nil, err
			}
			if e.tools, err = qemu.Find(ctx, e.arch, hosttools.Options{Cache: store, Mirror: a.mirror, Now: time.Now(), Log: report.Log}); err != nil {
				return nil, noEmulator(n, p, e.arch, err)
			}
			e.accel = qemu.ProbeAccel(ctx, e.tools, e.arch)
			byArch[p.Arch] = e
		}
		byProfile[n.Profile] = e
	}
	report.End(nil)
	return byProfile, ctx.Err()
}
