package progress

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/diag"
)

// testClock is a clock that stands still.
type testClock struct{ at time.Time }

func (c *testClock) now() time.Time { return c.at }

// story tells a Reporter of a build that fails in its third step, with a tick
// whenever the clock moves.
func story(v func(*bytes.Buffer, *testClock) view) string {
	var out bytes.Buffer
	c := &testClock{t0}
	r := &Reporter{view: v(&out, c), now: c.now}
	pass := func(d time.Duration) {
		for end := c.at.Add(d); c.at.Before(end); {
			c.at = c.at.Add(interval)
			r.tick()
		}
	}
	r.Step("keys")
	pass(400 * time.Millisecond)
	r.Step("fetch")
	for i := range int64(4) {
		r.Bytes(i*10e6, 40e6)
		pass(10 * time.Second)
	}
	r.Bytes(40e6, 40e6)
	r.Step("compile")
	r.Log("etcd")
	pass(31 * time.Second)
	r.Lanes("kiln-1")[0].Console("a line of a machine")
	r.Event(Event{Event: EventReady})
	r.End(fmt.Errorf("compile: %w", errors.New("no space left")))
	r.Notef("stopping %s", "kiln-1")
	r.Log("belongs to no step")
	r.Step("last")
	r.End(fmt.Errorf("last: %w", context.Canceled))
	r.End(nil) // nothing is under way
	pass(time.Second)
	return out.String()
}

func TestPlain(t *testing.T) {
	got := story(func(b *bytes.Buffer, _ *testClock) view { return &plain{w: b} })
	want := `keys  0.4s
  fetch: 0:30 so far, 50% of 40.0 MB
fetch  40.0s
  etcd
  compile: 0:30 so far
a line of a machine
compile: failed  31.0s
stopping kiln-1
belongs to no step
last: interrupted  0.0s
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// TestLanes: steps of several machines go on at the same time, each with its name.
func TestLanes(t *testing.T) {
	told := func(v func(*bytes.Buffer) view, names ...string) string {
		var out bytes.Buffer
		c := &testClock{t0}
		r := &Reporter{view: v(&out), now: c.now}
		r.Step("QEMU")
		r.End(nil)
		lanes := r.Lanes(names...)
		for _, l := range lanes {
			l.Step("kernel")
		}
		c.at = c.at.Add(31 * time.Second)
		r.tick()
		lanes[0].Step("initramfs")
		lanes[0].Log("mounting")
		last := lanes[len(lanes)-1]
		last.Console("a line")
		last.End(errors.New("panic"))
		last.Log("after its end")
		return out.String()
	}
	plainView := func(b *bytes.Buffer) view { return &plain{w: b, last: t0} }
	if got, want := told(plainView, "a", "b"), `QEMU  0.0s
  a: kernel: 0:31 so far
  b: kernel: 0:31 so far
a: kernel  31.0s
  a: mounting
b: a line
b: kernel: failed  31.0s
b: after its end
`; got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if got, want := told(plainView, "a"), `QEMU  0.0s
  kernel: 0:31 so far
kernel  31.0s
  mounting
a line
initramfs: failed  0.0s
after its end
`; got != want {
		t.Errorf("one machine:\n%s\nwant:\n%s", got, want)
	}
	term := told(func(b *bytes.Buffer) view {
		return &terminal{w: b, width: func() int { return 60 }, style: style{ascii: true}}
	}, "a", "b")
	if want := "/  a: kernel 0:31  b: kernel 0:31"; !strings.Contains(term, want) {
		t.Errorf("no %q in %q", want, term)
	}
	events := told(func(b *bytes.Buffer) view { return &events{w: b, now: func() time.Time { return t0 }} }, "a", "b")
	for _, want := range []string{`"event":"step","node":"a","step":"initramfs"`, `"event":"console","node":"b","message":"a line"`, `"event":"failed","node":"b","step":"kernel"`} {
		if !strings.Contains(events, want) {
			t.Errorf("no %s in\n%s", want, events)
		}
	}
}

func TestEvents(t *testing.T) {
	out := story(func(b *bytes.Buffer, c *testClock) view { return &events{w: b, now: c.now} })
	var got []string
	progressed := 0
	for _, l := range strings.Split(strings.TrimSpace(out), "\n") {
		var e Event
		if err := json.Unmarshal([]byte(l), &e); err != nil {
			t.Fatalf("%q: %v", l, err)
		}
		if e.Time.Before(t0) {
			t.Errorf("%q has no time", l)
		}
		if e.Event == EventProgress {
			progressed++
			continue
		}
		s := e.Event + " " + e.Step
		if e.Seconds != nil {
			s += fmt.Sprintf(" %.1f", *e.Seconds)
		}
		got = append(got, strings.TrimRight(s+" "+e.Message, " "))
	}
	want := []string{
		"step keys", "done keys 0.4", "step fetch", "done fetch 40.0", "step compile", "log compile etcd", "console  a line of a machine", "ready",
		"failed compile 31.0", "log  stopping kiln-1", "log  belongs to no step", "step last", "interrupted last 0.0",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if progressed != 5 {
		t.Errorf("the bytes were told %d times, want once for each of 5 amounts", progressed)
	}
	if !strings.Contains(out, `{"time":"2026-01-01T00:00:01.4Z","event":"progress","step":"fetch","done":0,"total":40000000}`) {
		t.Errorf("no amount of 0:\n%s", out)
	}
}

// TestTerminal checks the bytes: every line that stays begins on an empty line and
// ends with a newline, and the line that is redrawn is gone in the end.
func TestTerminal(t *testing.T) {
	out := story(func(b *bytes.Buffer, _ *testClock) view {
		return &terminal{w: b, width: func() int { return 60 }, style: style{ascii: true}}
	})
	var stays []string
	for _, l := range strings.SplitAfter(out, "\n") {
		i := strings.LastIndex(l, clearLine)
		if i < 0 && l != "" {
			t.Errorf("%q is written over another line", l)
		} else if strings.HasSuffix(l, "\n") {
			stays = append(stays, strings.TrimSpace(l[i+len(clearLine):]))
		}
	}
	want := []string{
		"ok keys  0.4s", "ok fetch  40.0s", "a line of a machine", "!! compile: failed  31.0s", "stopping kiln-1", "belongs to no step", "!! last: interrupted  0.0s",
	}
	if !reflect.DeepEqual(stays, want) {
		t.Errorf("stays:\n%q\nwant:\n%q", stays, want)
	}
	if !strings.HasSuffix(out, "\n") {
		t.Errorf("ends in the middle of a line: %q", out[len(out)-30:])
	}
	// 71.4 s at 5 a second, and one for each step that begins.
	if n := strings.Count(out, clearLine); n > 5*72+20 {
		t.Errorf("drawn %d times", n)
	}
}

// TestReporter runs the real clock from several goroutines; the race detector watches.
func TestReporter(t *testing.T) {
	var out bytes.Buffer
	r := New(Options{Out: &out, Getenv: os.Getenv})
	finished := make(chan struct{})
	for range 2 {
		go func() {
			for i := range int64(100) {
				r.Step("a")
				r.Bytes(i, 100)
				r.Log("b")
				time.Sleep(3 * time.Millisecond)
			}
			finished <- struct{}{}
		}()
	}
	<-finished
	<-finished
	r.Finish(nil)
	if n := strings.Count(out.String(), "a  0."); n != 200 {
		t.Errorf("%d steps ended", n)
	}
}

func TestViews(t *testing.T) {
	for want, o := range map[string]Options{
		"progress.silent":  {Quiet: true, JSON: true},
		"*progress.events": {JSON: true},
		"*progress.plain":  {},
	} {
		o.Out, o.Getenv = &bytes.Buffer{}, os.Getenv
		if got := fmt.Sprintf("%T", viewFor(o)); got != want {
			t.Errorf("%+v: %s", o, got)
		}
	}
	if out := story(func(*bytes.Buffer, *testClock) view { return silent{} }); out != "" {
		t.Errorf("quiet prints %q", out)
	}
}

// TestGuideDescribesEvents holds docs/guide.md to the types.
func TestGuideDescribesEvents(t *testing.T) {
	text, err := os.ReadFile("../../docs/guide.md")
	if err != nil {
		t.Fatal(err)
	}
	words := Kinds()
	for _, typ := range []reflect.Type{reflect.TypeFor[Event](), reflect.TypeFor[Machine](), reflect.TypeFor[diag.Mistake]()} {
		for i := range typ.NumField() {
			if name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ","); name != "-" {
				words = append(words, name)
			}
		}
	}
	for _, w := range words {
		if !strings.Contains(string(text), "`"+w+"`") {
			t.Errorf("docs/guide.md does not describe %q of the events", w)
		}
	}
}
