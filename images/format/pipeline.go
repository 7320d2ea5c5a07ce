package format

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/kiln-os/kiln/internal/sparse"
)

// unitSize is the grain in which zeros are looked for and, in the formats that
// allocate, stored: the cluster of qcow2, the grain of VMDK.
const unitSize = 64 << 10

// zeros is what a unit without content is compared with.
var zeros [unitSize]byte

func isZero(unit []byte) bool { return bytes.Equal(unit, zeros[:len(unit)]) }

// piece is a part of the disk on its way to the file.
type piece struct {
	at   int64  // on the disk
	data []byte // short at the disk's end
	// What a worker made of it; the memory is used again for a later piece.
	packed []byte
	units  []unit
	done   chan struct{}
}

// unit is one of the units of a piece: zeros, as it is, or packed.
type unit struct {
	data   []byte // nil: zeros
	packed bool
}

// split lists the piece's units as they are.
func (p *piece) split() {
	p.units = p.units[:0]
	for b := p.data; len(b) > 0; {
		n := min(unitSize, len(b))
		u := unit{data: b[:n:n]}
		if isZero(u.data) {
			u.data = nil
		}
		p.units, b = append(p.units, u), b[n:]
	}
}

// isZero says whether all units are zeros.
func (p *piece) isZero() bool {
	for _, u := range p.units {
		if u.data != nil {
			return false
		}
	}
	return true
}

// pipeline passes a disk image's pieces that are not in holes through workers and
// then, in their order, to emit. So a disk is packed on all processors, and what is
// written depends on its content alone.
type pipeline struct {
	src  *os.File
	size int64 // of a piece, a multiple of unitSize
	// worker returns a function that fills packed and units; each worker has its own.
	worker func() (func(*piece) error, error)
	// emit is called by one goroutine.
	emit     func(*piece) error
	progress func(n int64) // may be nil
}

// run returns when all is emitted. It uses memory for a few pieces per processor.
func (l pipeline) run(ctx context.Context) error {
	st, err := l.src.Stat()
	if err != nil {
		return err
	}
	numbers, err := sparse.Blocks(l.src, l.size)
	if err != nil {
		return err
	}
	workers := runtime.GOMAXPROCS(0)
	group, ctx := errgroup.WithContext(ctx)
	// A piece is sent to order before it is worked on, so both channels have room for all.
	free, order, todo := make(chan *piece, 3*workers), make(chan *piece, 3*workers), make(chan *piece, 3*workers)
	for range cap(free) {
		free <- &piece{data: make([]byte, l.size), done: make(chan struct{}, 1)}
	}
	group.Go(func() error {
		defer close(order)
		defer close(todo)
		for _, n := range numbers {
			select {
			case p := <-free:
				p.at = n * l.size
				p.data = p.data[:min(l.size, st.Size()-p.at)]
				order <- p
				todo <- p
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range workers {
		group.Go(func() error {
			work, err := l.worker()
			if err != nil {
				return err
			}
			for p := range todo {
				if _, err := l.src.ReadAt(p.data, p.at); err != nil {
					return fmt.Errorf("read %s at byte %d: %w", l.src.Name(), p.at, err)
				}
				p.packed = p.packed[:0]
				if err := work(p); err != nil {
					return err
				}
				p.done <- struct{}{}
			}
			return nil
		})
	}
	group.Go(func() error {
		for p := range order {
			select {
			case <-p.done:
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := l.emit(p); err != nil {
				return err
			}
			if l.progress != nil {
				l.progress(int64(len(p.data)))
			}
			free <- p
		}
		return nil
	})
	return group.Wait()
}

// splitter is a worker that packs nothing.
func splitter() (func(*piece) error, error) {
	return func(p *piece) error { p.split(); return nil }, nil
}
