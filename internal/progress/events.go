package progress

import (
	"encoding/json"
	"io"
	"time"

	"github.com/kiln-os/kiln/internal/diag"
)

// Event is one line of `--json` on standard error. docs/guide.md describes each
// kind and field; a field that does not belong to a kind is absent.
type Event struct {
	// Time is by the host's clock, in UTC.
	Time time.Time `json:"time"`
	// Event is the kind.
	Event string `json:"event"`
	// Node is the machine that it is about.
	Node string `json:"node,omitempty"`
	// Step is the name of the step the event belongs to. Names are stable.
	Step string `json:"step,omitempty"`
	// Seconds is how long it took.
	Seconds *float64 `json:"seconds,omitempty"`
	// Done and Total are bytes.
	Done  *int64 `json:"done,omitempty"`
	Total int64  `json:"total,omitempty"`
	// Message is for people.
	Message string `json:"message,omitempty"`
	// Mistake is one thing wrong with the cluster file.
	Mistake *diag.Mistake `json:"mistake,omitempty"`
	// Machine is a virtual machine that was started.
	Machine *Machine `json:"machine,omitempty"`
}

// Machine is what a program needs to use a virtual machine.
type Machine struct {
	Node       string `json:"node"`
	QEMU       string `json:"qemu"`       // version
	KVM        bool   `json:"kvm"`        // else it is emulated, and slower
	Kubeconfig string `json:"kubeconfig"` // works from this host
	APIPort    int    `json:"apiPort"`    // of 127.0.0.1; 0 for a worker
	SSHPort    int    `json:"sshPort"`    // of 127.0.0.1
}

// The kinds of events.
const (
	EventStep        = "step"        // a step begins
	EventProgress    = "progress"    // so many of the step's bytes are done; at most once a second
	EventLog         = "log"         // a line for people
	EventDone        = "done"        // the step is over
	EventFailed      = "failed"      // the step failed
	EventInterrupted = "interrupted" // the step was cut off by Ctrl-C or SIGTERM
	EventError       = "error"       // the command failed; the last line
	EventMistake     = "mistake"     // something is wrong with the cluster file
	EventMachine     = "machine"     // a virtual machine was started
	EventReady       = "ready"       // all nodes are Ready and all pods run
	EventConsole     = "console"     // a line of a machine's console, with --console
)

// Kinds lists the kinds of events.
func Kinds() []string {
	return []string{EventStep, EventProgress, EventLog, EventDone, EventFailed, EventInterrupted, EventError, EventMistake, EventMachine, EventReady, EventConsole}
}

// WriteEvent writes one event as a line of JSON. It sets the time.
func WriteEvent(w io.Writer, e Event) {
	v := events{w: w, now: time.Now}
	v.event(e)
}

// bytesEvery is how often bytes are told to programs.
const bytesEvery = time.Second

// events writes JSON, one object a line.
type events struct {
	w        io.Writer
	now      func() time.Time
	last     time.Time // of the last EventProgress
	lastDone int64
}

func (v *events) event(e Event) {
	e.Time = v.now().UTC().Round(time.Millisecond)
	// A reader that went away does not stop a build.
	_ = json.NewEncoder(v.w).Encode(e)
}

func (v *events) begin(s step) {
	v.last, v.lastDone = s.start, -1
	v.event(Event{Event: EventStep, Node: s.lane.node, Step: s.name})
}

func (v *events) tick(under []step) {
	for _, s := range under {
		if s.total > 0 && s.done != v.lastDone && s.now.Sub(v.last) >= bytesEvery {
			v.bytes(s)
		}
	}
}

func (v *events) bytes(s step) {
	v.last, v.lastDone = s.now, s.done
	v.event(Event{Event: EventProgress, Node: s.lane.node, Step: s.name, Done: &s.done, Total: s.total})
}

func (v *events) log(s step, line string) {
	v.event(Event{Event: EventLog, Node: s.lane.node, Step: s.name, Message: line})
}

func (v *events) end(s step, o outcome) {
	if s.total > 0 && s.done != v.lastDone {
		v.bytes(s)
	}
	seconds := float64(s.elapsed().Milliseconds()) / 1000
	v.event(Event{Event: string(o), Node: s.lane.node, Step: s.name, Seconds: &seconds})
}

func (v *events) note(line string) { v.event(Event{Event: EventLog, Message: line}) }
func (v *events) console(l lane, line string) {
	v.event(Event{Event: EventConsole, Node: l.node, Message: line})
}
