package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/phase"
)

// led is the activity light of a single-board computer that may have no screen. A
// machine without one has no such folder.
type led struct {
	dir  string // see Documentation/leds/leds-class.rst of Linux
	last blink
}

// blink is how long the light is on and off in turn; zero is that it shows what the
// card does, as without firstboot.
type blink struct{ on, off time.Duration }

// docs/raspberry-pi.md has the same for people who look at the light.
var (
	blinkWorking = blink{500 * time.Millisecond, 500 * time.Millisecond}
	blinkWaiting = blink{100 * time.Millisecond, 1900 * time.Millisecond}
	blinkFailed  = blink{100 * time.Millisecond, 100 * time.Millisecond}
	blinkDone    = blink{}
)

func newLED(paths host.Paths) *led {
	return &led{dir: paths.At("/sys/class/leds/ACT"), last: blink{-1, -1}}
}

// blinkOf is how the light shows a record.
func blinkOf(rec phase.Record) blink {
	switch {
	case rec.State == phase.StateComplete:
		return blinkDone
	case rec.State == phase.StateNone || trouble(rec).name == "waiting":
		return blinkWaiting
	}
	return blinkWorking
}

// set makes the light blink. The two times are files that the trigger brings.
func (l *led) set(b blink) error {
	if b == l.last {
		return nil
	}
	triggers, err := os.ReadFile(filepath.Join(l.dir, "trigger"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	write := func(file, value string) {
		if err == nil {
			err = os.WriteFile(filepath.Join(l.dir, file), []byte(value), 0o644)
		}
	}
	if b == blinkDone {
		card := "none"
		for _, t := range strings.Fields(string(triggers)) {
			if t = strings.Trim(t, "[]"); t == "mmc0" {
				card = t
			}
		}
		write("trigger", card)
	} else {
		write("trigger", "timer")
		write("delay_on", strconv.FormatInt(b.on.Milliseconds(), 10))
		write("delay_off", strconv.FormatInt(b.off.Milliseconds(), 10))
	}
	if err == nil {
		l.last = b
	}
	return err
}
