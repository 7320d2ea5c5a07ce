//go:build boot && long

package qemutests

import (
	"context"
	"net/netip"
	"path/filepath"
	"regexp"
	"testing"
	"text/template"
	"time"

	"github.com/kiln-os/kiln/internal/qemu"
	"github.com/kiln-os/kiln/internal/testtools"
)

// piFile has the node under test as a worker: a control plane does not fit into the
// memory of a Raspberry Pi 3. There is none to join; nobody answers its discovery.
var piFile = template.Must(template.New("cluster.yaml").Parse(`apiVersion: kiln-os.dev/v1alpha1
kind: Cluster
name: story
nodes:
  - name: elsewhere
    role: control-plane
    profile: rpi-arm64
    address: 192.168.76.9/24
    gateway: {{.Gateway}}
  - name: {{.Name}}
    role: worker
    profile: {{.Profile}}
    address: {{.Address}}
    gateway: {{.Gateway}}
    formats: [raw]
    butane:
      # To QEMU, setting the watchdog's time is resetting the board.
      - variant: fcos
        version: 1.4.0
        storage:
          files:
            - path: /etc/systemd/system.conf.d/50-emulator.conf
              contents: {inline: "[Manager]\nRuntimeWatchdogSec=0\nRebootWatchdogSec=0\n"}
ssh:
  authorizedKeys:
    - {{.Key}}
`))

// TestRaspberryPi boots a card in QEMU's Raspberry Pi 3: U-Boot, which QEMU gets as the
// board's firmware would have read it, systemd-boot and the kernel from the card's boot
// partition, the state partition, and the first boot until it looks for its cluster
// over a network card on USB.
func TestRaspberryPi(t *testing.T) {
	n := bakeFile(t, "arm64", piFile, words("rpi-arm64", ""))
	dir := t.TempDir()
	board := &qemu.Board{Machine: "raspi3b", Kernel: filepath.Join(dir, "u-boot.bin"), DeviceTree: filepath.Join(dir, "pi.dtb"), Serial: 1}
	// As on the card: mtools reads the boot partition, which begins at 1 MiB.
	for from, to := range map[string]string{"u-boot.bin": board.Kernel, "bcm2837-rpi-3-b.dtb": board.DeviceTree} {
		if out, err := testtools.Command(t, "mcopy", "-i", n.image+"@@1M", "::"+from, to).CombinedOutput(); err != nil {
			t.Fatalf("mcopy: %v\n%s", err, out)
		}
	}
	net := qemu.NetFor(netip.MustParsePrefix(address), netip.MustParseAddr(gateway), nil, qemu.Forward{GuestPort: 22})
	net.Isolated = true
	m, err := qemu.Start(context.WithoutCancel(t.Context()), n.tools, qemu.Config{
		Arch: n.arch, Name: nodeName, Dir: filepath.Join(n.artifacts, nodeName), Board: board,
		Disks: []qemu.Disk{{Image: n.image, SizeBytes: 8 << 30, Fast: true}}, Net: net,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Kill)
	n.machine = m
	ctx := n.within(t, 20*time.Minute)
	for _, what := range []string{
		`U-Boot 20`, `Booting bootflow .*mmc`, `EFI stub: Booting Linux`, `Machine model: Raspberry Pi 3 Model B`,
		`firstboot\[\d+\]: .*discovery`,
	} {
		line, err := m.Console().WaitFor(ctx, regexp.MustCompile(what))
		if err != nil {
			t.Fatalf("%v\n%s", err, m.Console().Tail(40))
		}
		t.Logf("%.0f s: %s", line.At.Seconds(), line.Text)
	}
}
