package progress

import (
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// clearLine returns to the start of the line and empties it. The cursor is never
// hidden, and rests at the end of the line: whatever ends the program, the
// terminal is as it was.
const clearLine = "\r\x1b[K"

// terminal redraws one line for what is under way. Lines of steps that are over
// stay above it.
type terminal struct {
	w     io.Writer
	width func() int
	style style
	frame int
}

// terminalWidth says whether w is a terminal that can redraw a line, and returns
// a function that tells how wide it is now.
func terminalWidth(w io.Writer, getenv func(string) string) (func() int, bool) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, false
	}
	if t := getenv("TERM"); t == "" || t == "dumb" {
		return nil, false
	}
	return func() int {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			return width
		}
		return 80
	}, true
}

// styleFor reads what the terminal's user wants: colours unless NO_COLOR is set
// (no-color.org), and ASCII where the locale says that there is no more.
func styleFor(getenv func(string) string) style {
	locale := getenv("LC_ALL")
	for _, name := range []string{"LC_CTYPE", "LANG"} {
		if locale == "" {
			locale = getenv(name)
		}
	}
	locale = strings.ToLower(locale)
	return style{
		colour: getenv("NO_COLOR") == "",
		ascii:  !strings.Contains(locale, "utf-8") && !strings.Contains(locale, "utf8"),
	}
}

func (t *terminal) draw(s step) {
	_, _ = io.WriteString(t.w, clearLine+t.style.running(s, t.frame, t.width()))
}

// above writes a line that stays. The next tick draws the step's line again.
func (t *terminal) above(line string) { _, _ = io.WriteString(t.w, clearLine+line+"\n") }

func (t *terminal) begin(s step) { t.draw(s) }
func (t *terminal) tick(under []step) {
	t.frame++
	if len(under) == 1 {
		t.draw(under[0])
		return
	}
	_, _ = io.WriteString(t.w, clearLine+t.style.together(under, t.frame, t.width()))
}

// log only changes what the next tick draws: a burst of lines must not flicker.
func (t *terminal) log(step, string)      {}
func (t *terminal) end(s step, o outcome) { t.above(t.style.ended(s, o, t.width())) }
func (t *terminal) note(line string)      { t.above(line) }
func (t *terminal) console(l lane, line string) {
	t.above(l.prefix() + line)
}
func (t *terminal) event(Event) {}
