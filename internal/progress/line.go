package progress

import (
	"fmt"
	"strings"
	"time"
	"unicode"
)

// style is how lines look on a terminal.
type style struct{ colour, ascii bool }

// part is a piece of a line in one colour.
type part struct{ sgr, text string }

// Colours, as parameters of ECMA-48's SGR. They are the terminal's own, so that
// they can be read on light and on dark ones.
const (
	none  = ""
	bold  = "1"
	faint = "2"
	red   = "31"
	green = "32"
)

var spinner = []string{"|", "/", "-", `\`}

const (
	maxBar = 30
	minBar = 8
)

// running is the line of a step that is under way: a bar if its bytes are known,
// else its last log line. It is shorter than width: a character in the last column
// makes some terminals begin a new line.
func (st style) running(s step, frame, width int) string {
	parts := []part{{green, spinner[frame%len(spinner)]}, {bold, " " + s.title()}}
	if s.total <= 0 {
		parts = append(parts, part{none, "  " + clock(s.elapsed())})
		if s.detail != "" {
			parts = append(parts, part{faint, "  " + s.detail})
		}
		return st.line(parts, width)
	}
	numbers := fmt.Sprintf("  %3d%%  %s", percent(s.done, s.total), megabytes(s.total))
	if rate := s.samples.rate(); rate > 0 {
		numbers += fmt.Sprintf("  %.1f MB/s", rate/1e6)
		if left := s.total - s.done; left > 0 {
			numbers += fmt.Sprintf("  %s left", clock(time.Duration(float64(left)/rate*float64(time.Second))))
		}
	}
	// What the bar gets is what the rest leaves; the numbers are worth more than it.
	room := width - 1 - len("| ") - columns(s.title()) - columns(numbers) - len("  []")
	if n := min(room, maxBar); n >= minBar {
		parts = append(parts, part{none, "  [" + st.bar(s.done, s.total, n) + "]"})
	}
	return st.line(append(parts, part{none, numbers}), width)
}

// together is the line of several steps that are under way.
func (st style) together(under []step, frame, width int) string {
	parts := []part{{green, spinner[frame%len(spinner)]}}
	for _, s := range under {
		parts = append(parts, part{bold, "  " + s.title()}, part{none, " " + clock(s.elapsed())})
	}
	return st.line(parts, width)
}

// bar is n columns wide.
func (st style) bar(done, total int64, n int) string {
	full, head, empty := "━", "", " "
	if st.ascii {
		full, head = "=", ">"
	}
	filled := min(int(float64(n)*float64(max(done, 0))/float64(total)), n)
	if head == "" || filled == 0 || filled == n {
		head = ""
	} else {
		filled--
	}
	return strings.Repeat(full, filled) + head + strings.Repeat(empty, n-filled-len(head))
}

// ended is the line that stays of a step that is over.
func (st style) ended(s step, o outcome, width int) string {
	took := fmt.Sprintf("  %.1fs", s.elapsed().Seconds())
	check, cross := "✓", "✗"
	if st.ascii {
		check, cross = "ok", "!!"
	}
	if o == done {
		return st.line([]part{{green, check}, {none, " " + s.title()}, {faint, took}}, width)
	}
	return st.line([]part{{red, cross}, {bold, " " + s.title() + ": " + string(o)}, {faint, took}}, width)
}

// line joins the parts and clips them to less than width columns.
func (st style) line(parts []part, width int) string {
	var b strings.Builder
	room := width - 1
	for _, p := range parts {
		text := printable(p.text)
		if n := columns(text); n > room {
			text = string([]rune(text)[:max(room, 0)])
		}
		room -= columns(text)
		switch {
		case text == "":
		case st.colour && p.sgr != none:
			b.WriteString("\x1b[" + p.sgr + "m" + text + "\x1b[0m")
		default:
			b.WriteString(text)
		}
	}
	return b.String()
}

// printable keeps text on its line.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}

// columns counts the columns of a text of narrow characters, which all of ours are.
func columns(s string) int { return len([]rune(s)) }

func percent(done, total int64) int64 { return min(max(done, 0)*100/total, 100) }

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

// clock writes 1:02:03, or 2:03.
func clock(d time.Duration) string {
	s := int64(d.Round(time.Second) / time.Second)
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}
