package flash

import (
	"context"
	"fmt"
	"hash/maphash"
)

// writer writes parts to a device and remembers what they were.
type writer struct {
	dev      device
	seed     maphash.Seed
	progress func(done int64)
	done     int64
	sums     []sum
	reached  int // number of sums whose parts were waited for
}

// sum stands for a part that was written. The hash tells accidents, of which a disk
// is one, from what was written; its seed is this process' own.
type sum struct {
	at, len int64
	hash    uint64
}

// behind is how many parts may be on their way to the disk.
const behind = 64

func (w *writer) write(p part) error {
	if _, err := w.dev.WriteAt(p.data, p.at); err != nil {
		return err
	}
	n := int64(len(p.data))
	w.sums = append(w.sums, sum{p.at, n, maphash.Bytes(w.seed, p.data)})
	var old sum
	if len(w.sums)-w.reached > behind {
		old = w.sums[w.reached]
		w.reached++
	}
	w.dev.written(p.at, n, old.at, old.len)
	w.done += n
	w.progress(w.done)
	return nil
}

// DiffersError says that a disk gives other bytes than were written to it.
type DiffersError struct{ At, Len int64 }

func (e *DiffersError) Error() string {
	return fmt.Sprintf("reads back other bytes than were written, in the %d KiB from MiB %d on: the disk is broken, or smaller than it says; nothing on it can be trusted, so take another", e.Len>>10, e.At>>20)
}

// verify reads all parts back from the medium.
func (w *writer) verify(ctx context.Context, progress func(done int64)) error {
	if err := w.dev.dropCache(); err != nil {
		return err
	}
	done, b := int64(0), make([]byte, block)
	for _, s := range w.sums {
		if err := ctx.Err(); err != nil {
			return err
		}
		part := b[:s.len]
		if _, err := w.dev.ReadAt(part, s.at); err != nil {
			return err
		}
		if maphash.Bytes(w.seed, part) != s.hash {
			return &DiffersError{s.at, s.len}
		}
		done += s.len
		progress(done)
	}
	return nil
}
