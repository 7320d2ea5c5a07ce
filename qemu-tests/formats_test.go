//go:build boot && long

package qemutests

import (
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/qemu"
	"github.com/kiln-os/kiln/internal/testtools"
)

// TestFormats boots an image in each format that QEMU reads, up to the first phase of
// the first boot. The others are one of these in an archive, or packed.
func TestFormats(t *testing.T) {
	n := bake(t)
	imagegen := imagegenPath(t)
	for _, f := range []struct{ name, ext, driver string }{
		{"raw", ".img", "raw"},
		{"qcow2", ".qcow2", "qcow2"},
		{"qcow2-compressed", ".qcow2", "qcow2"},
		{"vhd", ".vhd", "vpc"},
		{"vmdk", ".vmdk", "vmdk"},
	} {
		t.Run(f.name, func(t *testing.T) {
			image := n.image
			if f.name != "raw" {
				image = filepath.Join(t.TempDir(), nodeName+f.ext)
				run(t, imagegen, "convert", n.image, image, "--format", f.name)
			}
			// QEMU is told the format: what it would guess of a VHD is a raw disk.
			disk := filepath.Join(t.TempDir(), "disk.qcow2")
			create := testtools.Command(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", image, "-F", f.driver, disk, strconv.Itoa(diskBytes))
			if out, err := create.CombinedOutput(); err != nil {
				t.Fatalf("qemu-img: %v\n%s", err, out)
			}
			m := n.startFaulty(t, f.name, disk, func(c *qemu.Config) { c.Net = isolatedNet() })
			m.says(t, 0, m.slow(3*time.Minute), `preflight: checking the machine`)
		})
	}
}
