package qemu

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"
)

// turnTime is how long a machine runs in one turn. Shorter ones cost more of the
// host's time; in longer ones machines wait for each other's answers: what one asks
// of another takes one turn by its own clock.
const turnTime = 50 * time.Millisecond

// Turns lets emulated machines that have more CPUs than the host has processors run in
// turns, each as if it were alone. Those whose turn it is not stand still, and their
// clocks with them, so that all of them see computers that keep up, on a network whose
// answers take a moment: an election timeout, a lease or a probe measures the machines
// and not the host. Together they are as slow as the host is; their clocks go behind its
// clock, all by the same, and a machine that is started later gets their time.
//
// Machines with KVM are left alone: the host's scheduler shares processors between
// them well enough.
type Turns struct {
	processors int // of the host
	slice      time.Duration

	mu      sync.Mutex
	members []*member
	behind  time.Duration // of the machine that is furthest behind the host's clock
	runs    bool          // a goroutine gives turns
}

// member is a machine that takes part.
type member struct {
	m       *Machine
	cpus    int
	behind  time.Duration // how far its clock is behind the host's
	stopped time.Time     // since when; zero if it runs
	failed  bool          // it takes no more turns
}

// NewTurns is for machines that this host is to run together.
func NewTurns() *Turns { return &Turns{processors: runtime.NumCPU(), slice: turnTime} }

// Now is the time by the machines' clocks.
func (t *Turns) Now() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.Now().Add(-t.latest())
}

// Scale stretches what a machine takes that has the host to itself to what it takes
// beside the others.
func (t *Turns) Scale(d time.Duration) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	cpus := 0
	for _, m := range t.members {
		if !m.m.hasExited() {
			cpus += m.cpus
		}
	}
	return d * time.Duration(max(1, (cpus+t.processors-1)/t.processors))
}

// latest is how far the machines are behind, with mu held.
func (t *Turns) latest() time.Duration {
	for _, m := range t.members {
		d := m.behind
		if !m.stopped.IsZero() {
			d += time.Since(m.stopped)
		}
		t.behind = max(t.behind, d)
	}
	return t.behind
}

// rtc is the -rtc option of a machine that starts now, and how far it is behind.
func (t *Turns) rtc() (arg string, behind time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	behind = t.latest()
	return "base=" + time.Now().Add(-behind).UTC().Format("2006-01-02T15:04:05") + ",clock=vm", behind
}

// add lets a running machine take part until it exits.
func (t *Turns) add(m *Machine, behind time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.members = append(t.members, &member{m: m, cpus: m.cfg.CPUs, behind: behind})
	if !t.runs {
		t.runs = true
		go t.run()
	}
}

// run gives turns until no machine is left.
func (t *Turns) run() {
	for t.turn() {
		time.Sleep(t.slice)
	}
}

// turn begins the next turn; false if there is no machine any more.
func (t *Turns) turn() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.latest() // what a machine that is gone was behind stays known
	t.members = slices.DeleteFunc(t.members, func(m *member) bool { return m.failed || m.m.hasExited() })
	if len(t.members) == 0 {
		t.runs = false
		return false
	}
	next := choose(t.members, t.processors, time.Now())
	var wg sync.WaitGroup
	for _, m := range t.members {
		if !next[m] && m.stopped.IsZero() {
			wg.Go(func() { m.do("stop") })
		}
	}
	wg.Wait()
	for _, m := range t.members {
		if next[m] && !m.stopped.IsZero() {
			wg.Go(func() { m.do("cont") })
		}
	}
	wg.Wait()
	return true
}

// choose picks the machines that run next: those that are furthest behind, one CPU on
// each of the processors, and one machine in any case.
func choose(members []*member, processors int, now time.Time) map[*member]bool {
	late := func(m *member) time.Duration {
		if m.stopped.IsZero() {
			return m.behind
		}
		return m.behind + now.Sub(m.stopped)
	}
	order := slices.Clone(members)
	slices.SortStableFunc(order, func(a, b *member) int { return cmp.Compare(late(b), late(a)) })
	next := map[*member]bool{}
	for _, m := range order {
		if len(next) > 0 && m.cpus > processors {
			continue
		}
		next[m] = true
		processors -= m.cpus
	}
	return next
}

// do stops or continues the machine. One that does not obey has failed, unless it is just
// about to exit: it would stand still for ever, or disturb the others.
func (m *member) do(command string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := m.m.qmp.Do(ctx, command, nil, nil); err != nil {
		m.failed = true
		select {
		case <-m.m.qmp.done: // QEMU ends; why is told by what waits for it
		case <-m.m.exited:
		case <-time.After(time.Second):
			m.m.failed(fmt.Errorf("machine %s: its turn: %w", m.m.cfg.Name, err))
		}
		return
	}
	if command == "stop" {
		m.stopped = time.Now()
		return
	}
	m.behind += time.Since(m.stopped)
	m.stopped = time.Time{}
}
