package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/build"
	"github.com/kiln-os/kiln/internal/cache"
	"github.com/kiln-os/kiln/internal/hosttools"
	"github.com/kiln-os/kiln/internal/progress"
	"github.com/kiln-os/kiln/internal/qemu"
	"github.com/kiln-os/kiln/internal/qemu/cluster"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/profiles"
)

// bootTimeout bounds the way from power-on to a Ready node; an emulated machine
// gets several times as long (qemu.Accel.Scale).
const bootTimeout = 10 * time.Minute

type bootFlags struct {
	out        string
	untilReady bool
	console    bool
	memory     int
	cpus       int
	diskGiB    int64
}

func (a *app) bootCommand() *cobra.Command {
	var f bootFlags
	c := &cobra.Command{
		Use:   "boot FILE",
		Short: "Run a built cluster in QEMU until Ctrl-C",
		Long: `Run the images of a built cluster in QEMU, through firmware and boot loader as on a
real machine, until Ctrl-C. The API server is reached through a forwarded port of
127.0.0.1; a kubeconfig that does so is written to kubeconfig in the output folder.

The built image is not changed: the machine writes to an overlay, which is thrown
away at the end. A QEMU that is too old or absent is replaced by Debian's, unpacked
into the cache; KVM is used only if a probe guest runs with it.

Each part of the boot and each phase of firstboot on the node is shown as a step
with its time.`,
		Example: `  imagegen build cluster.yaml -o out/ && imagegen boot cluster.yaml -o out/
  KUBECONFIG=out/kubeconfig kubectl get pods -A     # in another terminal
  imagegen boot cluster.yaml -o out/ --until-ready  # for CI: 0 only if all is Ready
  imagegen boot cluster.yaml -o out/ --json         # for programs: events on standard error`,
		Args:              exactArgs("FILE"),
		ValidArgsFunction: clusterFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, _, err := a.load(args[0])
			if err != nil {
				return err
			}
			return a.boot(cmd.Context(), cl, f)
		},
	}
	fl := c.Flags()
	fl.StringVarP(&f.out, "output", "o", "out", "output folder of the build")
	fl.BoolVar(&f.untilReady, "until-ready", false, "end when the node is Ready and all pods run; fail if that takes too long")
	fl.BoolVar(&f.console, "console", false, "show the whole console too, not only the steps of the boot")
	fl.IntVar(&f.memory, "memory", 4096, "memory of the machine in MiB")
	fl.IntVar(&f.cpus, "cpus", 2, "number of CPUs")
	fl.Int64Var(&f.diskGiB, "disk", 12, "size of the disk in GiB")
	a.jsonFlag(c)
	completeFolder(c, "output")
	for _, number := range []string{"memory", "cpus", "disk"} {
		completeWords(c, number)
	}
	return c
}

// boot runs the cluster's first machine.
func (a *app) boot(ctx context.Context, cl *spec.Cluster, f bootFlags) (err error) {
	report := a.reporter()
	defer func() { report.Finish(err) }()
	node := cl.ControlPlanes()[0]
	image := filepath.Join(f.out, build.ImageName(node.Name))
	adminPath := filepath.Join(f.out, build.SecretsDir, build.AdminConf)
	admin, err := os.ReadFile(adminPath)
	if err == nil {
		_, err = os.Stat(image)
	}
	if err != nil {
		return fmt.Errorf("%w; imagegen build makes it", err)
	}
	p, err := profiles.Load(node.Profile)
	if err != nil {
		return err
	}
	target, err := arch.Get(p.Arch)
	if err != nil {
		return err
	}
	store, err := cache.Open(a.cacheDir)
	if err != nil {
		return err
	}
	store.Log = report.Log
	report.Step("QEMU")
	tools, err := qemu.Find(ctx, target, hosttools.Options{Cache: store, Mirror: a.mirror, Now: time.Now(), Log: report.Log})
	if err != nil {
		return orInterrupted(ctx, err)
	}
	accel := qemu.ProbeAccel(ctx, tools, target)
	report.End(nil)

	dir, err := os.MkdirTemp("", "kiln-boot-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	watch := newBootWatch(report, f.console)
	m, err := qemu.Start(context.WithoutCancel(ctx), tools, qemu.Config{
		Arch: target, Accel: accel, Name: node.Name, Dir: dir, MemoryMiB: f.memory, CPUs: f.cpus, Console: watch,
		Disks: []qemu.Disk{{Image: image, SizeBytes: f.diskGiB << 30, Fast: true}},
		Net:   qemu.NetFor(node.Address, node.Gateway, node.Nameservers, qemu.Forward{GuestPort: cl.APIPort(node)}, qemu.Forward{GuestPort: 22}),
	})
	if err != nil {
		return err
	}
	defer m.Kill()
	port, err := m.HostPort(cl.APIPort(node))
	if err != nil {
		return err
	}
	kubeconfig := filepath.Join(f.out, "kubeconfig")
	if err := writeKubeconfig(kubeconfig, secret.New(admin), port); err != nil {
		return err
	}
	sshPort, err := m.HostPort(22)
	if err != nil {
		return err
	}
	if !a.json {
		report.Notef("%s starts in QEMU %s (%s); kubeconfig: %s (API server at 127.0.0.1:%d, SSH at 127.0.0.1:%d)", node.Name, tools.Version, accel, kubeconfig, port, sshPort)
	}
	report.Event(progress.Event{Event: progress.EventMachine, Machine: &progress.Machine{
		Node: node.Name, QEMU: tools.Version.String(), KVM: accel.KVM, Kubeconfig: kubeconfig, APIPort: port, SSHPort: sshPort,
	}})

	state, err := a.waitReady(ctx, m, secret.New(admin), port, node.Name, watch.Pending)
	if err != nil {
		return withMachineOutput(ctx, err, m)
	}
	report.End(nil)
	times := watch.times(time.Now())
	seconds := times[len(times)-1].Seconds
	report.Event(progress.Event{Event: progress.EventReady, Seconds: &seconds})
	if err := a.reportBoot(report, state, node.Name, kubeconfig, f.out, times); err != nil || f.untilReady {
		return err
	}
	report.Notef("\nReady. Use it with:\n  KUBECONFIG=%s kubectl get pods -A\nCtrl-C stops it.", kubeconfig)
	select {
	case <-ctx.Done():
		// How a person ends this: no error.
		report.Notef("stopping %s; a second Ctrl-C cuts its power", node.Name)
		return stopMachine(m, accel.Scale(30*time.Second))
	case <-m.Context().Done():
		return fmt.Errorf("%s stopped: %w", node.Name, context.Cause(m.Context()))
	}
}

// withMachineOutput adds to an error what the machine said last. A failure that
// was seen on the console has its lines already.
func withMachineOutput(ctx context.Context, err error, m *qemu.Machine) error {
	if ctx.Err() != nil {
		return err
	}
	if !errors.As(err, new(*qemu.ConsoleError)) {
		err = fmt.Errorf("%w\n\nThe last lines of the console:\n%s", err, m.Console().Tail(40))
	}
	if s := m.StderrTail(); s != "" {
		err = fmt.Errorf("%w\n\nQEMU said:\n%s", err, s)
	}
	return err
}

// stopMachine shuts the machine down in order, for at most limit or until another
// signal arrives, and then cuts its power.
func stopMachine(m *qemu.Machine, limit time.Duration) error {
	impatient, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	ctx, cancel := context.WithTimeout(impatient, limit)
	defer cancel()
	err := m.Stop(ctx)
	if impatient.Err() != nil {
		return nil
	}
	return err
}

// waitReady waits until the node is Ready and all pods run, or the machine fails.
// pending is told what is missing.
func (a *app) waitReady(ctx context.Context, m *qemu.Machine, admin secret.Value, port int, node string, pending func(string)) (cluster.State, error) {
	client, _, err := cluster.Client(admin, port)
	if err != nil {
		return cluster.State{}, err
	}
	limit := m.Scale(bootTimeout)
	wait, cancel := context.WithTimeoutCause(m.Context(), limit, fmt.Errorf("not Ready within %s", limit))
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	state, err := cluster.WaitReady(wait, client, pending, node)
	if ctx.Err() != nil {
		return state, ctx.Err()
	}
	return state, err
}

func writeKubeconfig(path string, admin secret.Value, port int) error {
	kc, err := cluster.Kubeconfig(admin, port)
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(path, kc.Reveal(), 0o600)
}

// reportBoot prints the result: what runs, and how long the build's and the boot's
// steps took.
func (a *app) reportBoot(report *progress.Reporter, state cluster.State, node, kubeconfig, out string, boot []build.StepTime) error {
	if a.json {
		return a.printJSON(map[string]any{"node": node, "kubeconfig": kubeconfig, "steps": boot})
	}
	var steps []build.StepTime
	b, err := os.ReadFile(filepath.Join(out, build.TimesFile))
	if err == nil {
		err = json.Unmarshal(b, &steps)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		report.Notef("times of the build: %v", err)
	}
	fmt.Fprintf(a.Out, "\n%s\n", state.Table())
	w := tabwriter.NewWriter(a.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "STEP\tSECONDS")
	for _, s := range steps {
		fmt.Fprintf(w, "build: %s\t%.1f\n", s.Name, s.Seconds)
	}
	for _, s := range boot {
		fmt.Fprintf(w, "boot: %s\t%.1f\n", s.Name, s.Seconds)
	}
	return w.Flush()
}
