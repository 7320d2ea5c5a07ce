//go:build bench && linux

package flash

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// least is how fast an image must be written, as a part of dd's speed.
const least = 0.9

// TestSpeed writes an image to a disk, until all of it is there, beside dd with blocks
// of 4 MiB and the same bytes, and compares the best of some runs. KILN_BENCH_IMAGE
// names a Kiln image, such as a base image in the cache; KILN_BENCH_DISK a disk to
// write to, a file by default.
func TestSpeed(t *testing.T) {
	path, card := os.Getenv("KILN_BENCH_IMAGE"), os.Getenv("KILN_BENCH_DISK")
	if path == "" {
		path = image(t)
	}
	if card == "" {
		card = dirty(t, 16<<30)
	}
	i := openImage(t, path)
	// The blocks that are written, behind each other: what dd is given.
	used := filepath.Join(t.TempDir(), "used")
	f, err := os.Create(used)
	if err != nil {
		t.Fatal(err)
	}
	err = i.meaningful(func() ([]byte, error) { return make([]byte, block), nil }, func(at int64, data []byte) error {
		if data == nil {
			data = zeros[:min(block, i.Size-at)]
		}
		_, err := f.Write(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := i.Check(card)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs, bytes := time.Hour, time.Hour, int64(0)
	for range 5 {
		start := time.Now()
		if out, err := exec.Command("dd", "if="+used, "of="+card, "bs=4M", "conv=notrunc,fsync").CombinedOutput(); err != nil {
			t.Fatalf("dd: %v\n%s", err, out)
		}
		theirs = min(theirs, time.Since(start))
		target, err := OpenTarget(d)
		if err != nil {
			t.Fatal(err)
		}
		r, err := i.Write(t.Context(), target, &told{t: t})
		if err != nil {
			t.Fatal(err)
		}
		ours, bytes = min(ours, time.Duration(r.Seconds*float64(time.Second))), r.Written
		if err := target.Close(); err != nil {
			t.Fatal(err)
		}
	}
	ratio := theirs.Seconds() / ours.Seconds()
	t.Logf("%d MiB: %.2f s, dd %.2f s: %.2f times its speed", bytes>>20, ours.Seconds(), theirs.Seconds(), ratio)
	if ratio < least {
		t.Errorf("%.2f times the speed of dd, want %.1f", ratio, least)
	}
}
