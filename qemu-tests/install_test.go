//go:build boot && long

package qemutests

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/qemu"
)

// emptyDisk makes a disk that nobody has written to.
func emptyDisk(t *testing.T, size int64) qemu.Disk {
	t.Helper()
	path := filepath.Join(t.TempDir(), "empty.img")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size)); err != nil {
		t.Fatal(err)
	}
	return qemu.Disk{Image: path, Fast: true}
}

// cdFirst are arguments of a machine that boots from a CD before its disks.
func cdFirst(iso string) []string {
	return []string{"-drive", "if=none,id=cd,media=cdrom,format=raw,readonly=on,file=" + iso, "-device", "ide-cd,drive=cd,bootindex=0"}
}

// chooseInstall types what a person does who wants the second entry of the boot menu,
// until the program says that it was heard.
func chooseInstall(t *testing.T, m *qemu.Machine) {
	t.Helper()
	ctx, cancel := context.WithTimeout(m.Context(), m.Scale(2*time.Minute))
	defer cancel()
	for {
		if _, ok := m.Console().First(0, regexp.MustCompile(`EFI stub:|Linux version|Kiln: `)); ok {
			return
		}
		if err := m.Send(ctx, "2\r"); err != nil { // the number selects, the return key starts
			t.Fatal(err)
		}
		select {
		case <-ctx.Done():
			t.Fatalf("no kernel starts: %v\n%s", context.Cause(ctx), m.Console().Tail(40))
		case <-time.After(time.Second):
		}
	}
}

// TestInstall installs a control plane from a CD on the only disk that is large enough,
// and boots the disk alone until the first boot has ended. Where two disks would do,
// none is written to.
func TestInstall(t *testing.T) {
	n := bake(t)
	iso := filepath.Join(t.TempDir(), nodeName+".iso")
	run(t, imagegenPath(t), "convert", n.image, iso)
	t.Run("two disks", func(t *testing.T) {
		m := n.startFaulty(t, "two-disks", "", func(c *qemu.Config) {
			c.Disks, c.MemoryMiB, c.ExtraArgs = []qemu.Disk{emptyDisk(t, diskBytes), emptyDisk(t, diskBytes)}, guestMemoryMiB, cdFirst(iso)
		})
		chooseInstall(t, m.Machine)
		m.says(t, 0, m.slow(5*time.Minute), `this node was not installed: 2 disks of this machine are empty`, `/dev/vda .*empty and large enough`, `/dev/vdb .*empty and large enough`, `Ctrl\+Alt\+Del`)
	})
	t.Run("one disk", func(t *testing.T) {
		disks := []qemu.Disk{emptyDisk(t, diskBytes), emptyDisk(t, 1<<30)}
		n.start(t, qemu.Config{Disks: disks, ExtraArgs: cdFirst(iso)})
		chooseInstall(t, n.machine)
		ctx := n.within(t, 10*time.Minute)
		line, err := n.machine.Console().WaitFor(ctx, regexp.MustCompile(`Kiln: node `+nodeName+` is installed on /dev/vda`))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%.0f s: %s", line.At.Seconds(), line.Text)
		if err := n.machine.Wait(ctx); err != nil {
			t.Fatalf("it does not switch itself off: %v", err)
		}
		n.start(t, qemu.Config{Disks: disks, Reuse: true})
		n.waitFirstbootEnd(t)
		if got := n.sh(t, "findmnt -no FSTYPE /; lsblk -no PKNAME $(findmnt -no SOURCE /)"); got != "ext4\nvda" {
			t.Errorf("the root file system is %q", got)
		}
		if got := n.sh(t, "systemctl --failed --no-legend; dmsetup status usr"); !strings.HasSuffix(got, " V") || strings.Contains(got, "\n") {
			t.Errorf("failed units, and whether /usr is as built: %q", got)
		}
		t.Log(n.sh(t, "kubectl --kubeconfig /etc/kubernetes/admin.conf wait --for=condition=Ready node --all --timeout=300s; kubectl --kubeconfig /etc/kubernetes/admin.conf get nodes"))
	})
}
