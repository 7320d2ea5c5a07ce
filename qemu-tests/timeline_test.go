//go:build boot

package qemutests

import (
	"fmt"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kiln-os/kiln/internal/qemu"
)

// timeline collects how long things took, in the order they are told.
type timeline struct{ rows []row }

type row struct {
	what string
	took time.Duration
}

func newTimeline() *timeline { return &timeline{} }

func (l *timeline) add(what string, took time.Duration) { l.rows = append(l.rows, row{what, took}) }

// String renders a table.
func (l *timeline) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, r := range l.rows {
		fmt.Fprintf(w, "%s\t%.1f s\t\n", r.what, r.took.Seconds())
	}
	_ = w.Flush() // into memory
	return b.String()
}

// milestones are lines of the console and what has begun when they appear.
var milestones = []struct {
	what string
	re   *regexp.Regexp
}{
	{"first output of the firmware", regexp.MustCompile(`\S`)},
	{"kernel", regexp.MustCompile(`Linux version \d`)},
	{"systemd in the initramfs", regexp.MustCompile(`systemd\[1\]: .*Running in initrd`)},
	{"switch to the root file system", regexp.MustCompile(`Switching root|switch-root`)},
	{"login prompt", regexp.MustCompile(` login:`)},
}

// addConsole adds when the console reached its milestones, counted from power-on.
func (l *timeline) addConsole(c *qemu.Console) {
	for _, m := range milestones {
		if line, ok := c.First(0, m.re); ok {
			l.add("from power-on: "+m.what, line.At)
		}
	}
}

// analyzed is a part of `systemd-analyze time`: "5.2s (firmware)", "1min 2.3s (userspace)".
var analyzed = regexp.MustCompile(`((?:\d+min )?[\d.]+m?s) \((\w+)\)`)

// addAnalyze adds what systemd measured, and returns how many parts there were.
func (l *timeline) addAnalyze(out string) int {
	found := analyzed.FindAllStringSubmatch(out, -1)
	for _, f := range found {
		d, err := time.ParseDuration(strings.ReplaceAll(strings.ReplaceAll(f[1], "min", "m"), " ", ""))
		if err == nil {
			l.add("systemd: "+f[2], d)
		}
	}
	return len(found)
}
