package progress

import (
	"fmt"
	"io"
	"time"
)

// heartbeat is how often a long step says that it is still at it where lines cannot
// be redrawn: CI systems end a job that is silent for some minutes.
const heartbeat = 30 * time.Second

// plain writes lines that stay: for files, pipes and terminals that cannot redraw.
type plain struct {
	w    io.Writer
	last time.Time // something was said about the step
}

func (p *plain) begin(s step) { p.last = s.start }

func (p *plain) tick(under []step) {
	if under[0].now.Sub(p.last) < heartbeat {
		return
	}
	for _, s := range under {
		p.last = s.now
		fmt.Fprintf(p.w, "  %s: %s so far%s\n", s.title(), clock(s.elapsed()), plainBytes(s))
	}
}

func plainBytes(s step) string {
	if s.total <= 0 {
		return ""
	}
	return fmt.Sprintf(", %d%% of %s", percent(s.done, s.total), megabytes(s.total))
}

func (p *plain) log(s step, line string) {
	p.last = s.now
	fmt.Fprintf(p.w, "  %s%s\n", s.lane.prefix(), line)
}

func (p *plain) end(s step, o outcome) {
	mark := ""
	if o != done {
		mark = ": " + string(o)
	}
	fmt.Fprintf(p.w, "%s%s  %.1fs\n", s.title(), mark, s.elapsed().Seconds())
}

func (p *plain) note(line string)            { fmt.Fprintln(p.w, line) }
func (p *plain) console(l lane, line string) { fmt.Fprintln(p.w, l.prefix()+line) }
func (p *plain) event(Event)                 {}
