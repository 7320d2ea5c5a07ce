// Package phase runs an ordered list of phases and remembers durably which are
// done: an interrupted run continues at the first phase that is not.
package phase

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Phase is one step of a first boot. Its Run must be safe to repeat at any point:
// it may have been cut off anywhere by a reset.
type Phase struct {
	// Name identifies the phase in the record; it is kubeadm's where kubeadm has the phase.
	Name string
	// Summary says in one line what it does.
	Summary string
	// Bound is how long failures are retried; 0 means a failure ends the run.
	Bound time.Duration
	// Once keeps a done phase done even if the boot plan changes: it judges the
	// machine as it is before anything was written.
	Once bool
	Run  func(ctx context.Context, r Report) error
}

// Runner executes phases in their order.
type Runner struct {
	Phases     []Phase
	RecordPath string
	// Role is the boot plan's role, for the record.
	Role       string
	PlanDigest string
	BootID     string
	Out        *Printer
	// Saved, if not nil, is called after each change of the record was saved.
	Saved func(Record)
	// Now is the clock for the record; nil means time.Now.
	Now func() time.Time
	// Backoff is the pause before the first retry; it doubles up to a minute. 0 means 2 s.
	Backoff time.Duration
}

const maxBackoff = time.Minute

// Run executes the phases that are not done yet. It returns nil once all are, at
// once if they were already. After an error the next Run continues at the phase
// that failed.
func (r Runner) Run(ctx context.Context) error {
	if r.Now == nil {
		r.Now = time.Now
	}
	if r.Backoff == 0 {
		r.Backoff = 2 * time.Second
	}
	rec, err := Load(r.RecordPath)
	if err != nil {
		return Permanent(err)
	}
	if rec.State == StateComplete {
		return nil
	}
	r.prepare(&rec)
	if err := r.save(&rec); err != nil {
		return err
	}
	for i, p := range r.Phases {
		if done := rec.Phase(p.Name); done != nil && done.Done {
			continue
		}
		r.Out.enter(fmt.Sprintf("[%2d/%d] %s: ", i+1, len(r.Phases), p.Name))
		if err := r.runPhase(ctx, p, &rec); err != nil {
			err = fmt.Errorf("phase %s: %w", p.Name, err)
			rec.State, rec.LastError = StateFailed, err.Error()
			return errors.Join(err, r.save(&rec))
		}
	}
	r.Out.enter("")
	now := r.Now().UTC()
	rec.State, rec.LastError, rec.Finished = StateComplete, "", &now
	return r.save(&rec)
}

func (r Runner) save(rec *Record) error {
	err := rec.save(r.RecordPath)
	if err == nil && r.Saved != nil {
		r.Saved(*rec)
	}
	return err
}

// prepare brings the record of earlier runs up to date with this one.
func (r Runner) prepare(rec *Record) {
	if rec.State == StateNone {
		rec.Started = r.Now().UTC()
	} else {
		r.Out.Step("continuing an interrupted first boot")
	}
	if rec.PlanDigest != "" && rec.PlanDigest != r.PlanDigest {
		r.Out.Warn("the boot plan is not the one of the interrupted run; its phases are done again")
		once := map[string]bool{}
		for _, p := range r.Phases {
			once[p.Name] = p.Once
		}
		for i := range rec.Phases {
			rec.Phases[i].Done = rec.Phases[i].Done && once[rec.Phases[i].Name]
		}
	}
	if rec.BootID != r.BootID {
		rec.Boots++
	}
	rec.State, rec.LastError = StateRunning, ""
	rec.Role, rec.PlanDigest, rec.BootID = r.Role, r.PlanDigest, r.BootID
	for i := range rec.Phases {
		rec.Phases[i].Waiting = "" // of a run that was cut off
	}
}

// runPhase tries one phase until it succeeds, its bound has passed, its error is
// permanent, or ctx ends.
func (r Runner) runPhase(ctx context.Context, p Phase, rec *Record) error {
	begun, backoff := time.Now(), r.Backoff
	for {
		pr := rec.begin(p.Name, r.Now().UTC())
		pr.Attempts++
		if err := r.save(rec); err != nil {
			return err
		}
		r.Out.Step("%s", p.Summary)
		start := time.Now()
		waits := &waitRecorder{Report: r.Out, save: func(text string) error {
			pr.Waiting = text
			return r.save(rec)
		}}
		err := p.Run(ctx, waits)
		waits.stop()
		pr.Took, pr.Waiting = Duration(time.Since(start)), ""
		if err == nil {
			now := r.Now().UTC()
			pr.Done, pr.Finished = true, &now
			r.Out.Step("done in %s", seconds(time.Duration(pr.Took)))
			return r.save(rec)
		}
		pr.LastError = err.Error()
		if waited := time.Since(begun); ctx.Err() != nil || IsPermanent(err) || waited+backoff > p.Bound {
			return err
		} else if err := r.save(rec); err != nil {
			return err
		} else {
			r.Out.Warn("%v; trying again in %s, for %s more", pr.LastError, backoff, short(p.Bound-waited))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1fs", d.Seconds()) }
