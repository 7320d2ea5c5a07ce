//go:build boot && long

package qemutests

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
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

// TestRaspberryPi boots cards in QEMU's Raspberry Pi 3 and 2: U-Boot, which QEMU gets as
// the board's firmware would have read it, systemd-boot and the kernel from the card's
// boot partition, the state partition, and the first boot until it looks for its cluster
// over a network card on USB. There it waits, and what is different on a Raspberry Pi is
// checked over that network.
//
// U-Boot of 32 bits, in the Raspberry Pi 2, reads the card with the board's other slot
// controller (see otherSlot).
func TestRaspberryPi(t *testing.T) {
	for _, tc := range []struct {
		machine, arch, profile string
		uboot, dtb             string
		serial                 int // which port is on pins 8 and 10
		model                  string
		light                  check
	}{
		// QEMU's firmware knows nothing of the chip that a 3's light is connected to.
		{"raspi3b", "arm64", "rpi-arm64", "u-boot.bin", "bcm2837-rpi-3-b.dtb", 1, "Raspberry Pi 3 Model B", check{
			"the light is not there", "journalctl -k -o cat | grep leds-gpio", `^leds-gpio leds: probe with driver leds-gpio failed with error -5$`}},
		{"raspi2b", "arm", "rpi-arm", "u-boot-2.bin", "bcm2836-rpi-2-b.dtb", 0, "Raspberry Pi 2 Model B", check{
			"the light says that it waits", "cd /sys/class/leds/ACT && grep -ho '\\[.*\\]' trigger && cat delay_on delay_off", `^\[timer\]\s100\s1900$`}},
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
			leaveUSB(t, board.Kernel)
			if tc.arch == "arm" {
				asUImage(t, board.Kernel)
				otherSlot(t, board.DeviceTree)
			}
			// The smallest card that the profile is for. QEMU writes all of what is erased, as
			// systemd-repart has it done to the state partition: minutes, and 4 GB.
			n.start(t, qemu.Config{Board: board, Disks: []qemu.Disk{{Image: n.image, SizeBytes: 8 << 30, Fast: true}}})
			ctx := n.within(t, 20*time.Minute)
			for _, what := range []string{
				`devicetree: board`, `Booting: mmc 0|Booting bootflow .*mmc`, `EFI stub: Booting Linux`, `EFI stub: Exiting boot services`,
				`Machine model: ` + tc.model, `systemd\[1\]: Running in initrd`, `systemd\[1\]: Hostname set to <` + nodeName,
				// On a Pi 2 the journal is on the screen alone; the login prompt's text is on both.
				`state +first boot, phase \d of \d \(discovery\)`,
			} {
				line, err := n.machine.Console().WaitFor(ctx, regexp.MustCompile(what))
				if err != nil {
					t.Fatalf("%v\n%s", err, n.machine.Console().Tail(40))
				}
				t.Logf("%.0f s: %s", line.At.Seconds(), line.Text)
			}
			if err := n.ssh.Wait(ctx); err != nil {
				t.Fatal(err)
			}
			checkNoFailedUnits(t, n)
			checkPi(t, n, tc.light)
		})
	}
}

// check is a command on the node, and an expression for what it has to print.
type check struct{ what, command, want string }

// checkPi checks what docs/raspberry-pi.md says is different on a Raspberry Pi, on one
// that waits for its cluster.
func checkPi(t *testing.T, n *node, light check) {
	t.Helper()
	for _, c := range []check{
		{"the state partition is on the card", "findmnt -n -o SOURCE /", `^/dev/mmcblk\dp\d+$`},
		{"swap space is in memory", "cat /proc/swaps", `(?m)^/dev/zram0 +partition`},
		{"it is compressed with lz4", "cat /sys/block/zram0/comp_algorithm", `\[lz4\]`},
		{"nothing is read with what is swapped in", "sysctl -n vm.swappiness vm.page-cluster", `^180\s0$`},
		{"the journal is in memory alone", "journalctl --header | grep '^File path'", `^(File path: /run/log/journal/\S+\s*)+$`},
		light,
		{"the light can blink", "lsmod", `(?m)^ledtrig_timer `},
	} {
		if got := n.sh(t, c.command); !regexp.MustCompile(c.want).MatchString(got) {
			t.Errorf("%s: %s says %q, want %s", c.what, c.command, got, c.want)
		}
	}
	// What is erased is not in this: kernel's Documentation/block/stat.rst.
	const written = "awk '{ print $7 }' /sys/block/mmcblk?/stat" // sectors of 512 bytes
	mb := func() float64 {
		sectors, err := strconv.ParseFloat(n.sh(t, written), 64)
		if err != nil {
			t.Fatal(err)
		}
		return sectors * 512 / 1e6
	}
	first := mb()
	time.Sleep(2 * time.Minute)
	then := mb() - first
	t.Logf("written to the card: %.1f MB until it waits for its cluster, %.1f MB in the next two minutes", first, then)
	// Most of it is the file system's journal and its inode tables, which Linux writes when
	// it has time. Twice of what was measured means that something else writes.
	if first+then > 320 {
		t.Errorf("that is more than 320 MB")
	}
	// A half of the memory, and the generator counts in MiB.
	size, err := strconv.Atoi(n.sh(t, "cat /sys/block/zram0/disksize"))
	if err != nil {
		t.Fatal(err)
	}
	var kib int
	if _, err := fmt.Sscanf(n.sh(t, "grep MemTotal /proc/meminfo"), "MemTotal: %d kB", &kib); err != nil {
		t.Fatal(err)
	}
	if half := kib << 10 / 2; size < half-1<<20 || size > half+1<<20 {
		t.Errorf("swap space of %d bytes, want half of the memory, %d", size, half)
	}
}

// leaveUSB takes the command out of U-Boot's environment by which it looks for devices on
// USB, which it does not boot from here. QEMU's controller of a Raspberry Pi knows no reset:
// what U-Boot has found, Linux does not see being connected.
func leaveUSB(t *testing.T, name string) {
	t.Helper()
	program, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	const variable = "\x00preboot="
	at := bytes.Index(program, []byte(variable))
	if at < 0 || bytes.Count(program, []byte(variable)) != 1 {
		t.Fatalf("%s: %d variables preboot, want one", name, bytes.Count(program, []byte(variable)))
	}
	for at += len(variable); program[at] != 0; at++ {
		program[at] = ' '
	}
	writeFile(t, name, program)
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
//
// Linux has the first: U-Boot gives it the device tree that it finds on the card.
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
