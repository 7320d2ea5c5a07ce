package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/dryrun"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
)

// rehearsed are the phases that a dry run runs, in a folder and against an API server
// that only listens. The others wait for what does not happen in a dry run, or start
// programs: of those it says what they are for.
var rehearsed = []string{
	"preflight", "kubeconfig", "pod-network", "kubelet-start", "certs", "etcd", "control-plane", "upload-config", "mark-control-plane",
	"bootstrap-token", "addon-flannel", "addon-kube-proxy", "addon-coredns",
	// Of a joining node, see rehearseJoin.
	"discovery", "cluster-config", "check-etcd", "kubelet-bootstrap", "etcd-join", "kubelet-wait-bootstrap",
}

// dryRun says what run would do. Of another disk, named by --root, the machine is not
// checked.
func (a *app) dryRun(ctx context.Context, want ...bootplan.Role) error {
	rec, err := phase.Load(a.paths.Record())
	if err != nil {
		return err
	}
	if rec.State == phase.StateComplete {
		_, err := fmt.Fprintf(a.Err, "this node has been set up since %s; nothing to do\n", rec.Finished.Format(time.RFC3339))
		return err
	}
	plan, err := a.nodePlan()
	if err != nil {
		return err
	}
	if plan == nil {
		return planError{fmt.Errorf("boot plan: there is no %s; Ignition writes it on the first boot", a.paths.BootPlan())}
	}
	if len(want) > 0 && !slices.Contains(want, plan.Role) {
		return planError{fmt.Errorf("the boot plan's role is %s, not %s", plan.Role, joinRoles(want))}
	}
	if plan.Node.FromTable {
		if a.paths.Root != "/" {
			return planError{fmt.Errorf("boot plan: the machine with this disk finds its name in %s when it starts", bootplan.MachinesPath)}
		}
		row, err := a.findRow(ctx)
		if err != nil {
			return err
		}
		*plan = plan.As(row)
	}
	cfg, err := a.dryConfig(*plan)
	if err != nil {
		return err
	}
	dir, err := a.dryFolder()
	if err != nil {
		return err
	}
	folder, err := dryrun.NewFolder(dir, a.paths)
	if err != nil {
		return err
	}
	out := phase.NewPrinter(a.Err)
	safe := rehearsed
	real := node{cfg: cfg, paths: a.paths, units: host.Systemd{}}
	if a.paths.Root != "/" {
		safe = safe[1:] // not preflight
	}
	n := node{cfg: cfg, paths: folder.Paths, units: dryrun.Units{Units: host.Systemd{}, Out: out}}
	n.api = func(r phase.Report) (*kubeapi.API, error) { return dryrun.API(cfg.NodeName, folder.Objects(), r) }
	if a.paths.Root != "/" {
		n.units = dryrun.Units{Units: noUnits{}, Out: out}
	}
	var asked asking
	if plan.Role.Joins() {
		n.cfg, n.shared = shortened(cfg), kubeapi.LoadReading
	}
	phases := n.phases(plan.Role)
	if plan.Role.Joins() {
		n.rehearseJoin(phases, &asked)
	}
	for i, p := range real.phases(plan.Role) {
		if p.Name == "preflight" { // looks at the machine, and changes nothing
			phases[i] = p
		}
	}
	err = dryrun.Rehearse(ctx, phases, safe, folder, out)
	if err := errors.Join(err, folder.Mask()); err != nil {
		return err
	}
	out.Step("[dryrun] the files and objects are in %s, without keys and tokens; /run is empty after the next boot", dir)
	if asked.err != nil {
		what := "wait"
		if phase.IsPermanent(asked.err) {
			what = "fail"
		}
		return fmt.Errorf("the first boot would %s here: %w", what, asked.err)
	}
	return nil
}

// dryConfig is what prepare learns of the machine, without waiting and setting.
func (a *app) dryConfig(plan bootplan.Plan) (cfg nodeconfig.Config, err error) {
	cfg = nodeconfig.Config{Plan: plan}
	if cfg.NodeName, err = nodeName(plan, a.paths); err != nil {
		return cfg, planError{err}
	}
	cfg.Hostname = cfg.NodeName // prepare sets it
	if s := plan.Node.AdvertiseAddress; s != "" {
		if cfg.AdvertiseAddress, err = netip.ParseAddr(s); err != nil {
			return cfg, planError{fmt.Errorf("boot plan: node.advertiseAddress: %w", err)}
		}
	} else if cfg.AdvertiseAddress, err = a.paths.AdvertiseAddress(); err != nil {
		return cfg, fmt.Errorf("the address of this node: %w", err)
	}
	if _, err := os.Stat(a.paths.ResolvConf()); err == nil {
		cfg.ResolvConf = host.Paths{Root: "/"}.ResolvConf()
	}
	return cfg, nil
}

// dryFolder makes a folder in memory: keys that a dry run makes never reach a disk.
func (a *app) dryFolder() (string, error) {
	if a.paths.Root != "/" {
		return os.MkdirTemp("", "kiln-dry-run-")
	}
	parent := a.paths.At("/run/kiln")
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(parent, "dry-run-")
	if err != nil {
		return "", err
	}
	return filepath.Clean(dir), nil
}

// noUnits is a systemd that runs nothing: that of a disk.
type noUnits struct{ host.Units }

func (noUnits) Active(context.Context, string) (bool, error)    { return false, nil }
func (noUnits) Enabled(context.Context, string) (string, error) { return "", nil }
