package main

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/build"
)

// heard notes what a bootWatch tells.
type heard struct{ steps, logs, console []string }

func (h *heard) Step(name string)    { h.steps = append(h.steps, name) }
func (h *heard) Log(line string)     { h.logs = append(h.logs, line) }
func (h *heard) Console(line string) { h.console = append(h.console, line) }

// TestBootWatch reads lines of a real console, with the times at their beginning.
func TestBootWatch(t *testing.T) {
	data, err := os.ReadFile("testdata/console.txt")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(strings.TrimSpace(string(data)), "\n")
	start := time.Unix(0, 0)
	for _, console := range []bool{false, true} {
		now, h := start, &heard{}
		w := newBootWatch(h, console)
		w.now = func() time.Time { return now }
		w.parts[0].at = start
		w.Pending("API server: connection refused") // no news before the node is set up
		for _, l := range lines {
			var seconds float64
			if _, err := fmt.Sscanf(l, "[%f]", &seconds); err != nil {
				t.Fatalf("%q: %v", l, err)
			}
			now = start.Add(time.Duration(seconds * float64(time.Second)))
			if _, err := w.Write([]byte(l)); err != nil {
				t.Fatal(err)
			}
		}
		w.Pending("pod kube-system/coredns: Pending")

		wantSteps := []string{
			"firmware and boot loader", "kernel", "initramfs", "system start", "firstboot: preflight", "firstboot: images",
			"firstboot: wait-control-plane", "firstboot: ready", "pods and add-ons",
		}
		if !reflect.DeepEqual(h.steps, wantSteps) {
			t.Errorf("steps %q", h.steps)
		}
		if console {
			if len(h.console) != len(lines) || len(h.logs) != 1 {
				t.Errorf("with --console %d lines of %d, log %q", len(h.console), len(lines), h.logs)
			}
			continue
		}
		if len(h.console) != 0 || h.logs[0] != "[ 1/16] checking the machine" || h.logs[len(h.logs)-1] != "pod kube-system/coredns: Pending" {
			t.Errorf("log %q, console %q", h.logs, h.console)
		}
		var names []string
		sum := 0.0
		times := w.times(start.Add(560 * time.Second))
		for _, s := range times[:len(times)-1] {
			names, sum = append(names, s.Name), sum+s.Seconds
		}
		if !reflect.DeepEqual(names, wantSteps) || sum < 559.9 || sum > 560.1 {
			t.Errorf("times %v, %.1f s", times, sum)
		}
		if last := times[len(times)-1]; last != (build.StepTime{Name: "power-on to Ready", Seconds: 560}) {
			t.Errorf("last row %v", last)
		}
		w.End()
		if _, err := w.Write([]byte("[ 561.0] firstboot[7]: [16/16] ready: done\n")); err != nil || len(h.steps) != len(wantSteps) {
			t.Errorf("%v; after the end the steps are %q", err, h.steps)
		}
	}
}
