package phase

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
)

func TestParallel(t *testing.T) {
	var running, most, done atomic.Int64
	parts := make([]func() error, 64)
	for i := range parts {
		parts[i] = func() error {
			n := running.Add(1)
			for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
			}
			runtime.Gosched()
			running.Add(-1)
			done.Add(1)
			return nil
		}
	}
	if err := Parallel(context.Background(), parts); err != nil {
		t.Fatal(err)
	}
	if done.Load() != 64 || most.Load() > int64(runtime.NumCPU()) {
		t.Errorf("%d parts done, %d at once", done.Load(), most.Load())
	}
}

func TestParallelStops(t *testing.T) {
	broken := errors.New("broken")
	var after atomic.Int64
	parts := []func() error{func() error { return broken }}
	for range 100 {
		parts = append(parts, func() error { after.Add(1); return nil })
	}
	if err := Parallel(context.Background(), parts); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	after.Store(0)
	if err := Parallel(ctx, parts[1:]); !errors.Is(err, context.Canceled) || after.Load() != 0 {
		t.Errorf("after the end: %v, %d parts ran", err, after.Load())
	}
}
