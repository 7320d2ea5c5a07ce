//go:build root && linux

package flash

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/images/disk"
	"github.com/kiln-os/kiln/internal/nodeimage"
	"github.com/kiln-os/kiln/internal/nodeimage/nodeimagetest"
)

func command(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// loop makes a disk of a file, until the test ends.
func loop(t testing.TB, file string) string {
	t.Helper()
	dev := command(t, "losetup", "--find", "--show", file)
	t.Cleanup(func() { command(t, "losetup", "--detach", dev) })
	return dev
}

// TestLoopDevice flashes a block device, stamps it for another node, and reads both
// back from the file below it.
func TestLoopDevice(t *testing.T) {
	raw := image(t)
	i := openImage(t, raw)
	card := dirty(t, 8<<30)
	dev := loop(t, card)
	if r := flashTo(t, i, dev); r.Node != "worker-7" {
		t.Errorf("%+v", r)
	}
	compare(t, raw, card)
	start := time.Now()
	d, err := CheckCard(dev)
	if err != nil {
		t.Fatal(err)
	}
	on, err := OpenTarget(d)
	if err != nil {
		t.Fatal(err)
	}
	if holds, err := on.Holds("worker-8", nodeimagetest.Profile, false); err != nil || holds != "the image of node worker-7" {
		t.Errorf("holds %q, %v", holds, err)
	}
	if _, err := on.Stamp(t.Context(), identity("worker-8", ""), false); err != nil {
		t.Fatal(err)
	}
	if err := on.Close(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("the stamp took %s", took)
	}
	f, err := os.Open(card)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, node, err := nodeimage.NodeOf(f); err != nil || node != "worker-8" {
		t.Errorf("node %q, %v", node, err)
	}
}

// TestLoopDeviceInUse: a mounted disk, one whose partition is mounted, and one that
// another program has taken.
func TestLoopDeviceInUse(t *testing.T) {
	i := openImage(t, image(t))
	card := dirty(t, 8<<30)
	dev := loop(t, card)
	command(t, "mkfs.ext4", "-q", dev)
	dir := t.TempDir()
	command(t, "mount", dev, dir)
	_, err := i.Check(dev)
	if err == nil || !strings.Contains(err.Error(), "is mounted at "+dir) {
		t.Errorf("mounted: %v", err)
	}
	if _, err := CheckCard(dev); err == nil || !strings.Contains(err.Error(), "is mounted at "+dir) {
		t.Errorf("mounted, to be stamped: %v", err)
	}
	// If it was mounted between the check and the writing, the kernel refuses.
	if _, err := OpenTarget(Disk{Path: dev}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("mounted later: %v", err)
	}
	command(t, "umount", dir)
	d, err := i.Check(dev)
	if err != nil {
		t.Fatal(err)
	}
	held, err := OpenTarget(d)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenTarget(d); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("held: %v", err)
	}
	if err := held.Close(); err != nil {
		t.Error(err)
	}
	small := loop(t, func() string {
		path := filepath.Join(t.TempDir(), "small")
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 32<<20)); err != nil {
			t.Fatal(err)
		}
		return path
	}())
	if _, err := i.Check(small); err == nil || !strings.Contains(err.Error(), "32 MiB, and the image") {
		t.Errorf("small: %v", err)
	}
}

// TestLoopDeviceFails: the kernel reports errors of the medium, here a file whose
// file system is full, as it does those of a card that was pulled out.
func TestLoopDeviceFails(t *testing.T) {
	i := openImage(t, image(t))
	dir := t.TempDir()
	command(t, "mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", dir)
	t.Cleanup(func() { command(t, "umount", "--lazy", dir) })
	card := filepath.Join(dir, "card")
	if err := errors.Join(os.WriteFile(card, nil, 0o600), os.Truncate(card, 8<<30)); err != nil {
		t.Fatal(err)
	}
	dev := loop(t, card)
	d, err := i.Check(dev)
	if err != nil {
		t.Fatal(err)
	}
	target, err := OpenTarget(d)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	if _, err := i.Write(t.Context(), target, &told{t: t}); err == nil || !strings.Contains(err.Error(), "was it pulled out") {
		t.Errorf("error %v", err)
	}
	f, err := os.Open(card)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := disk.Read(f); !errors.Is(err, disk.ErrNoTable) {
		t.Errorf("partition table: %v", err)
	}
}
