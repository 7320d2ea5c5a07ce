package phase

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// Report is how a phase says what it does. The lines go to the console and the
// journal; no secret may be given to it.
type Report interface {
	// Step names an action that starts now: "issuing apiserver".
	Step(format string, args ...any)
	// Warn names something that is wrong but does not stop the phase.
	Warn(format string, args ...any)
	// Waiting says what the phase waits for. It may be called as often as the
	// phase polls: an unchanged line is repeated every ten seconds only. waited and
	// bound are how long it has waited and will at most; last is why it is not there yet.
	Waiting(what string, waited, bound time.Duration, last error)
}

// repeatAfter is how often an unchanged waiting line is repeated.
const repeatAfter = 10 * time.Second

// Printer is a Report that writes plain lines. It is safe for concurrent use.
type Printer struct {
	mu       sync.Mutex
	w        io.Writer
	now      func() time.Time
	prefix   string // "[ 3/16] certs: "
	lastWhat string
	lastErr  string
	lastAt   time.Time
}

// NewPrinter returns a Printer that writes to w.
func NewPrinter(w io.Writer) *Printer { return &Printer{w: w, now: time.Now} }

// enter sets the prefix of the lines that follow.
func (p *Printer) enter(prefix string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.prefix, p.lastWhat = prefix, ""
}

// Step implements Report.
func (p *Printer) Step(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastWhat = ""
	p.line(fmt.Sprintf(format, args...))
}

// Warn implements Report.
func (p *Printer) Warn(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.line("warning: " + fmt.Sprintf(format, args...))
}

// Waiting implements Report.
func (p *Printer) Waiting(what string, waited, bound time.Duration, last error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	cause := ""
	if last != nil {
		cause = last.Error()
	}
	now := p.now()
	// A cause that alternates (refused, timeout, refused …) is still one wait: only
	// a new subject, or a new cause after a second, is news.
	switch age := now.Sub(p.lastAt); {
	case what != p.lastWhat, age >= repeatAfter, cause != p.lastErr && age >= time.Second:
	default:
		return
	}
	p.lastWhat, p.lastErr, p.lastAt = what, cause, now
	text := fmt.Sprintf("waiting for %s (%s of %s)", what, waited.Round(time.Second), short(bound))
	if cause != "" {
		text += ": " + cause
	}
	p.line(text)
}

func (p *Printer) line(s string) {
	// A console that cannot be written to is no reason to stop a first boot.
	_, _ = fmt.Fprintf(p.w, "%s%s\n", p.prefix, s)
}

// waitRecorder is the Report of one attempt: what the attempt waits for goes into
// the record too, where firstboot status and the login screen find it. The record
// is on a disk that may be a memory card, so that it is written again only when
// something else is waited for, or when the cause is another for a while.
type waitRecorder struct {
	Report
	// save writes the record; a failure is printed, and no reason to stop waiting.
	save func(text string) error

	mu         sync.Mutex // phases may report from several goroutines
	ended      bool
	what, last string
	at         time.Time
}

// Waiting implements Report.
func (w *waitRecorder) Waiting(what string, waited, bound time.Duration, last error) {
	w.Report.Waiting(what, waited, bound, last)
	text := "waiting for " + what
	if last != nil {
		text += ": " + last.Error()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended || text == w.last || what == w.what && time.Since(w.at) < repeatAfter {
		return
	}
	w.what, w.last, w.at = what, text, time.Now()
	if err := w.save(text); err != nil {
		w.Report.Warn("%v", err)
	}
}

// stop ends recording: the attempt is over, and the record its runner's alone.
func (w *waitRecorder) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
}

// short writes 30m instead of 30m0s.
func short(d time.Duration) string {
	d = d.Round(time.Second)
	switch {
	case d >= time.Hour && d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d >= time.Minute && d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return d.String()
}

// permanentError is one that waiting does not heal.
type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }

// Permanent marks an error that neither Poll nor Runner retries.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return permanentError{err}
}

// IsPermanent reports whether err was marked by Permanent.
func IsPermanent(err error) bool { return errors.As(err, new(permanentError)) }

// Poll calls ready every interval until it returns nil, and reports what it waits
// for. It gives up when ctx ends, when bound has passed, or on a Permanent error;
// the error then names what was waited for and wraps the last cause.
func Poll(ctx context.Context, r Report, what string, interval, bound time.Duration, ready func(context.Context) error) error {
	start := time.Now()
	limited, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	for {
		err := ready(limited)
		if err == nil {
			return nil
		}
		if IsPermanent(err) {
			return fmt.Errorf("%s: %w", what, err)
		}
		if limited.Err() == nil {
			r.Waiting(what, time.Since(start), bound, err)
			select {
			case <-limited.Done():
			case <-time.After(interval):
				continue
			}
		}
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted while waiting for %s: %w", what, ctx.Err())
		}
		return fmt.Errorf("waited %s for %s: %w", short(bound), what, err)
	}
}
