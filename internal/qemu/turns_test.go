package qemu

import (
	"testing"
	"time"
)

// TestChoose gives turns to imagined machines for a while: each gets its share, and
// their clocks stay together.
func TestChoose(t *testing.T) {
	for _, tc := range []struct {
		name string
		on   int // processors
		cpus []int
		want time.Duration // that each has run after a minute
	}{
		{"room for all", 4, []int{2, 2}, time.Minute},
		{"one alone is never stopped", 2, []int{8}, time.Minute},
		{"two on the processors of one", 2, []int{2, 2}, 30 * time.Second},
		{"two at a time", 4, []int{2, 2, 2, 2, 2, 2, 2, 2}, 15 * time.Second},
		{"two of five", 4, []int{2, 2, 2, 2, 2}, 24 * time.Second},
		{"one at a time", 2, []int{2, 2, 2, 2}, 15 * time.Second},
		{"small beside big", 4, []int{4, 1, 1, 1, 1, 1}, 80 * time.Second / 3},
		{"bigger than the host", 2, []int{8, 1}, 30 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var members []*member
			for _, n := range tc.cpus {
				members = append(members, &member{cpus: n})
			}
			ran := map[*member]time.Duration{}
			now := time.Unix(1, 0)
			for range int(time.Minute / turnTime) {
				next := choose(members, tc.on, now)
				used := 0
				for _, m := range members {
					switch {
					case !next[m] && m.stopped.IsZero():
						m.stopped = now
					case next[m] && !m.stopped.IsZero():
						m.behind += now.Sub(m.stopped)
						m.stopped = time.Time{}
					}
					if next[m] {
						ran[m] += turnTime
						used += m.cpus
					}
				}
				if len(next) > 1 && used > tc.on {
					t.Fatalf("%d CPUs run on %d", used, tc.on)
				}
				now = now.Add(turnTime)
			}
			for i, m := range members {
				if d := ran[m] - tc.want; d < -2*turnTime || d > 2*turnTime {
					t.Errorf("machine %d ran %v of a minute, want %v", i, ran[m], tc.want)
				}
			}
		})
	}
}
