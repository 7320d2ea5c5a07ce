//go:build bench

package format

import (
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/testtools"
)

// least is how fast a conversion must be, as a part of qemu-img's speed.
const least = 0.8

// TestSpeed converts an image beside qemu-img convert, both until the file is on the
// disk, and compares the best of some runs. KILN_BENCH_IMAGE names a raw image;
// without it there is one with 256 MiB of data, half of it already compressed.
func TestSpeed(t *testing.T) {
	src := os.Getenv("KILN_BENCH_IMAGE")
	if src == "" {
		src = benchImage(t)
	}
	for name, args := range map[string][]string{
		"raw":              {"-O", "raw"},
		"qcow2":            {"-O", "qcow2"},
		"qcow2-compressed": {"-c", "-O", "qcow2"},
		"vhd":              {"-O", "vpc", "-o", "subformat=fixed,force_size=on"},
		"vmdk":             {"-O", "vmdk", "-o", "subformat=streamOptimized"},
	} {
		dir := t.TempDir()
		ours, theirs := time.Hour, time.Hour
		for range 5 {
			theirs = min(theirs, timed(t, func() error {
				dst := filepath.Join(dir, "qemu")
				cmd := testtools.Command(t, "qemu-img", append(append([]string{"convert", "-f", "raw"}, args...), src, dst)...)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("qemu-img: %v\n%s", err, out)
				}
				f, err := os.Open(dst)
				if err != nil {
					return err
				}
				return errors.Join(f.Sync(), f.Close(), os.Remove(dst))
			}))
			ours = min(ours, timed(t, func() error {
				dst := filepath.Join(dir, "kiln")
				return errors.Join(get(t, name).Convert(t.Context(), dst, src, Options{Name: "node"}), os.Remove(dst))
			}))
		}
		ratio := theirs.Seconds() / ours.Seconds()
		t.Logf("%-17s %6.2f s, qemu-img %6.2f s: %.2f times its speed", name, ours.Seconds(), theirs.Seconds(), ratio)
		if ratio < least {
			t.Errorf("%s: %.2f times the speed of qemu-img, want %.1f", name, ratio, least)
		}
	}
	// There is no qemu-img for these.
	for _, name := range []string{"raw.zst", "raw.xz", "ova", "gce"} {
		took := timed(t, func() error {
			return get(t, name).Convert(t.Context(), filepath.Join(t.TempDir(), "kiln"), src, Options{Name: "node"})
		})
		t.Logf("%-17s %6.2f s", name, took.Seconds())
	}
}

func timed(t *testing.T, f func() error) time.Duration {
	t.Helper()
	start := time.Now()
	if err := f(); err != nil {
		t.Fatal(err)
	}
	return time.Since(start)
}

func benchImage(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	random := rand.NewChaCha8(sha256.Sum256([]byte("bench")))
	b := make([]byte, mib)
	err = f.Truncate(2 * gib)
	for i := range int64(256) {
		_, _ = random.Read(b)
		if i%2 == 1 { // about three bits of a byte are random
			for k := range b {
				b[k] = "abcdefgh"[b[k]&7]
			}
		}
		_, e := f.WriteAt(b, i*3*mib+i*4096)
		err = errors.Join(err, e)
	}
	if err != nil {
		t.Fatal(err)
	}
	return name
}
