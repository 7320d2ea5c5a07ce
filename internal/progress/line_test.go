package progress

import (
	"strings"
	"testing"
	"time"
)

var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// fetching is a step that has brought done of 160 MB after 20 s, at 10 MB/s of late.
func fetching(done int64) step {
	s := step{name: "fetch", start: t0, now: t0.Add(20 * time.Second), done: done, total: 160e6}
	s.samples.add(t0.Add(18*time.Second), done-20e6)
	s.samples.add(t0.Add(20*time.Second), done)
	return s
}

func TestRunning(t *testing.T) {
	compile := step{name: "compile", start: t0, now: t0.Add(83 * time.Second), detail: "compile etcd v3.7.0\tfor amd64\x1b[2J"}
	cached := step{name: "fetch", start: t0, now: t0.Add(time.Second), done: 40e6, total: 160e6}
	for _, c := range []struct {
		name  string
		style style
		step  step
		frame int
		width int
		want  string
	}{
		{"spinner", style{}, compile, 0, 80, "| compile  1:23  compile etcd v3.7.0 for amd64 [2J"},
		{"next frame", style{}, compile, 5, 80, "/ compile  1:23  compile etcd v3.7.0 for amd64 [2J"},
		{"clipped", style{}, compile, 2, 30, "- compile  1:23  compile etcd"},
		{"no room at all", style{}, compile, 3, 1, ""},
		{"width of nothing", style{}, compile, 3, 0, ""},
		{"no log yet", style{}, step{name: "tools", start: t0, now: t0}, 0, 80, "| tools  0:00"},
		{"hours", style{}, step{name: "tools", start: t0, now: t0.Add(3723 * time.Second)}, 0, 80, "| tools  1:02:03"},
		{"bar", style{}, fetching(80e6), 0, 100, "| fetch  [━━━━━━━━━━━━━━━               ]   50%  160.0 MB  10.0 MB/s  0:08 left"},
		{"ASCII bar", style{ascii: true}, fetching(80e6), 0, 100, "| fetch  [==============>               ]   50%  160.0 MB  10.0 MB/s  0:08 left"},
		{"the bar shrinks first", style{ascii: true}, fetching(80e6), 0, 60, "| fetch  [====>     ]   50%  160.0 MB  10.0 MB/s  0:08 left"},
		{"and goes", style{ascii: true}, fetching(80e6), 0, 57, "| fetch   50%  160.0 MB  10.0 MB/s  0:08 left"},
		{"and then the rest", style{ascii: true}, fetching(80e6), 0, 20, "| fetch   50%  160."},
		{"full", style{ascii: true}, fetching(160e6), 0, 100, "| fetch  [==============================]  100%  160.0 MB  10.0 MB/s"},
		{"too early for a rate", style{ascii: true}, cached, 0, 70, "| fetch  [======>                       ]   25%  160.0 MB"},
		{"colours", style{colour: true, ascii: true}, compile, 0, 18, "\x1b[32m|\x1b[0m\x1b[1m compile\x1b[0m  1:23\x1b[2m  \x1b[0m"},
	} {
		got := c.style.running(c.step, c.frame, c.width)
		if strings.TrimRight(got, " ") != strings.TrimRight(c.want, " ") {
			t.Errorf("%s:\n%q, want\n%q", c.name, got, c.want)
		}
		if n := columns(got); !c.style.colour && n >= max(c.width, 1) {
			t.Errorf("%s: %d columns of %d", c.name, n, c.width)
		}
	}
}

// TestEveryWidth: whatever the width and the amount, a line never reaches the last
// column, nor does anything panic.
func TestEveryWidth(t *testing.T) {
	for width := range 120 {
		for done := int64(-1e6); done <= 170e6; done += 7e6 {
			for _, st := range []style{{}, {ascii: true}} {
				if l := st.running(fetching(done), 0, width); columns(l) >= max(width, 1) {
					t.Fatalf("%q has %d columns of %d", l, columns(l), width)
				}
			}
		}
	}
}

func TestEnded(t *testing.T) {
	s := step{name: "keys and tokens", start: t0, now: t0.Add(1240 * time.Millisecond)}
	for _, c := range []struct {
		style   style
		outcome outcome
		want    string
	}{
		{style{}, done, "✓ keys and tokens  1.2s"},
		{style{ascii: true}, done, "ok keys and tokens  1.2s"},
		{style{ascii: true}, failed, "!! keys and tokens: failed  1.2s"},
		{style{colour: true}, done, "\x1b[32m✓\x1b[0m keys and tokens\x1b[2m  1.2s\x1b[0m"},
		{style{colour: true}, interrupted, "\x1b[31m✗\x1b[0m\x1b[1m keys and tokens: interrupted\x1b[0m\x1b[2m  1.2s\x1b[0m"},
	} {
		if got := c.style.ended(s, c.outcome, 80); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestRate(t *testing.T) {
	var w window
	// 100 MB out of the cache in an instant, then 1 MB a second from the network.
	w.add(t0, 0)
	if w.rate() != 0 {
		t.Error("one sample is no rate")
	}
	w.add(t0.Add(interval), 100e6)
	if w.rate() != 0 {
		t.Error("an instant is no rate")
	}
	for i := 2; i <= 50; i++ {
		at := time.Duration(i) * interval
		w.add(t0.Add(at), 100e6+int64(at.Seconds()*1e6))
	}
	if r := w.rate(); r < 0.99e6 || r > 1.01e6 {
		t.Errorf("%.0f bytes a second, want 1e6", r)
	}
	if n := len(w.samples); n > 30 {
		t.Errorf("%d samples are kept", n)
	}
	// A transfer that is tried again goes back: no rate rather than a negative one.
	w.add(t0.Add(11*time.Second), 0)
	if w.rate() != 0 {
		t.Errorf("going back: %f", w.rate())
	}
}

func TestStyle(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want style
	}{
		{map[string]string{"LANG": "de_DE.UTF-8"}, style{colour: true}},
		{map[string]string{"LANG": "C", "LC_ALL": "C.utf8"}, style{colour: true}},
		{map[string]string{"LANG": "C.UTF-8", "LC_ALL": "C"}, style{colour: true, ascii: true}},
		{map[string]string{"LANG": "C.UTF-8", "NO_COLOR": "1"}, style{}},
		{map[string]string{"NO_COLOR": "0"}, style{ascii: true}},
	} {
		if got := styleFor(func(k string) string { return c.env[k] }); got != c.want {
			t.Errorf("%v: %+v, want %+v", c.env, got, c.want)
		}
	}
}
