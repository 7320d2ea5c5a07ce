package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/kiln-os/kiln/internal/build"
	"github.com/kiln-os/kiln/internal/clusternet"
	"github.com/kiln-os/kiln/internal/progress"
	"github.com/kiln-os/kiln/internal/qemu"
	"github.com/kiln-os/kiln/internal/qemu/cluster"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/internal/spec"
)

// Memory in MiB: a control plane runs etcd and the API server besides what a worker
// does.
const (
	controlPlaneMemory = 4096
	workerMemory       = 2048
)

// stopTime is how long machines have to shut down when a person ends the boot.
const stopTime = 30 * time.Second

// fleet is the machines of one imagegen boot.
type fleet struct {
	report     *progress.Reporter
	network    *clusternet.Network
	kubeconfig string
	machines   []*bootMachine
	turns      *qemu.Turns
}

// bootMachine is a running node.
type bootMachine struct {
	node  spec.Node
	ports clusternet.Ports
	lane  *progress.Lane
	watch *bootWatch
	m     *qemu.Machine
	dir   string
}

// start starts a machine for each node.
func (f *fleet) start(ctx context.Context, a *app, dir string, plan clusternet.Plan, nodes []spec.Node, emulators map[string]emulator, flags bootFlags) error {
	var names []string
	for _, n := range nodes {
		names = append(names, n.Name)
	}
	lanes := f.report.Lanes(names...)
	for i, n := range nodes {
		e := emulators[n.Profile]
		at, _ := plan.Node(n.Name) // the plan has all nodes of the file
		cable, ports, err := f.network.Plug(ctx, at)
		if err != nil {
			return err
		}
		b := &bootMachine{node: n, ports: ports, lane: lanes[i], dir: filepath.Join(dir, n.Name)}
		if err := os.RemoveAll(b.dir); err != nil { // of an earlier run
			return errors.Join(err, cable.Close())
		}
		memory := workerMemory
		if n.Role == spec.RoleControlPlane {
			memory = controlPlaneMemory
		}
		b.watch = newBootWatch(b.lane, flags.console)
		b.m, err = qemu.Start(context.WithoutCancel(ctx), e.tools, qemu.Config{
			Arch: e.arch, Accel: e.accel, Name: n.Name, Dir: b.dir, Console: b.watch,
			MemoryMiB: flags.memory.of(n.Name, memory), CPUs: flags.cpus.of(n.Name, 2),
			Disks:        []qemu.Disk{{Image: filepath.Join(flags.out, build.ImageName(cmp.Or(n.Image, n.Name))), SizeBytes: int64(flags.disk.of(n.Name, 12)) << 30, Fast: true}},
			SerialNumber: n.Serial,
			Ethernet:     &qemu.Ethernet{MAC: at.MAC, Cable: cable},
			Turns:        f.turns,
		})
		if err != nil {
			return err
		}
		f.machines = append(f.machines, b)
		if !a.json {
			api := ""
			if ports.API != 0 {
				api = fmt.Sprintf("API server at 127.0.0.1:%d, ", ports.API)
			}
			f.report.Notef("%s starts in QEMU %s (%s); %sSSH at 127.0.0.1:%d", n.Name, e.tools.Version, e.accel, api, ports.SSH)
		}
		f.report.Event(progress.Event{Event: progress.EventMachine, Node: n.Name, Machine: &progress.Machine{
			Node: n.Name, QEMU: e.tools.Version.String(), KVM: e.accel.KVM, Kubeconfig: f.kubeconfig, APIPort: ports.API, SSHPort: ports.SSH,
		}})
	}
	if !a.json {
		f.report.Notef("kubeconfig: %s (API server at 127.0.0.1:%d)", f.kubeconfig, f.network.API)
	}
	return nil
}

// limit stretches a duration to the slowest machine. Emulated machines run in turns:
// each makes the others slower.
func (f *fleet) limit(d time.Duration) time.Duration {
	longest := d
	for _, b := range f.machines {
		longest = max(longest, f.turns.Scale(b.m.Scale(d)))
	}
	return longest
}

// waitReady waits until the nodes are Ready and all pods run, or a machine fails.
func (f *fleet) waitReady(ctx context.Context, admin secret.Value) (cluster.State, error) {
	client, _, err := cluster.Client(admin, f.network.API)
	if err != nil {
		return cluster.State{}, err
	}
	limit := f.limit(bootTimeout)
	wait, fail := context.WithCancelCause(context.WithoutCancel(ctx))
	defer fail(nil)
	timer := time.AfterFunc(limit, func() { fail(fmt.Errorf("not Ready within %s", limit)) })
	defer timer.Stop()
	defer context.AfterFunc(ctx, func() { fail(ctx.Err()) })()
	var names []string
	var broken *bootMachine
	var once sync.Once
	for _, b := range f.machines {
		names = append(names, b.node.Name)
		defer context.AfterFunc(b.m.Context(), func() {
			once.Do(func() { broken = b; fail(fmt.Errorf("%s: %w", b.node.Name, context.Cause(b.m.Context()))) })
		})()
	}
	go func() {
		select {
		case <-f.network.Ended():
			fail(errNetworkEnded)
		case <-wait.Done():
		}
	}()
	state, err := cluster.WaitReady(wait, client, func(missing string) {
		for _, b := range f.machines {
			if b.watch.Pending(missing) {
				return
			}
		}
	}, names...)
	switch {
	case ctx.Err() != nil:
		return state, ctx.Err()
	case errors.Is(err, errNetworkEnded):
		return state, errors.Join(errNetworkEnded, f.stop())
	case err != nil:
		once.Do(func() {}) // broken is not written any more
		return state, f.withOutput(err, broken)
	}
	for _, b := range f.machines {
		b.watch.End()
		b.lane.End(nil)
	}
	return state, nil
}

var errNetworkEnded = errors.New("the imagegen boot that runs the network has ended")

// withOutput adds to an error what the machine that broke said last, or all of them
// if it is not known which. A failure that was seen on the console has its lines.
func (f *fleet) withOutput(err error, broken *bootMachine) error {
	for _, b := range f.machines {
		if broken != nil && broken != b {
			continue
		}
		if !errors.As(err, new(*qemu.ConsoleError)) {
			err = fmt.Errorf("%w\n\nThe last lines of the console of %s:\n%s", err, b.node.Name, b.m.Console().Tail(40))
		}
		if s := b.m.StderrTail(); s != "" {
			err = fmt.Errorf("%w\n\nQEMU of %s said:\n%s", err, b.node.Name, s)
		}
	}
	return err
}

// run waits until a person ends it, or nothing runs any more.
func (f *fleet) run(ctx context.Context) error {
	stopped := make(chan *bootMachine, len(f.machines))
	for _, b := range f.machines {
		defer context.AfterFunc(b.m.Context(), func() { stopped <- b })()
	}
	for left := len(f.machines); ; {
		select {
		case <-ctx.Done():
			// How a person ends this: no error.
			f.report.Notef("stopping %d machine(s); a second Ctrl-C cuts their power", len(f.machines))
			return f.stop()
		case <-f.network.Ended():
			f.report.Notef("%v; stopping %d machine(s)", errNetworkEnded, len(f.machines))
			return f.stop()
		case b := <-stopped:
			left--
			why := fmt.Errorf("%s stopped: %w", b.node.Name, context.Cause(b.m.Context()))
			if left == 0 {
				return why
			}
			// The others go on: that is what a cluster is for.
			f.report.Notef("%v", why)
		}
	}
}

// stop shuts the machines down in order, until the time is over or another signal
// arrives, and then cuts their power.
func (f *fleet) stop() error {
	f.network.AnnounceEnd()
	impatient, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	ctx, cancel := context.WithTimeout(impatient, f.limit(stopTime))
	defer cancel()
	var wg sync.WaitGroup
	errs := make([]error, len(f.machines))
	for i, b := range f.machines {
		wg.Go(func() {
			if errors.Is(context.Cause(b.m.Context()), qemu.ErrExited) {
				return // it was told already
			}
			errs[i] = b.m.Stop(ctx)
		})
	}
	wg.Wait()
	if impatient.Err() != nil {
		return nil
	}
	return errors.Join(errs...)
}

// kill cuts the power of the machines that run, and removes what they wrote but
// their consoles.
func (f *fleet) kill() {
	for _, b := range f.machines {
		b.m.Kill()
		for _, pattern := range []string{"*.qcow2", "*.fd"} {
			files, _ := filepath.Glob(filepath.Join(b.dir, pattern)) // the patterns are well formed
			for _, name := range files {
				if err := os.Remove(name); err != nil {
					f.report.Notef("%v", err)
				}
			}
		}
	}
}
