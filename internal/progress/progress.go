// Package progress shows how far a long command is: as a line that is redrawn on a
// terminal, as plain lines elsewhere, as JSON events for programs, or not at all.
package progress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// Reporter is told what a command does, step by step, and shows it. It is safe for
// concurrent use. Nothing given to it may be secret.
type Reporter struct {
	mu   sync.Mutex
	view view
	now  func() time.Time
	step step
	open bool // a step is under way
	// stop ends the goroutine that ticks, which closes stopped.
	stop, stopped chan struct{}
}

// view is one way of showing steps. Its methods are called by one goroutine at a time.
type view interface {
	begin(s step)
	// tick comes several times a second while a step is under way.
	tick(s step)
	log(s step, line string)
	end(s step, o outcome)
	// note shows a line that belongs to no step.
	note(line string)
	// event tells programs what people are told in other words, or not at all.
	event(e Event)
	console(line string)
}

// step is a moment of a step.
type step struct {
	name    string
	start   time.Time
	now     time.Time
	detail  string // the last line that was logged
	done    int64  // bytes
	total   int64  // bytes; 0 if they are not known
	samples window
}

func (s step) elapsed() time.Duration { return s.now.Sub(s.start) }

// outcome is how a step ended.
type outcome string

const (
	done        outcome = "done"
	failed      outcome = "failed"
	interrupted outcome = "interrupted"
)

// interval is how often a step is looked at: often enough to seem alive, and a
// terminal on a slow link keeps up.
const interval = 200 * time.Millisecond

// Options say how progress is shown.
type Options struct {
	// Out is where it is shown: standard error.
	Out io.Writer
	// JSON writes events for programs.
	JSON bool
	// Quiet shows nothing.
	Quiet bool
	// Getenv is os.Getenv, or a test's.
	Getenv func(string) string
}

// New returns a Reporter; Finish must be called.
func New(o Options) *Reporter {
	r := &Reporter{view: viewFor(o), now: time.Now, stop: make(chan struct{}), stopped: make(chan struct{})}
	go r.run()
	return r
}

func viewFor(o Options) view {
	switch {
	case o.Quiet:
		return silent{}
	case o.JSON:
		return &events{w: o.Out, now: time.Now}
	}
	if width, ok := terminalWidth(o.Out, o.Getenv); ok {
		return &terminal{w: o.Out, width: width, style: styleFor(o.Getenv)}
	}
	return &plain{w: o.Out}
}

func (r *Reporter) run() {
	defer close(r.stopped)
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-t.C:
			r.tick()
		}
	}
}

func (r *Reporter) tick() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.open {
		return
	}
	r.step.now = r.now()
	r.step.samples.add(r.step.now, r.step.done)
	r.view.tick(r.step)
}

// Step starts a step, which ends the one before it.
func (r *Reporter) Step(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.end(done)
	now := r.now()
	r.step, r.open = step{name: name, start: now, now: now}, true
	r.view.begin(r.step)
}

// Bytes reports how much of the step's bytes are done.
func (r *Reporter) Bytes(done, total int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.step.done, r.step.total = done, total
}

// Log shows a line that belongs to the step.
func (r *Reporter) Log(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.open {
		r.view.note(line)
		return
	}
	r.step.now, r.step.detail = r.now(), line
	r.view.log(r.step, line)
}

// Notef shows a line for people that belongs to no step.
func (r *Reporter) Notef(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.view.note(fmt.Sprintf(format, args...))
}

// Console passes on a line that a machine wrote to its console.
func (r *Reporter) Console(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.view.console(line)
}

// Event tells programs something; people see nothing of it.
func (r *Reporter) Event(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.view.event(e)
}

// End ends the step that is under way; err says how. More steps may follow.
func (r *Reporter) End(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		r.end(done)
	case errors.Is(err, context.Canceled):
		r.end(interrupted)
	default:
		r.end(failed)
	}
}

// Finish is End, after which the Reporter must not be used any more: the line of
// the terminal belongs to others then.
func (r *Reporter) Finish(err error) {
	r.End(err)
	close(r.stop)
	<-r.stopped
}

// end is called with r.mu held.
func (r *Reporter) end(o outcome) {
	if !r.open {
		return
	}
	r.step.now, r.open = r.now(), false
	r.view.end(r.step, o)
}

// silent is --quiet.
type silent struct{}

func (silent) begin(step)        {}
func (silent) tick(step)         {}
func (silent) log(step, string)  {}
func (silent) end(step, outcome) {}
func (silent) note(string)       {}
func (silent) event(Event)       {}
func (silent) console(string)    {}
