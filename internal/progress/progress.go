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
	mu    sync.Mutex
	view  view
	now   func() time.Time
	own   track   // the command's own steps
	lanes []*Lane // those of machines, which go on at the same time
	// stop ends the goroutine that ticks, which closes stopped.
	stop, stopped chan struct{}
}

// view is one way of showing steps. Its methods are called by one goroutine at a time.
type view interface {
	begin(s step)
	// tick comes several times a second while steps are under way.
	tick(under []step)
	log(s step, line string)
	end(s step, o outcome)
	// note shows a line that belongs to no step.
	note(line string)
	// event tells programs what people are told in other words, or not at all.
	event(e Event)
	console(l lane, line string)
}

// track is a sequence of steps.
type track struct {
	lane lane
	step step
	open bool // a step is under way
}

// lane says which machine something is about; the command itself is none.
type lane struct {
	node string
	// alone says that there is no other machine, so that people need no name.
	alone bool
}

// prefix begins a line for people.
func (l lane) prefix() string {
	if l.node == "" || l.alone {
		return ""
	}
	return l.node + ": "
}

// step is a moment of a step.
type step struct {
	lane    lane
	name    string
	start   time.Time
	now     time.Time
	detail  string // the last line that was logged
	done    int64  // bytes
	total   int64  // bytes; 0 if they are not known
	samples window
}

// title is the name for people.
func (s step) title() string { return s.lane.prefix() + s.name }

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
	var under []step
	for _, t := range r.tracks() {
		if t.open {
			t.step.now = r.now()
			t.step.samples.add(t.step.now, t.step.done)
			under = append(under, t.step)
		}
	}
	if len(under) > 0 {
		r.view.tick(under)
	}
}

// tracks are all of them; r.mu is held.
func (r *Reporter) tracks() []*track {
	all := []*track{&r.own}
	for _, l := range r.lanes {
		all = append(all, &l.track)
	}
	return all
}

// Step starts a step, which ends the one before it.
func (r *Reporter) Step(name string) { r.begin(&r.own, name) }

func (r *Reporter) begin(t *track, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.end(t, done)
	now := r.now()
	t.step, t.open = step{lane: t.lane, name: name, start: now, now: now}, true
	r.view.begin(t.step)
}

// Bytes reports how much of the step's bytes are done.
func (r *Reporter) Bytes(done, total int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.own.step.done, r.own.step.total = done, total
}

// Log shows a line that belongs to the step.
func (r *Reporter) Log(line string) { r.log(&r.own, line) }

func (r *Reporter) log(t *track, line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !t.open {
		r.view.note(t.lane.prefix() + line)
		return
	}
	t.step.now, t.step.detail = r.now(), line
	r.view.log(t.step, line)
}

// Notef shows a line for people that belongs to no step.
func (r *Reporter) Notef(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.view.note(fmt.Sprintf(format, args...))
}

// Event tells programs something; people see nothing of it.
func (r *Reporter) Event(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.view.event(e)
}

// End ends the step that is under way; err says how. More steps may follow.
func (r *Reporter) End(err error) { r.finish(&r.own, err) }

func (r *Reporter) finish(t *track, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		r.end(t, done)
	case errors.Is(err, context.Canceled):
		r.end(t, interrupted)
	default:
		r.end(t, failed)
	}
}

// Finish ends all steps, after which the Reporter must not be used any more: the
// line of the terminal belongs to others then.
func (r *Reporter) Finish(err error) {
	for _, t := range r.tracks() {
		r.finish(t, err)
	}
	close(r.stop)
	<-r.stopped
}

// end is called with r.mu held.
func (r *Reporter) end(t *track, o outcome) {
	if !t.open {
		return
	}
	t.step.now, t.open = r.now(), false
	r.view.end(t.step, o)
}

// Lane is told of the steps of one machine. Those of several go on at the same time.
type Lane struct {
	r *Reporter
	track
}

// Lanes returns one for each machine. It is called once.
func (r *Reporter) Lanes(nodes ...string) []*Lane {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range nodes {
		r.lanes = append(r.lanes, &Lane{r: r, track: track{lane: lane{node: n, alone: len(nodes) == 1}}})
	}
	return append([]*Lane(nil), r.lanes...)
}

// Step starts a step, which ends the machine's one before it.
func (l *Lane) Step(name string) { l.r.begin(&l.track, name) }

// Log shows a line that belongs to the machine's step.
func (l *Lane) Log(line string) { l.r.log(&l.track, line) }

// End ends the machine's step; err says how.
func (l *Lane) End(err error) { l.r.finish(&l.track, err) }

// Console passes on a line that the machine wrote to its console.
func (l *Lane) Console(line string) {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	l.r.view.console(l.lane, line)
}

// silent is --quiet.
type silent struct{}

func (silent) begin(step)           {}
func (silent) tick([]step)          {}
func (silent) log(step, string)     {}
func (silent) end(step, outcome)    {}
func (silent) note(string)          {}
func (silent) event(Event)          {}
func (silent) console(lane, string) {}
