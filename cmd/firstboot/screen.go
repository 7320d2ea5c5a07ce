package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
	"unicode"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/phase"
)

// screen is the login screen, and the light of a board that may have none: it shows
// whoever stands before the machine how far the first boot is. It takes words of the
// boot plan and the record, which holds no secret, and never a token or a key.
type screen struct {
	paths                        host.Paths
	cluster, node, role, address string // empty if not known
	warn                         func(format string, args ...any)
	last                         string
	light                        *led
}

func newScreen(paths host.Paths, plan bootplan.Plan, warn func(string, ...any)) *screen {
	return &screen{
		paths: paths, cluster: plan.Cluster.Name, node: plan.Node.Name, role: roleName(plan.Role),
		address: plan.Node.AdvertiseAddress, warn: warn, light: newLED(paths),
	}
}

func roleName(r bootplan.Role) string {
	switch r {
	case bootplan.RoleInit, bootplan.RoleJoinControlPlane:
		return "control plane"
	case bootplan.RoleJoinWorker:
		return "worker"
	}
	return ""
}

// showComplete shows a node whose first boot is over. Its plan is not needed any
// more; what is not in it is left out.
func showComplete(paths host.Paths, rec phase.Record, warn func(string, ...any)) {
	var plan bootplan.Plan
	if data, err := os.ReadFile(paths.BootPlan()); err == nil {
		if p, err := bootplan.Parse(data); err == nil {
			plan = p
		}
	}
	newScreen(paths, plan, warn).show(rec)
}

// show writes what the record says.
func (s *screen) show(rec phase.Record) {
	s.write(s.text(states(rec), trouble(rec)))
	s.blink(blinkOf(rec))
}

// blink has the light show it. One that does not is no reason to stop a first boot.
func (s *screen) blink(b blink) {
	if err := s.light.set(b); err != nil {
		s.warn("activity light: %v", err)
	}
}

// waiting writes what is waited for before the first phase, and why it is not there.
func (s *screen) waiting(what string, why error) {
	var d detail
	if why != nil {
		d = detail{"last error", why.Error()}
	}
	s.write(s.text("first boot: waiting for "+what, d))
	s.blink(blinkWaiting)
}

// failed writes why a run ended.
func (s *screen) failed(err error) {
	switch {
	case errors.Is(err, context.Canceled):
		s.write(s.text("first boot interrupted; it continues when the machine starts again", detail{}))
		return
	case errors.As(err, new(planError)):
		s.write(s.text("first boot failed: the boot plan cannot be carried out", detail{"last error", err.Error()}))
	default:
		s.write(s.text("first boot failed; it is tried again (journalctl -u firstboot)", detail{"last error", err.Error()}))
	}
	s.blink(blinkFailed)
}

// states says in a line how far it is.
func states(rec phase.Record) string {
	switch rec.State {
	case phase.StateComplete:
		if rec.Finished == nil {
			return "Ready"
		}
		return "Ready since " + rec.Finished.UTC().Format(time.DateTime) + " UTC"
	case phase.StateNone:
		return "first boot: getting ready, waiting for the network"
	}
	phases := (node{}).phases(bootplan.Role(rec.Role))
	for i, p := range phases {
		r := rec.Phase(p.Name)
		if r != nil && r.Done {
			continue
		}
		line := fmt.Sprintf("first boot, phase %d of %d (%s): %s", i+1, len(phases), p.Name, p.Summary)
		if r != nil && r.Attempts > 1 {
			line += fmt.Sprintf(", attempt %d", r.Attempts)
		}
		return line
	}
	return "first boot: all phases are done"
}

// detail is a line that says more of the state.
type detail struct{ name, text string }

// trouble is what the phase that is under way waits for, or else why it failed last;
// empty if it does neither.
func trouble(rec phase.Record) detail {
	for _, p := range rec.Phases {
		switch {
		case p.Done:
		case p.Waiting != "":
			return detail{"waiting", strings.TrimPrefix(p.Waiting, "waiting ")}
		case p.LastError != "":
			return detail{"last error", p.LastError}
		}
	}
	return detail{}
}

// text is the whole file. agetty shows it below /etc/issue, which names the system.
func (s *screen) text(state string, d detail) string {
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "  %-10s  %s\n", name, printable(value))
		}
	}
	line("cluster", s.cluster)
	line("node", s.node)
	line("role", s.role)
	line("address", s.address)
	line("state", state)
	line(d.name, d.text)
	if s.role == roleName(bootplan.RoleInit) {
		line("kubeconfig", "secrets/admin.conf where the image was built; /etc/kubernetes/admin.conf here")
	} else {
		line("kubeconfig", "secrets/admin.conf where the image was built")
	}
	b.WriteString("\n")
	return b.String()
}

// write replaces the file and has login screens drawn again. A screen that cannot
// be written is no reason to stop a first boot.
func (s *screen) write(text string) {
	if text == s.last {
		return
	}
	err := os.MkdirAll(filepath.Dir(s.paths.Issue()), 0o755)
	if err == nil {
		err = atomicfile.WriteFile(s.paths.Issue(), []byte(text), 0o644)
	}
	if err == nil {
		now := time.Now()
		if err = os.Chtimes(s.paths.LoginReload(), now, now); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	if err != nil {
		s.warn("login screen: %v", err)
		return
	}
	s.last = text
}

// longest is how much of a value is shown, in characters: a screen is small, and
// firstboot status has all of it.
const longest = 300

// token has the form of a bootstrap token. None is expected here: errors do not
// hold any. The screen is read by everybody who passes by, so it looks again.
var token = regexp.MustCompile(`\b[a-z0-9]{6}\.[a-z0-9]{16}\b`)

// printable puts a value on one line, with what agetty would take for an escape
// (issue(5): a backslash and a letter) disarmed.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	s = token.ReplaceAllString(strings.Join(strings.Fields(s), " "), "[redacted]")
	if r := []rune(s); len(r) > longest {
		s = string(r[:longest]) + "…"
	}
	return strings.ReplaceAll(s, `\`, `\\`)
}
