package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// progress shows the steps of a build: a line for each step, with its time when it
// is over; on a terminal also how many bytes of it are done; or JSON events.
type progress struct {
	w        io.Writer
	json     bool
	terminal bool
	name     string
	start    time.Time
	drawn    time.Time
	open     bool // a line on the terminal is not finished
}

func newProgress(w io.Writer, asJSON bool) *progress {
	p := &progress{w: w, json: asJSON}
	if f, ok := w.(*os.File); ok && !asJSON {
		p.terminal = term.IsTerminal(int(f.Fd()))
	}
	return p
}

func (p *progress) event(kind string, fields map[string]any) {
	fields["event"] = kind
	_ = json.NewEncoder(p.w).Encode(fields)
}

// Step implements build.Progress.
func (p *progress) Step(name string) {
	p.end("")
	p.name, p.start = name, time.Now()
	switch {
	case p.json:
		p.event("step", map[string]any{"step": name})
	case p.terminal:
		fmt.Fprintf(p.w, "%s …", name)
		p.open = true
	}
}

// end closes the step that runs.
func (p *progress) end(mark string) {
	if p.name == "" {
		return
	}
	seconds := time.Since(p.start).Seconds()
	switch {
	case p.json:
		p.event("done", map[string]any{"step": p.name, "seconds": seconds})
	case p.terminal:
		fmt.Fprintf(p.w, "\r\x1b[K%s%s  %.1fs\n", p.name, mark, seconds)
	default:
		fmt.Fprintf(p.w, "%s%s  %.1fs\n", p.name, mark, seconds)
	}
	p.name, p.open = "", false
}

// Bytes implements build.Progress.
func (p *progress) Bytes(done, total int64) {
	if !p.terminal || total == 0 || time.Since(p.drawn) < 200*time.Millisecond {
		return
	}
	p.drawn = time.Now()
	eta := ""
	if elapsed := time.Since(p.start); done > 0 && elapsed > time.Second {
		left := time.Duration(float64(elapsed) * float64(total-done) / float64(done))
		eta = fmt.Sprintf(", %s left", left.Round(time.Second))
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s … %d%% of %d MB%s", p.name, done*100/total, total/1e6, eta)
}

// Log implements build.Progress.
func (p *progress) Log(line string) {
	switch {
	case p.json:
		p.event("log", map[string]any{"step": p.name, "message": line})
	case p.terminal:
		fmt.Fprintf(p.w, "\r\x1b[K%s: %s …", p.name, line)
	default:
		fmt.Fprintf(p.w, "  %s\n", line)
	}
}

// finish ends the last step; err is how the build ended.
func (p *progress) finish(err error) {
	if err != nil {
		p.end(": failed")
		return
	}
	p.end("")
}
