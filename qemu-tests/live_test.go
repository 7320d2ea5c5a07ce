//go:build boot && long

package qemutests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/qemu"
	"github.com/kiln-os/kiln/internal/testtools"
)

// TestPXE boots a control plane in a machine without a disk from the kernel, the
// initramfs and the command line that a server of network boots hands out, until its
// first boot has ended.
func TestPXE(t *testing.T) {
	n := bake(t)
	dir := t.TempDir()
	archive := filepath.Join(dir, nodeName+".pxe.tar")
	run(t, imagegenPath(t), "convert", n.image, archive)
	if out, err := testtools.Command(t, "tar", "-xf", archive, "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	script, err := os.ReadFile(filepath.Join(dir, nodeName+".ipxe"))
	if err != nil {
		t.Fatal(err)
	}
	var kernel, arguments, initrd string
	for _, line := range strings.Split(string(script), "\n") {
		switch word, rest, _ := strings.Cut(line, " "); word {
		case "kernel":
			kernel, arguments, _ = strings.Cut(rest, " ")
		case "initrd":
			initrd = rest
		}
	}
	n.start(t, qemu.Config{ExtraArgs: []string{
		"-kernel", filepath.Join(dir, kernel), "-initrd", filepath.Join(dir, initrd), "-append", arguments,
	}})
	n.checkLive(t)
}

// TestISO boots the same from a CD, and up to the first phase of the first boot from a USB
// stick.
func TestISO(t *testing.T) {
	n := bake(t)
	iso := filepath.Join(t.TempDir(), nodeName+".iso")
	run(t, imagegenPath(t), "convert", n.image, iso)
	t.Run("USB", func(t *testing.T) {
		m := n.startFaulty(t, "usb", "", func(c *qemu.Config) {
			c.Disks, c.Net, c.MemoryMiB = nil, isolatedNet(), guestMemoryMiB
			c.ExtraArgs = []string{
				"-drive", "if=none,id=stick,format=raw,readonly=on,file=" + iso,
				"-device", "qemu-xhci", "-device", "usb-storage,drive=stick,bootindex=1",
			}
		})
		m.says(t, 0, m.slow(5*time.Minute), `preflight: checking the machine`)
	})
	t.Run("CD", func(t *testing.T) {
		n.start(t, qemu.Config{ExtraArgs: []string{
			"-drive", "if=none,id=cd,media=cdrom,format=raw,readonly=on,file=" + iso, "-device", "ide-cd,drive=cd,bootindex=1",
		}})
		n.checkLive(t)
	})
}

// checkLive waits for a node without a disk, and checks that it is one.
func (n *node) checkLive(t *testing.T) {
	t.Helper()
	n.waitFirstbootEnd(t)
	if got := n.sh(t, "findmnt -no FSTYPE /; findmnt -no FSTYPE /usr; lsblk -ndo TYPE,NAME | grep -c ^disk || true"); got != "tmpfs\nsquashfs\n0" {
		t.Errorf("file systems of / and /usr, and number of disks: %q", got)
	}
	if got := n.sh(t, "systemctl --failed --no-legend; dmsetup status usr"); !strings.HasSuffix(got, " V") || strings.Contains(got, "\n") {
		t.Errorf("failed units, and whether /usr is as built: %q", got)
	}
	t.Log(n.sh(t, "free -m; df -h /; kubectl --kubeconfig /etc/kubernetes/admin.conf get nodes,pods -A"))
}
