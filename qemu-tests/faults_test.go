//go:build boot

package qemutests

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/qemu"
	"github.com/kiln-os/kiln/internal/sparse"
)

// These tests boot machines that something is wrong with. Each says on its console
// what and why, and goes on where the fault can heal. Most end before Kubernetes
// starts. Those of the network run beside those of the disk: both wait for minutes
// in which they do nothing, and more machines at once would starve each other.

// faultMemoryMiB is enough for preflight.
const faultMemoryMiB = 2048

// TestFaults makes everything go wrong that the documents' table of faults has.
func TestFaults(t *testing.T) {
	t.Run("network", func(t *testing.T) {
		t.Parallel()
		testNetworkFaults(t)
	})
	t.Run("disk", func(t *testing.T) {
		t.Parallel()
		testDiskFaults(t)
	})
}

// faulty is a machine that is meant to fail.
type faulty struct {
	*qemu.Machine
	name string
	// slow stretches what the host's processors bound.
	slow func(time.Duration) time.Duration
}

// startFaulty starts a machine; change says what is wrong with it.
func (n *node) startFaulty(t *testing.T, name, image string, change func(*qemu.Config)) *faulty {
	t.Helper()
	cfg := qemu.Config{
		Arch: n.arch, Accel: n.accel, Name: name, Dir: filepath.Join(n.artifacts, name), Faulty: true,
		Disks: []qemu.Disk{{Image: image, SizeBytes: diskBytes, Fast: true}}, MemoryMiB: faultMemoryMiB, CPUs: guestCPUs,
	}
	if change != nil {
		change(&cfg)
	}
	m, err := qemu.Start(context.WithoutCancel(t.Context()), n.tools, cfg)
	if err != nil {
		t.Fatal(err)
	}
	f := &faulty{Machine: m, name: name, slow: m.Scale}
	t.Cleanup(func() { f.end(t) })
	return f
}

// end switches the machine off, and removes what explains nothing.
func (f *faulty) end(t *testing.T) {
	f.Kill()
	disks, err := filepath.Glob(filepath.Join(f.Dir(), "disk*.qcow2"))
	if err != nil {
		t.Error(err)
	}
	for _, d := range disks {
		if err := os.Remove(d); err != nil {
			t.Error(err)
		}
	}
}

// says waits until the console has a line that matches each pattern, in any order,
// after mark.
func (f *faulty) says(t *testing.T, mark int, within time.Duration, patterns ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(f.Context(), within, fmt.Errorf("%v have passed", within))
	defer cancel()
	for _, p := range patterns {
		line, err := f.Console().WaitForSince(ctx, mark, regexp.MustCompile(p))
		if err != nil {
			t.Fatalf("%s: %v", f.name, err)
		}
		t.Logf("%s, %.0f s: %s", f.name, line.At.Seconds(), line.Text)
	}
}

// copyOf returns a copy of the baked image that a test may change.
func (n *node) copyOf(t *testing.T, name string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), name+".img")
	src, err := os.Open(n.image)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_RDWR|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	if _, err := sparse.Copy(t.Context(), dst, src, nil); err != nil {
		t.Fatal(err)
	}
	return to
}

// flip changes one bit of the byte at offset.
func flip(t *testing.T, image string, offset int64) {
	t.Helper()
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], offset); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], offset); err != nil {
		t.Fatal(err)
	}
}
