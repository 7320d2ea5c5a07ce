package main

import (
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/kiln-os/kiln/internal/build"
)

// milestones are console lines that begin a part of the boot.
var milestones = []struct {
	name string
	re   *regexp.Regexp
}{
	{"kernel", regexp.MustCompile(`Linux version \d`)},
	{"initramfs", regexp.MustCompile(`Running in initrd|Booting initrd of`)},
	{"system start", regexp.MustCompile(`Switching root|Stopped initrd-switch-root|Welcome to .*Kiln`)},
}

const (
	firmwareStep = "firmware and boot loader"
	podsStep     = "pods and add-ons"
)

var (
	// phaseLine is what firstboot prints in a phase: "[ 3/16] certs: issuing apiserver".
	phaseLine = regexp.MustCompile(`(\[ ?\d+/\d+\]) ([a-z0-9-]+): (.*)`)
	// setUpLine is what firstboot prints last.
	setUpLine = regexp.MustCompile(`firstboot\[\d+\]: node \S+ is set up`)
)

// bootSteps is what bootWatch tells of; *progress.Lane is it.
type bootSteps interface {
	Step(name string)
	Log(line string)
	Console(line string)
}

// bootWatch reads the console of a machine: it makes a step of each part of the
// boot and of each phase of firstboot, and keeps when each began.
type bootWatch struct {
	steps   bootSteps
	console bool // pass all lines on
	now     func() time.Time

	mu    sync.Mutex
	next  int // of milestones
	parts []part
	ended bool // no part begins any more
}

type part struct {
	name string
	at   time.Time
}

// newBootWatch begins the first step: it is called when the machine starts.
func newBootWatch(steps bootSteps, console bool) *bootWatch {
	w := &bootWatch{steps: steps, console: console, now: time.Now}
	w.begin(firmwareStep)
	return w
}

// Write gets whole lines.
func (w *bootWatch) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, line := range strings.Split(strings.TrimRight(string(b), "\n"), "\n") {
		w.line(line)
		if w.console {
			w.steps.Console(line)
		}
	}
	return len(b), nil
}

func (w *bootWatch) line(line string) {
	for i := w.next; i < len(milestones); i++ {
		if milestones[i].re.MatchString(line) {
			w.next = i + 1
			w.begin(milestones[i].name)
		}
	}
	if m := phaseLine.FindStringSubmatch(line); m != nil {
		w.begin("firstboot: " + m[2])
		if !w.console { // the line is there anyway
			w.steps.Log(m[1] + " " + m[3])
		}
	} else if setUpLine.MatchString(line) {
		w.begin(podsStep)
	}
}

// Pending is told what the cluster still lacks. That is news only when the node is
// done with its own part; it reports whether it was.
func (w *bootWatch) Pending(missing string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.parts[len(w.parts)-1].name != podsStep {
		return false
	}
	w.steps.Log(missing)
	return true
}

// End is told that the cluster is Ready. A node's firstboot may see that a moment later,
// and what it prints then begins nothing.
func (w *bootWatch) End() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
}

func (w *bootWatch) begin(name string) {
	if n := len(w.parts); !w.ended && (n == 0 || w.parts[n-1].name != name) {
		w.parts = append(w.parts, part{name, w.now()})
		w.steps.Step(name)
	}
}

// times returns how long each part took; the last one ended at end. The last row
// is all of them.
func (w *bootWatch) times(end time.Time) []build.StepTime {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []build.StepTime
	for i, p := range w.parts {
		until := end
		if i+1 < len(w.parts) {
			until = w.parts[i+1].at
		}
		out = append(out, build.StepTime{Name: p.name, Seconds: until.Sub(p.at).Seconds()})
	}
	return append(out, build.StepTime{Name: "power-on to Ready", Seconds: end.Sub(w.parts[0].at).Seconds()})
}
