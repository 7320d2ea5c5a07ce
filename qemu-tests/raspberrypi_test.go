//go:build boot && long

package qemutests

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"os"
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
    profile: {{.Profile}}
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
//
// The card of 32 bits, in QEMU's Raspberry Pi 2, is in the board's other slot controller
// (see otherSlot). It is followed until the kernel takes over from the firmware: what the
// kernel does then, without a word on the serial port, is not known.
func TestRaspberryPi(t *testing.T) {
	for _, tc := range []struct {
		machine, arch, profile string
		uboot, dtb             string
		serial                 int // which port is on pins 8 and 10
		says                   []string
	}{
		{"raspi3b", "arm64", "rpi-arm64", "u-boot.bin", "bcm2837-rpi-3-b.dtb", 1, []string{
			`U-Boot 20`, `Booting: mmc 0|Booting bootflow .*mmc`, `EFI stub: Booting Linux`, `Machine model: Raspberry Pi 3 Model B`,
			`firstboot\[\d+\]: .*discovery`,
		}},
		{"raspi2b", "arm", "rpi-arm", "u-boot-2.bin", "bcm2836-rpi-2-b.dtb", 0, []string{
			`U-Boot 20`, `RPI 2 Model B`, `devicetree: board`, `Booting: mmc 0|Booting bootflow .*mmc`, `EFI stub: Booting Linux`,
			`EFI stub: Loaded initrd`, `EFI stub: Exiting boot services`,
		}},
	} {
		t.Run(tc.machine, func(t *testing.T) {
			n := bakeFile(t, tc.arch, piFile, words(tc.profile, ""))
			dir := t.TempDir()
			board := &qemu.Board{Machine: tc.machine, Kernel: filepath.Join(dir, "u-boot"), DeviceTree: filepath.Join(dir, "pi.dtb"), Serial: tc.serial}
			// As on the card: mtools reads the boot partition, which begins at 1 MiB.
			for from, to := range map[string]string{tc.uboot: board.Kernel, tc.dtb: board.DeviceTree} {
				if out, err := testtools.Command(t, "mcopy", "-i", n.image+"@@1M", "::"+from, to).CombinedOutput(); err != nil {
					t.Fatalf("mcopy: %v\n%s", err, out)
				}
			}
			if tc.arch == "arm" {
				asUImage(t, board.Kernel)
				otherSlot(t, board.DeviceTree)
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
			for _, what := range tc.says {
				line, err := m.Console().WaitFor(ctx, regexp.MustCompile(what))
				if err != nil {
					t.Fatalf("%v\n%s", err, m.Console().Tail(40))
				}
				t.Logf("%.0f s: %s", line.At.Seconds(), line.Text)
			}
		})
	}
}

// asUImage puts U-Boot's header for a kernel before a program, so that QEMU has it at
// 32 KiB, where the board's firmware puts it and a U-Boot of 32 bits has to be. A
// file without a header goes elsewhere.
func asUImage(t *testing.T, name string) {
	t.Helper()
	program, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	const place = 0x8000
	be := binary.BigEndian
	h := make([]byte, 64)
	be.PutUint32(h, 0x27051956)
	be.PutUint32(h[12:], uint32(len(program)))
	be.PutUint32(h[16:], place)
	be.PutUint32(h[20:], place)
	be.PutUint32(h[24:], crc32.ChecksumIEEE(program))
	copy(h[28:], []byte{5, 2, 2, 0}) // Linux, 32-bit Arm, a kernel, not compressed
	be.PutUint32(h[4:], crc32.ChecksumIEEE(h))
	writeFile(t, name, append(h, program...))
}

// otherSlot moves the card of a Raspberry Pi 2's device tree from one of the board's
// controllers to the other. With the first, a processor of 32 bits halts in a division
// of U-Boot's: QEMU's firmware does not know how to set that controller's clock (tag
// 0x38042), whose rate of zero is the likely divisor.
func otherSlot(t *testing.T, name string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	// The words of a device tree: a node begins (1) with its name, ends (2), has a property
	// (3) with length, name and value; 4 is nothing, 9 the end.
	be := binary.BigEndian
	at, names, node, changed := int(be.Uint32(b[8:])), b[be.Uint32(b[12:]):], "", 0
	text := func(b []byte) string { return string(b[:bytes.IndexByte(b, 0)]) }
	for word := be.Uint32(b[at:]); word != 9; word = be.Uint32(b[at:]) {
		at += 4
		switch word {
		case 1:
			node = text(b[at:])
			at = (at + len(node) + 1 + 3) &^ 3
		case 3:
			length, value := int(be.Uint32(b[at:])), at+8
			if text(names[be.Uint32(b[at+4:]):]) == "status" {
				switch {
				case node == "mmc@7e202000" && text(b[value:]) == "okay":
					copy(b[value:], "fail") // it is not to be used
					changed++
				case node == "mmc@7e300000" && text(b[value:]) == "disabled":
					be.PutUint32(b[at:], uint32(len("okay")+1))
					copy(b[value:], "okay\x00\x00\x00\x00\x00\x00\x00\x04") // and one word of nothing
					changed++
				}
			}
			at = (value + length + 3) &^ 3
		}
	}
	if changed != 2 {
		t.Fatalf("%s: %d of the two controllers of the card slot were found", name, changed)
	}
	writeFile(t, name, b)
}
