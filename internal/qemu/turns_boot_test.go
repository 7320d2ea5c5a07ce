//go:build boot

package qemu_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/qemu"
)

// TestTurns runs three machines on what is taken for one processor: their clocks go
// together and a third as fast as the host's, and one that starts later has their time.
func TestTurns(t *testing.T) {
	turns := qemu.NewTurnsOn(1)
	started := time.Now()
	var machines []*qemu.Machine
	start := func() {
		machines = append(machines, startTest(t, func(c *qemu.Config) { c.Turns, c.Faulty = turns, true }))
	}
	for range 3 {
		start()
	}
	if got := turns.Scale(time.Second); got != 3*time.Second {
		t.Errorf("what takes a second alone is said to take %v beside two others", got)
	}
	const forTime = 15 * time.Second
	time.Sleep(forTime)
	start()
	var clocks []time.Time
	for _, m := range machines {
		clocks = append(clocks, clockOf(t, m))
	}
	behind := time.Since(started) - turns.Now().Sub(started)
	t.Logf("after %v: clocks %v, %v behind", forTime, clocks, behind)
	if behind < forTime/2 || behind > forTime {
		t.Errorf("after %v of a third of a processor the machines are %v behind", forTime, behind)
	}
	for i, c := range clocks {
		if d := c.Sub(turns.Now()).Abs(); d > 3*time.Second {
			t.Errorf("machine %d: its clock differs from the others' by %v", i, d)
		}
	}
	// The machines that are left share what is there.
	for _, m := range machines[1:] {
		m.Kill()
	}
	before := clockOf(t, machines[0])
	time.Sleep(5 * time.Second)
	if d := clockOf(t, machines[0]).Sub(before); d < 4*time.Second {
		t.Errorf("the last machine's clock went %v in 5 s", d)
	}
}

// clockOf reads a machine's real-time clock.
func clockOf(t *testing.T, m *qemu.Machine) time.Time {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var c struct {
		Year  int `json:"tm_year"`
		Month int `json:"tm_mon"`
		Day   int `json:"tm_mday"`
		Hour  int `json:"tm_hour"`
		Min   int `json:"tm_min"`
		Sec   int `json:"tm_sec"`
	}
	if err := m.Control(ctx, "qom-get", map[string]string{"path": "/machine", "property": "rtc-time"}, &c); err != nil {
		t.Fatal(err)
	}
	if c.Year == 0 {
		t.Fatal(fmt.Errorf("the clock says %+v", c))
	}
	return time.Date(c.Year+1900, time.Month(c.Month+1), c.Day, c.Hour, c.Min, c.Sec, 0, time.UTC)
}
