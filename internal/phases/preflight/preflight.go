// Package preflight is the phase that judges the machine before anything is
// written, with the checks of kubeadm init and join under kubeadm's names and
// severities, and with some of its own for small boards. Which checks are made
// depends on the boot plan's role.
//
// INPUTS: the boot plan, which also names failures that only warn; the machine:
// /proc, /sys, free ports, the files that later phases write, baked container images,
// systemd, the container runtime's socket, an external etcd.
//
// OUTPUTS: none. All errors are reported together; warnings are printed.
//
// Later runs of an interrupted first boot do not come here: the record says it is
// done.
package preflight

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kiln-os/kiln/internal/phase"
)

// asWarning marks an error of a fatal check that is only worth a warning.
type asWarning struct{ error }

func (w asWarning) Unwrap() error { return w.error }

// Failure is a check that failed.
type Failure struct {
	Check string // kubeadm's name
	Err   error
}

// Error is every check that failed.
type Error struct{ Failed []Failure }

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d of the preflight checks failed:", len(e.Failed))
	for _, f := range e.Failed {
		fmt.Fprintf(&b, "\n\t[ERROR %s]: %v", f.Check, f.Err)
	}
	b.WriteString("\nif you know what you are doing, name a check in ignorePreflightErrors of the InitConfiguration or JoinConfiguration beside the cluster file, and it only warns")
	return b.String()
}

// Unwrap gives errors.Is and errors.As the causes.
func (e *Error) Unwrap() []error {
	var out []error
	for _, f := range e.Failed {
		out = append(out, f.Err)
	}
	return out
}

// Run makes all checks of the plan's role. Errors are returned together as an *Error.
func Run(ctx context.Context, m *Machine, r phase.Report) error {
	m.report = r
	node := m.Config.Plan.Node
	if roles[m.Config.Plan.Role] == 0 {
		return phase.Permanent(fmt.Errorf("preflight: the boot plan's role %q is none that this firstboot knows", m.Config.Plan.Role))
	}
	// Without root most other checks would fail for this reason alone.
	if m.UID != 0 {
		const privileged = "IsPrivilegedUser"
		err := errors.New("firstboot must run as root")
		if !node.Ignores(privileged) {
			return phase.Permanent(&Error{[]Failure{{privileged, err}}})
		}
		r.Warn("[%s]: %v", privileged, err)
	}
	var failed []Failure
	table := checks(m.Config)
	for _, c := range table {
		start := time.Now()
		err := c.run(ctx, m)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch {
		case err == nil:
		case c.severity == warning || errors.As(err, new(asWarning)) || node.Ignores(c.name):
			r.Warn("[%s]: %v", c.name, err)
		default:
			failed = append(failed, Failure{c.name, err})
		}
		if took := time.Since(start); took > 5*time.Second {
			r.Step("%s took %.0fs", c.name, took.Seconds())
		}
	}
	if len(failed) > 0 {
		return &Error{failed}
	}
	r.Step("%d checks passed", len(table)+1)
	return nil
}
