package qemu

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"time"
)

// maxConsoleLines bounds what a Console remembers. A chatty boot is about 3,000
// lines; the whole text is in the log file anyway.
const maxConsoleLines = 50_000

// maxLine is the length in bytes at which an endless line is cut.
const maxLine = 64 << 10

// Line is one line of a serial console.
type Line struct {
	// At is the time since the machine was started.
	At   time.Duration
	Text string
}

// maxPrompt is the part of an unfinished line, in bytes, in which prompts are looked for.
const maxPrompt = 1 << 10

// ConsoleError says that the console showed something a boot does not recover
// from. Its text ends with the last lines of the console.
type ConsoleError struct {
	Kind string // what happened, such as "kernel panic"
	Line string // the line that says so
	Tail string // the last lines of the console
}

// Error implements error.
func (e *ConsoleError) Error() string {
	return fmt.Sprintf("%s: %q\nconsole tail:\n%s", e.Kind, e.Line, e.Tail)
}

// fatal lists what makes waiting any longer pointless. prompt says that the
// text is never followed by a newline, so an unfinished line counts as well.
var fatal = []struct {
	kind   string
	re     *regexp.Regexp
	prompt bool
}{
	{"kernel panic", regexp.MustCompile(`Kernel panic - not syncing`), false},
	{"emergency mode", regexp.MustCompile(`(?i)\b(you are in|entering) emergency mode|Reached target.*emergency\.target`), false},
	{"the initramfs has stopped", regexp.MustCompile(`Kiln: this boot has stopped`), false},
	{"systemd has stopped", regexp.MustCompile(`systemd\[1\]: Freezing execution|\[!!!!!!\].*[Ff]reezing`), false},
	{"a unit's dependency failed", regexp.MustCompile(`Dependency failed for `), false},
	{"verity found corruption", regexp.MustCompile(`device-mapper: verity: .* is corrupted`), false},
	{"firmware found nothing to boot", regexp.MustCompile(`No bootable (option|device)|BdsDxe: failed to (load|start) Boot|E3404: Not a bootable device|E3407: Load failed`), false},
	// The disk is the only boot entry the machine has, so network boot and the
	// EFI shell are what firmware falls back to when the disk did not boot.
	{"firmware fell back to network boot", regexp.MustCompile(`>>\s*Start (PXE|HTTP) (Boot )?over`), true},
	{"firmware fell back to its shell", regexp.MustCompile(`UEFI Interactive Shell|\bShell>`), true},
	{"the boot loader stopped", regexp.MustCompile(`\bgrub(?: rescue)?>|Error loading EFI binary|Failed to execute .*\.efi`), true},
}

// Console collects what a machine writes to its serial port. It is safe for
// concurrent use.
type Console struct {
	start time.Time
	mu    sync.Mutex
	// changed is closed and replaced whenever something arrives.
	changed chan struct{}
	lines   []Line
	dropped int // lines forgotten from the front
	partial []byte
	failure error
	closed  error // why no more will come
	sinks   []io.Writer
	onFail  func(error)
	faulty  bool // no line is fatal
}

// newConsole returns a Console that counts time from start, copies each line to
// the sinks (which never block for long) and calls onFail once, at the first
// fatal line.
func newConsole(start time.Time, onFail func(error), sinks ...io.Writer) *Console {
	c := &Console{start: start, changed: make(chan struct{}), onFail: onFail}
	for _, s := range sinks {
		if s != nil {
			c.sinks = append(c.sinks, s)
		}
	}
	return c
}

// Write takes raw bytes of the serial line; it implements io.Writer and never fails.
func (c *Console) Write(p []byte) (int, error) {
	c.mu.Lock()
	at := time.Since(c.start)
	var failed error
	see := func(text string, unfinished bool) {
		if e := c.classify(text, unfinished); e != nil && failed == nil {
			failed = e
		}
	}
	c.partial = append(c.partial, p...)
	for {
		i := bytes.IndexByte(c.partial, '\n')
		if i < 0 && len(c.partial) > maxLine {
			i = maxLine // firmware that redraws one line forever never ends it
		}
		if i < 0 {
			break
		}
		text := clean(c.partial[:i])
		c.partial = bytes.TrimPrefix(c.partial[i:], []byte("\n"))
		c.add(Line{At: at, Text: text})
		see(text, false)
	}
	// A prompt is short; looking at all of a long line again for every byte that is
	// added to it would be slow.
	see(clean(c.partial[max(len(c.partial)-maxPrompt, 0):]), true)
	first := failed != nil && c.failure == nil
	if first {
		c.failure = failed
	}
	c.wake()
	c.mu.Unlock()
	if first && c.onFail != nil {
		c.onFail(failed)
	}
	return len(p), nil
}

// add remembers a line and hands it to the sinks. A sink that fails is not
// asked again: a full disk must not stop the machine.
func (c *Console) add(l Line) {
	c.lines = append(c.lines, l)
	if len(c.lines) > maxConsoleLines {
		drop := maxConsoleLines / 10
		c.lines = append([]Line(nil), c.lines[drop:]...)
		c.dropped += drop
	}
	kept := c.sinks[:0]
	for _, w := range c.sinks {
		if _, err := fmt.Fprintf(w, "[%9.3f] %s\n", l.At.Seconds(), l.Text); err == nil {
			kept = append(kept, w)
		}
	}
	c.sinks = kept
}

// classify returns a ConsoleError if text is one of the fatal ones.
func (c *Console) classify(text string, unfinished bool) error {
	if c.failure != nil || c.faulty {
		return nil
	}
	for _, f := range fatal {
		if unfinished && !f.prompt {
			continue
		}
		if f.re.MatchString(text) {
			return &ConsoleError{Kind: f.kind, Line: strings.TrimSpace(text), Tail: c.tail(40)}
		}
	}
	return nil
}

// fail records a failure that was noticed elsewhere.
func (c *Console) fail(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failure == nil {
		c.failure = why
	}
	c.wake()
}

// wake tells everybody who waits that something changed; c.mu is held.
func (c *Console) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// end says that nothing more will come, and why.
func (c *Console) end(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if rest := clean(c.partial); strings.TrimSpace(rest) != "" {
		c.add(Line{At: time.Since(c.start), Text: rest})
	}
	c.partial = nil
	if c.closed == nil {
		c.closed = why
	}
	c.wake()
}

// Mark returns the present end of the console, to be given to WaitForSince. A
// line that is not finished yet counts as before the mark.
func (c *Console) Mark() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	mark := c.dropped + len(c.lines)
	if len(c.partial) > 0 {
		mark++
	}
	return mark
}

// WaitFor returns the first line since the start of the machine that matches re.
func (c *Console) WaitFor(ctx context.Context, re *regexp.Regexp) (Line, error) {
	return c.WaitForSince(ctx, 0, re)
}

// WaitForSince returns the first line after mark that matches re; an unfinished
// line (a prompt) counts. It fails at once, with a *ConsoleError, when the
// console shows something that no boot recovers from, and when the machine ends.
func (c *Console) WaitForSince(ctx context.Context, mark int, re *regexp.Regexp) (Line, error) {
	for {
		c.mu.Lock()
		for i := max(mark-c.dropped, 0); i < len(c.lines); i++ {
			if re.MatchString(c.lines[i].Text) {
				l := c.lines[i]
				c.mu.Unlock()
				return l, nil
			}
		}
		mark = max(mark, c.dropped+len(c.lines))
		if p := clean(c.partial); c.dropped+len(c.lines) >= mark && len(p) > 0 && re.MatchString(p) {
			c.mu.Unlock()
			return Line{At: time.Since(c.start), Text: p}, nil
		}
		failure, closed, changed := c.failure, c.closed, c.changed
		c.mu.Unlock()
		switch {
		case failure != nil:
			return Line{}, fmt.Errorf("waiting for console line %q: %w", re, failure)
		case closed != nil:
			return Line{}, fmt.Errorf("waiting for console line %q: %w\nconsole tail:\n%s", re, closed, c.Tail(40))
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Line{}, fmt.Errorf("waiting for console line %q: %w\nconsole tail:\n%s", re, context.Cause(ctx), c.Tail(40))
		}
	}
}

// Tail returns the last n lines, the unfinished one included.
func (c *Console) Tail(n int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tail(n)
}

func (c *Console) tail(n int) string {
	lines := c.lines[max(len(c.lines)-n, 0):]
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(l.Text)
		b.WriteByte('\n')
	}
	if p := clean(c.partial); p != "" {
		b.WriteString(p)
		b.WriteByte('\n')
	}
	return b.String()
}

// Lines returns a copy of all remembered lines.
func (c *Console) Lines() []Line {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Line(nil), c.lines...)
}

// First returns the first remembered line after mark that matches re.
func (c *Console) First(mark int, re *regexp.Regexp) (Line, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := max(mark-c.dropped, 0); i < len(c.lines); i++ {
		if re.MatchString(c.lines[i].Text) {
			return c.lines[i], true
		}
	}
	return Line{}, false
}

// Failure returns the *ConsoleError of the first fatal line, or nil.
func (c *Console) Failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failure
}

// escape matches terminal control sequences (ECMA-48 CSI and OSC, and two-byte escapes).
var escape = regexp.MustCompile(`\x1b(\[[0-9;?=]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\^_c=>])`)

// clean removes terminal control sequences and control characters, so that
// patterns see what a person would read.
func clean(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	b = escape.ReplaceAll(b, nil)
	return strings.Map(func(r rune) rune {
		if r == '\t' || r >= ' ' && r != 0x7f {
			return r
		}
		return -1
	}, strings.ToValidUTF8(string(b), "\uFFFD"))
}
