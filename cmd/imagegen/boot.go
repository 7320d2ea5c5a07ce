package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/build"
	"github.com/kiln-os/kiln/internal/cache"
	"github.com/kiln-os/kiln/internal/hosttools"
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
into the cache; KVM is used only if a probe guest runs with it.`,
		Example: `  imagegen build cluster.yaml -o out/ && imagegen boot cluster.yaml -o out/
  KUBECONFIG=out/kubeconfig kubectl get pods -A     # in another terminal
  imagegen boot cluster.yaml -o out/ --until-ready  # for CI: 0 only if all is Ready`,
		Args: exactArgs("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.load(args[0])
			if err != nil {
				return err
			}
			return a.boot(cmd.Context(), cl, f)
		},
	}
	fl := c.Flags()
	fl.StringVarP(&f.out, "output", "o", "out", "output folder of the build")
	fl.BoolVar(&f.untilReady, "until-ready", false, "end when the node is Ready and all pods run; fail if that takes too long")
	fl.BoolVar(&f.console, "console", false, "show the whole console, not only the phases of the first boot")
	fl.IntVar(&f.memory, "memory", 4096, "memory of the machine in MiB")
	fl.IntVar(&f.cpus, "cpus", 2, "number of CPUs")
	fl.Int64Var(&f.diskGiB, "disk", 12, "size of the disk in GiB")
	return c
}

func (a *app) boot(ctx context.Context, cl *spec.Cluster, f bootFlags) error {
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
	say := func(format string, args ...any) { fmt.Fprintf(a.Err, format+"\n", args...) }
	tools, err := qemu.Find(ctx, target, hosttools.Options{Cache: store, Mirror: a.mirror, Now: time.Now(), Log: func(s string) { say("%s", s) }})
	if err != nil {
		return err
	}
	accel := qemu.ProbeAccel(ctx, tools, target)
	say("QEMU %s, %s", tools.Version, accel)

	dir, err := os.MkdirTemp("", "kiln-boot-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	watch := &phaseWatch{w: a.Err, all: f.console}
	m, err := qemu.Start(context.WithoutCancel(ctx), tools, qemu.Config{
		Arch: target, Accel: accel, Name: node.Name, Dir: dir, MemoryMiB: f.memory, CPUs: f.cpus, Console: watch,
		Disks: []qemu.Disk{{Image: image, SizeBytes: f.diskGiB << 30, Fast: true}},
		Net:   qemu.NetFor(node.Address, node.Gateway, node.Nameservers, qemu.Forward{GuestPort: bootplan.DefaultAPIPort}, qemu.Forward{GuestPort: 22}),
	})
	if err != nil {
		return err
	}
	defer m.Kill()
	watch.started(time.Now())
	port, err := m.HostPort(bootplan.DefaultAPIPort)
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
	say("%s starts; kubeconfig: %s (API server at 127.0.0.1:%d, SSH at 127.0.0.1:%d)", node.Name, kubeconfig, port, sshPort)

	state, err := a.waitReady(ctx, m, secret.New(admin), port, node.Name)
	if err != nil {
		if ctx.Err() == nil {
			say("\nThe last lines of the console:\n%s", m.Console().Tail(40))
			if s := m.StderrTail(); s != "" {
				say("\nQEMU said:\n%s", s)
			}
		}
		return err
	}
	fmt.Fprintf(a.Out, "\n%s\n", state.Table())
	a.printTimes(f.out, watch.times(time.Now()))
	if f.untilReady {
		return nil
	}
	say("\nReady. Use it with:\n  KUBECONFIG=%s kubectl get pods -A\nCtrl-C stops it.", kubeconfig)
	select {
	case <-ctx.Done():
		// How a person ends this: no error.
		say("stopping %s; a second Ctrl-C cuts its power", node.Name)
		return stopMachine(m, accel.Scale(30*time.Second))
	case <-m.Context().Done():
		return fmt.Errorf("%s stopped: %w", node.Name, context.Cause(m.Context()))
	}
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
func (a *app) waitReady(ctx context.Context, m *qemu.Machine, admin secret.Value, port int, node string) (cluster.State, error) {
	client, _, err := cluster.Client(admin, port)
	if err != nil {
		return cluster.State{}, err
	}
	limit := m.Scale(bootTimeout)
	wait, cancel := context.WithTimeoutCause(m.Context(), limit, fmt.Errorf("not Ready within %s", limit))
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	state, err := cluster.WaitReady(wait, client, nil, node)
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

// printTimes prints how long the build's and the boot's steps took.
func (a *app) printTimes(out string, boot []build.StepTime) {
	var steps []build.StepTime
	b, err := os.ReadFile(filepath.Join(out, build.TimesFile))
	if err == nil {
		err = json.Unmarshal(b, &steps)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		fmt.Fprintf(a.Err, "times of the build: %v\n", err)
	}
	w := tabwriter.NewWriter(a.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "STEP\tSECONDS")
	for _, s := range steps {
		fmt.Fprintf(w, "build: %s\t%.1f\n", s.Name, s.Seconds)
	}
	for _, s := range boot {
		fmt.Fprintf(w, "boot: %s\t%.1f\n", s.Name, s.Seconds)
	}
	_ = w.Flush()
}

// milestones are console lines that begin a part of the boot.
var milestones = []struct {
	name string
	re   *regexp.Regexp
}{
	{"kernel", regexp.MustCompile(`Linux version \d`)},
	{"initramfs", regexp.MustCompile(`Running in initrd|Booting initrd of`)},
	{"system start", regexp.MustCompile(`Switching root|Welcome to .*Kiln`)},
}

// firstbootLine is what firstboot prints: "[ 3/16] certs: issuing apiserver".
var firstbootLine = regexp.MustCompile(`\[ ?\d+/\d+\] ([a-z0-9-]+): .*`)

// phaseWatch reads the console: it shows the phases of the first boot and keeps
// when each began.
type phaseWatch struct {
	w   io.Writer
	all bool

	mu    sync.Mutex
	start time.Time
	next  int // of milestones
	parts []part
}

type part struct {
	name string
	at   time.Time
}

func (p *phaseWatch) started(at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.start = at
}

// Write gets whole lines.
func (p *phaseWatch) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range strings.Split(strings.TrimRight(string(b), "\n"), "\n") {
		shown := p.all
		for i := p.next; i < len(milestones); i++ {
			if milestones[i].re.MatchString(line) {
				p.next = i + 1
				p.begin(milestones[i].name)
			}
		}
		if m := firstbootLine.FindStringSubmatch(line); m != nil {
			p.begin("firstboot: " + m[1])
			if !p.all {
				fmt.Fprintln(p.w, m[0])
			}
		}
		if shown {
			fmt.Fprintln(p.w, line)
		}
	}
	return len(b), nil
}

func (p *phaseWatch) begin(name string) {
	if n := len(p.parts); n == 0 || p.parts[n-1].name != name {
		p.parts = append(p.parts, part{name, time.Now()})
	}
}

// times returns how long each part took; the last one ended at end.
func (p *phaseWatch) times(end time.Time) []build.StepTime {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []build.StepTime
	at, name := p.start, "firmware and boot loader"
	for _, x := range append(p.parts, part{"", end}) {
		out = append(out, build.StepTime{Name: name, Seconds: x.at.Sub(at).Seconds()})
		at, name = x.at, x.name
	}
	return append(out, build.StepTime{Name: "power-on to Ready", Seconds: end.Sub(p.start).Seconds()})
}
