package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/pki"
)

// run carries out the boot plan. want are the roles it may have, none for any.
func (a *app) run(ctx context.Context, want ...bootplan.Role) (err error) {
	start := time.Now()
	if err := a.finishReset(ctx); err != nil {
		return err
	}
	rec, err := phase.Load(a.paths.Record())
	if err != nil {
		return err
	}
	if rec.State == phase.StateComplete {
		// The plan and the API are not needed any more, and not looked at.
		if _, err := fmt.Fprintf(a.Err, "this node has been set up since %s; nothing to do\n", rec.Finished.Format(time.RFC3339)); err != nil {
			return err
		}
		// A reset may have come between the record and the login screen.
		showComplete(a.paths, rec, a.warn)
		return a.finish()
	}
	data, plan, err := a.readPlan()
	if err == nil && plan.Node.FromTable && a.paths.Root == "/" {
		if err = a.identify(ctx); err == nil {
			data, plan, err = a.readPlan()
		}
	}
	screen := newScreen(a.paths, plan, a.warn)
	defer func() {
		// Not the disk of another node, and not over what a running one shows.
		if err != nil && a.paths.Root == "/" && !errors.Is(err, errBusy) {
			screen.failed(err)
		}
	}()
	if err != nil {
		return err
	}
	a.paths.CertificatesDir, a.paths.EtcdDataDir = plan.Cluster.CertificatesDir(), plan.Cluster.LocalEtcd().DataDir
	if len(want) > 0 && !slices.Contains(want, plan.Role) {
		return planError{fmt.Errorf("the boot plan's role is %s, not %s", plan.Role, joinRoles(want))}
	}
	name, err := nodeName(plan, a.paths)
	if err != nil {
		return planError{err}
	}
	if a.paths.Root != "/" {
		return usageError{fmt.Errorf("--root %s: a boot plan is carried out on the running machine only", a.paths.Root)}
	}
	unlock, err := lock(a.paths.At("/run/firstboot.lock"))
	if err != nil {
		return err
	}
	defer unlock()

	out := phase.NewPrinter(a.Err)
	screen.show(rec)
	units := host.Systemd{}
	cfg, err := prepare(ctx, plan, name, a.paths, units, onScreen{out, screen})
	if err != nil {
		return err
	}
	screen.node, screen.address = cfg.NodeName, cfg.AdvertiseAddress.String()
	bootID, err := a.paths.BootID()
	if err != nil {
		return err
	}
	out.Step("%s of cluster %s: %s at %s, Kubernetes %s", plan.Role, plan.Cluster.Name, cfg.NodeName, cfg.AdvertiseAddress, plan.Cluster.KubernetesVersion)
	err = phase.Runner{
		Phases: unskipped(node{cfg: cfg, paths: a.paths, units: units}.phases(plan.Role), plan.Node.SkipPhases, out), RecordPath: a.paths.Record(),
		Role: string(plan.Role), PlanDigest: digest(data, cfg), BootID: bootID, Out: out, Saved: screen.show,
	}.Run(ctx)
	if err != nil {
		return err
	}
	out.Step("node %s is set up; this run took %.0fs", cfg.NodeName, time.Since(start).Seconds())
	return a.finish()
}

// readPlan returns the boot plan, and as it stands in the file.
func (a *app) readPlan() ([]byte, bootplan.Plan, error) {
	data, err := os.ReadFile(a.paths.BootPlan())
	if err != nil {
		return nil, bootplan.Plan{}, planError{fmt.Errorf("boot plan: %w; Ignition writes it on the first boot", err)}
	}
	plan, err := bootplan.Parse(data)
	if err != nil {
		err = planError{err}
	}
	return data, plan, err
}

// finish removes what a first boot that is over has no use for, and notes that it is.
func (a *app) finish() error {
	if err := scrub(a.paths); err != nil {
		return err
	}
	return markDone(a.paths)
}

func joinRoles(roles []bootplan.Role) string {
	var texts []string
	for _, r := range roles {
		texts = append(texts, string(r))
	}
	return strings.Join(texts, " or ")
}

// warn prints what is wrong but stops nothing.
func (a *app) warn(format string, args ...any) {
	_, _ = fmt.Fprintf(a.Err, "warning: "+format+"\n", args...)
}

// markDone saves later boots the start of this program, which is seconds on a
// small machine that is busy with starting its containers.
func markDone(paths host.Paths) error { return atomicfile.WriteFile(paths.Done(), nil, 0o644) }

// digest identifies what the phases are done for: the boot plan and the addresses,
// which may be another after a reboot.
func digest(plan []byte, cfg nodeconfig.Config) string {
	h := sha256.New()
	h.Write(plan)
	fmt.Fprintf(h, "\x00%s", cfg.AdvertiseAddress)
	for _, a := range cfg.NodeIPs {
		fmt.Fprintf(h, "\x00%s", a)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

var errBusy = errors.New("another firstboot is at work; see firstboot status and journalctl -u firstboot")

// lock keeps a second firstboot away. The kernel releases it when the process ends.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errBusy
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _ = f.Close() }, nil
}

// prepare brings the machine to where phases can begin, and learns what only it
// knows: clock, host name, address, resolver.
func prepare(ctx context.Context, plan bootplan.Plan, name string, paths host.Paths, units host.Units, r phase.Report) (nodeconfig.Config, error) {
	cfg := nodeconfig.Config{Plan: plan, NodeName: name}
	if err := raiseClock(paths, plan.Cluster.NotBefore, r); err != nil {
		return cfg, err
	}
	var err error
	if cfg.Hostname, err = os.Hostname(); err != nil {
		return cfg, err
	}
	if cfg.Hostname != cfg.NodeName {
		r.Step("setting the host name from %s to %s", cfg.Hostname, cfg.NodeName)
		if err := paths.SetHostname(cfg.NodeName); err != nil {
			return cfg, err
		}
		cfg.Hostname = cfg.NodeName
	}
	if cfg.AdvertiseAddress, err = waitForAddress(ctx, plan, paths, r); err != nil {
		return cfg, err
	}
	if cfg.NodeIPs, err = waitForNodeIPs(ctx, cfg, paths, r); err != nil {
		return cfg, err
	}
	resolved, err := units.Active(ctx, "systemd-resolved.service")
	if err != nil {
		return cfg, err
	}
	if resolved {
		// Pods get the real name servers: resolved's stub address is this node's alone.
		cfg.ResolvConf = paths.ResolvConf()
	}
	return cfg, waitForEndpoint(ctx, plan, paths, r)
}

// raiseClock sets a clock that is before the cluster's CA, which is valid from
// notBefore on, or the image was made:
// boards without a battery start in the past, where no certificate is valid. The
// network's time comes later and corrects the rest.
func raiseClock(paths host.Paths, notBefore time.Time, r phase.Report) error {
	times := []time.Time{notBefore}
	built, err := paths.BuildTime()
	switch {
	case err == nil:
		times = append(times, built)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	data, err := os.ReadFile(paths.PKI("ca.crt"))
	switch {
	case err == nil:
		ca, err := pki.ParseCertificate(data)
		if err != nil {
			return fmt.Errorf("%s: %w", paths.PKI("ca.crt"), err)
		}
		times = append(times, ca.NotBefore)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	floor, now := host.ClockFloor(times...), time.Now()
	if !now.Before(floor) {
		return nil
	}
	r.Warn("the clock shows %s; setting it to %s, the earliest it can be", now.UTC().Format(time.RFC3339), floor.UTC().Format(time.RFC3339))
	return host.SetClock(floor)
}
