package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/phase"
)

// led is the light of a single-board computer that may have no screen. A machine without
// one has no such folder.
type led struct {
	paths host.Paths
	last  blink
}

// blink is how long the light is on and off in turn; zero is that it shows what it does
// without firstboot.
type blink struct{ on, off time.Duration }

// docs/raspberry-pi.md has the same for people who look at the light.
var (
	blinkWorking = blink{500 * time.Millisecond, 500 * time.Millisecond}
	blinkWaiting = blink{100 * time.Millisecond, 1900 * time.Millisecond}
	blinkFailed  = blink{100 * time.Millisecond, 100 * time.Millisecond}
	blinkDone    = blink{}
)

func newLED(paths host.Paths) *led {
	return &led{paths: paths, last: blink{-1, -1}}
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

// find returns the folder of the light and its triggers (Documentation/leds/leds-class.rst
// of Linux), and the one of them that it has without firstboot. The folder is empty if the
// machine has no light.
func (l *led) find() (dir string, triggers []string, own string, err error) {
	// A Raspberry Pi 400 has one light, which is named as the one for the power.
	for _, light := range []struct{ name, own string }{{"ACT", l.cardTrigger()}, {"PWR", "default-on"}} {
		dir := l.paths.At("/sys/class/leds/" + light.name)
		data, err := os.ReadFile(filepath.Join(dir, "trigger"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		for _, t := range strings.Fields(string(data)) {
			triggers = append(triggers, strings.Trim(t, "[]"))
		}
		return dir, triggers, light.own, err
	}
	return "", nil, "", nil
}

// cardTrigger is the trigger that shows what the card does. Linux gives a card the number
// of its slot, and a wireless chip may have the first.
func (l *led) cardTrigger() string {
	cards, err := filepath.Glob(l.paths.At("/sys/block/mmcblk?"))
	if err != nil || len(cards) == 0 {
		return "mmc0"
	}
	return "mmc" + strings.TrimPrefix(filepath.Base(cards[0]), "mmcblk")
}

// set makes the light blink. The two times are files that the trigger brings.
func (l *led) set(b blink) error {
	if b == l.last {
		return nil
	}
	dir, triggers, own, err := l.find()
	if dir == "" || err != nil {
		return err
	}
	write := func(file, value string) {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, file), []byte(value), 0o644)
		}
	}
	switch {
	case b != blinkDone:
		write("trigger", "timer")
		write("delay_on", strconv.FormatInt(b.on.Milliseconds(), 10))
		write("delay_off", strconv.FormatInt(b.off.Milliseconds(), 10))
	case slices.Contains(triggers, own):
		write("trigger", own)
	default:
		write("trigger", "none")
	}
	if err == nil {
		l.last = b
	}
	return err
}
