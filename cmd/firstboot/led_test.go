package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/internal/phase"
)

// TestLED goes through the states of a first boot on a board with a light.
func TestLED(t *testing.T) {
	s, _ := testScreen(t)
	dir := s.light.paths.At("/sys/class/leds/ACT")
	for _, d := range []string{dir, s.light.paths.At("/sys/class/leds/PWR"), s.light.paths.At("/sys/block/mmcblk1")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	put := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("trigger", "none timer [heartbeat] mmc0 mmc1\n")
	got := func() string {
		t.Helper()
		var all []string
		for _, f := range []string{"trigger", "delay_on", "delay_off"} {
			b, err := os.ReadFile(filepath.Join(dir, f))
			if err == nil {
				all = append(all, string(b))
			}
		}
		return strings.Join(all, " ")
	}
	for _, c := range []struct {
		name string
		show func()
		want string
	}{
		{"before the network", func() { s.show(phase.Record{State: phase.StateNone}) }, "timer 100 1900"},
		{"a phase", func() { s.show(phase.Record{State: phase.StateRunning}) }, "timer 500 500"},
		{"a phase that waits", func() {
			s.show(phase.Record{State: phase.StateRunning, Phases: []phase.PhaseRecord{{Name: "discovery", Waiting: "waiting for the API server"}}})
		}, "timer 100 1900"},
		{"failed", func() { s.failed(errors.New("no")) }, "timer 100 100"},
		{"power off", func() { s.failed(context.Canceled) }, "timer 100 100"},
		{"late", func() { s.waiting("a default route", nil) }, "timer 100 1900"},
		{"complete", func() {
			put("trigger", "none [timer] heartbeat mmc0 mmc1\n")
			s.show(phase.Record{State: phase.StateComplete})
		}, "mmc1 100 1900"},
	} {
		c.show()
		if g := got(); g != c.want {
			t.Errorf("%s: the light has %q, want %q", c.name, g, c.want)
		}
	}
}

// TestPowerLED is for a board whose one light is named as that for the power, and one
// without any.
func TestPowerLED(t *testing.T) {
	s, _ := testScreen(t)
	l := s.light
	if err := l.set(blinkWorking); err != nil {
		t.Fatal(err)
	}
	trigger := filepath.Join(l.paths.At("/sys/class/leds/PWR"), "trigger")
	if err := os.MkdirAll(filepath.Dir(trigger), 0o755); err != nil {
		t.Fatal(err)
	}
	// The light may come after firstboot has begun.
	for _, c := range []struct {
		b    blink
		left string // by the kernel, when it is asked
		want string
	}{{blinkWorking, "none timer [default-on]\n", "timer"}, {blinkDone, "none [timer] default-on\n", "default-on"}} {
		if err := os.WriteFile(trigger, []byte(c.left), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := l.set(c.b); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(trigger); err != nil || string(got) != c.want {
			t.Errorf("%v: the trigger is %q, %v; want %q", c.b, got, err, c.want)
		}
	}
}
