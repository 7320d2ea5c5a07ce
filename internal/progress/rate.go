package progress

import "time"

// rateWindow is how far back a rate looks. What came from the cache in an instant
// says nothing about how fast the network is, so the whole step is no measure.
const rateWindow = 5 * time.Second

// leastSpan is how much time a rate needs to mean something.
const leastSpan = time.Second

// window holds the last samples of a count of bytes.
type window struct{ samples []sample }

type sample struct {
	at   time.Time
	done int64
}

// add notes a sample and forgets those that are too old. One that is just outside
// stays, so that the window is covered from its beginning.
func (w *window) add(at time.Time, done int64) {
	w.samples = append(w.samples, sample{at, done})
	for len(w.samples) > 2 && at.Sub(w.samples[1].at) >= rateWindow {
		w.samples = w.samples[1:]
	}
}

// rate is in bytes per second; 0 if there is too little to tell.
func (w window) rate() float64 {
	if len(w.samples) < 2 {
		return 0
	}
	first, last := w.samples[0], w.samples[len(w.samples)-1]
	span := last.at.Sub(first.at)
	if span < leastSpan || last.done <= first.done {
		return 0
	}
	return float64(last.done-first.done) / span.Seconds()
}
