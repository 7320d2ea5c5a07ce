//go:build boot

package qemu_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/qemu"
	"github.com/kiln-os/kiln/internal/qemu/qemutest"
)

// These tests run real machines that get no further than their firmware.

func amd64(t testing.TB) (arch.Arch, *qemu.Tools) { return qemutest.Find(t, "amd64") }

// startTest starts a small emulated machine that is killed with the test.
func startTest(t *testing.T, change func(*qemu.Config)) *qemu.Machine {
	t.Helper()
	a, tools := amd64(t)
	cfg := qemu.Config{Arch: a, Name: "test", Dir: filepath.Join(t.TempDir(), "m"), MemoryMiB: 256, CPUs: 1}
	if change != nil {
		change(&cfg)
	}
	m, err := qemu.Start(t.Context(), tools, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Kill)
	return m
}

func TestProbe(t *testing.T) {
	a, tools := amd64(t)
	t.Logf("QEMU %s, %s", tools.Version, tools.Origin)
	// The probe's criterion holds for a machine that surely works...
	if err := qemu.Probe(t.Context(), tools, a, qemu.Accel{}, t.TempDir(), time.Minute); err != nil {
		t.Errorf("probe under emulation: %v", err)
	}
	// ...and its verdict on KVM comes in time, with a reason.
	start := time.Now()
	accel := qemu.ProbeAccel(t.Context(), tools, a)
	t.Log(accel)
	if d := time.Since(start); d > qemu.ProbeTime+20*time.Second {
		t.Errorf("the probe took %v", d)
	}
	if accel.Reason == "" {
		t.Error("no reason")
	}
	if _, err := os.Stat("/dev/kvm"); err != nil && accel.KVM {
		t.Errorf("KVM without its device: %v", accel)
	}
	foreign, err := arch.Get(map[bool]string{true: "arm64", false: "amd64"}[runtime.GOARCH == "amd64"])
	if err != nil {
		t.Fatal(err)
	}
	if got := qemu.ProbeAccel(t.Context(), tools, foreign); got.KVM {
		t.Errorf("KVM for a foreign architecture: %v", got)
	}
}

// TestNothingToBoot: an empty disk is recognised within seconds, as what it is.
func TestNothingToBoot(t *testing.T) {
	for _, disk := range []bool{false, true} {
		t.Run(fmt.Sprintf("disk=%v", disk), func(t *testing.T) {
			m := startTest(t, func(c *qemu.Config) {
				if disk {
					img := filepath.Join(t.TempDir(), "empty.img")
					if err := os.WriteFile(img, make([]byte, 1<<20), 0o600); err != nil {
						t.Fatal(err)
					}
					c.Disks = []qemu.Disk{{Image: img, SizeBytes: 64 << 20}}
				}
			})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := m.Console().WaitFor(ctx, regexp.MustCompile(`login:`))
			var ce *qemu.ConsoleError
			if !errors.As(err, &ce) || !strings.HasPrefix(ce.Kind, "firmware ") {
				t.Fatalf("got %v", err)
			}
			t.Log(ce.Kind, "-", ce.Line)
			<-m.Context().Done()
			if !errors.As(context.Cause(m.Context()), &ce) {
				t.Errorf("the machine's context ended with %v", context.Cause(m.Context()))
			}
			log, err := os.ReadFile(filepath.Join(m.Dir(), "console.log"))
			if err != nil || !strings.Contains(string(log), "BdsDxe") {
				t.Errorf("console log: %v %q", err, log)
			}
		})
	}
}

func TestForwards(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	m := startTest(t, func(c *qemu.Config) {
		c.Net = &qemu.Net{Isolated: true, Forwards: []qemu.Forward{{GuestPort: 22}, {GuestPort: 6443}}}
	})
	seen := map[int]bool{}
	for _, guest := range []int{22, 6443} {
		p, err := m.HostPort(guest)
		if err != nil || seen[p] {
			t.Fatalf("port for %d: %d, %v", guest, p, err)
		}
		seen[p] = true
		c, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(p))
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
	if _, err := m.HostPort(80); err == nil {
		t.Error("a port for 80, which is not forwarded")
	}
	m.Kill()
	for p := range seen {
		if c, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(p)); err == nil {
			_ = c.Close()
			t.Errorf("port %d is still open after Kill", p)
		}
	}

	// A port that is in use is an error that says so, with nothing left running.
	a, tools := amd64(t)
	_, err = qemu.Start(t.Context(), tools, qemu.Config{
		Arch: a, Name: "clash", Dir: t.TempDir(), MemoryMiB: 256,
		Net: &qemu.Net{Forwards: []qemu.Forward{{HostPort: taken.Addr().(*net.TCPAddr).Port, GuestPort: 22}}},
	})
	if !errors.Is(err, qemu.ErrExited) || !strings.Contains(err.Error(), "host forwarding") {
		t.Errorf("got %v", err)
	}
}

// TestPower: the firmware's shell switches the machine off and on, as a guest would.
func TestPower(t *testing.T) {
	m := startTest(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	prompt := func() {
		t.Helper()
		for { // the first key skips the countdown before the prompt
			if err := m.Send(ctx, "\r"); err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(strings.TrimSpace(m.Console().Tail(1)), "Shell>") {
				return
			}
			select {
			case <-ctx.Done():
				t.Fatalf("no prompt:\n%s", m.Console().Tail(20))
			case <-time.After(300 * time.Millisecond):
			}
		}
	}
	prompt()
	before := m.Resets()
	if err := m.Reset(ctx); err != nil {
		t.Fatal(err)
	}
	mark := m.Console().Mark()
	for m.Resets() == before {
		select {
		case <-ctx.Done():
			t.Fatal("no reset was seen")
		case <-time.After(50 * time.Millisecond):
		}
	}
	for {
		if _, ok := m.Console().First(mark, regexp.MustCompile(`UEFI Interactive Shell`)); ok {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the machine did not come back:\n%s", m.Console().Tail(20))
		case <-time.After(100 * time.Millisecond):
		}
	}
	prompt()
	if err := m.Send(ctx, "reset -s\r"); err != nil {
		t.Fatal(err)
	}
	if err := m.Wait(ctx); err != nil {
		t.Errorf("after switching off: %v", err)
	}
	if err := context.Cause(m.Context()); err == nil {
		t.Error("the machine's context has not ended")
	}
}

// TestStop: firmware ignores the power button, so Stop has to kill, and says so.
func TestStop(t *testing.T) {
	m := startTest(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if err := m.Stop(ctx); err == nil || !strings.Contains(err.Error(), "was killed") {
		t.Errorf("got %v", err)
	}
	if err := syscall.Kill(m.PID(), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d is still there: %v", m.PID(), err)
	}
	m.Kill() // again: harmless
	if err := m.Wait(t.Context()); !errors.Is(err, qemu.ErrExited) {
		t.Errorf("Wait: %v", err)
	}
}

// TestReuse: what was written before a power cut is there after it.
func TestReuse(t *testing.T) {
	img := filepath.Join(t.TempDir(), "base.img")
	if err := os.WriteFile(img, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "a,b") // a comma must survive QEMU's option parser
	with := func(reuse bool) func(*qemu.Config) {
		return func(c *qemu.Config) {
			c.Dir, c.Reuse, c.Disks = dir, reuse, []qemu.Disk{{Image: img, SizeBytes: 8 << 20}}
		}
	}
	startTest(t, with(false)).Kill()
	before, err := os.Stat(filepath.Join(dir, qemu.OverlayName(0)))
	if err != nil {
		t.Fatal(err)
	}
	startTest(t, with(true)).Kill()
	after, err := os.Stat(filepath.Join(dir, qemu.OverlayName(0)))
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("the overlay was replaced: %v", err)
	}
	// Another name keeps the old file's inode from being given to the new one.
	if err := os.Link(filepath.Join(dir, qemu.OverlayName(0)), filepath.Join(dir, "kept")); err != nil {
		t.Fatal(err)
	}
	startTest(t, with(false)).Kill()
	if fresh, err := os.Stat(filepath.Join(dir, qemu.OverlayName(0))); err != nil || os.SameFile(before, fresh) {
		t.Errorf("the overlay was not replaced: %v", err)
	}

	a, tools := amd64(t)
	for want, c := range map[string]qemu.Config{
		"is smaller than its image": {Disks: []qemu.Disk{{Image: img, SizeBytes: 4096}}},
		"no disk of an earlier run": {Disks: []qemu.Disk{{Image: img}}, Reuse: true},
	} {
		c.Arch, c.Dir = a, t.TempDir()
		if _, err := qemu.Start(t.Context(), tools, c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// TestDiesWithParent: a machine must not outlive a test run that was killed.
func TestDiesWithParent(t *testing.T) {
	const env = "KILN_TEST_START_MACHINE_IN"
	if dir := os.Getenv(env); dir != "" {
		m := startTest(t, func(c *qemu.Config) { c.Dir = dir })
		fmt.Printf("machine %d\n", m.PID())
		select {}
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestDiesWithParent$")
	cmd.Env = append(os.Environ(), env+"="+filepath.Join(t.TempDir(), "m"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	for s := bufio.NewScanner(out); s.Scan() && pid == 0; {
		_, _ = fmt.Sscanf(s.Text(), "machine %d", &pid)
		if pid != 0 {
			break
		}
	}
	if pid == 0 {
		_ = cmd.Process.Kill()
		t.Fatalf("no machine was started: %v", cmd.Wait())
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("machine %d: %v", pid, err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		// An orphan may stay a zombie until init reaps it; it runs no more.
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("machine %d outlived its parent", pid)
		}
	}
}

// TestEthernet: what QEMU's network card sends comes out of the cable, as frames with
// their length in front. QEMU itself announces the card; the machine need not know of it.
func TestEthernet(t *testing.T) {
	ours, cable, err := qemu.Cable()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	mac := net.HardwareAddr{0x02, 1, 2, 3, 4, 5}
	m := startTest(t, func(c *qemu.Config) {
		c.Ethernet = &qemu.Ethernet{MAC: mac, Cable: cable}
	})
	if err := m.QMP(t.Context(), "announce-self", map[string]int{"initial": 10, "max": 10, "rounds": 1, "step": 10}); err != nil {
		t.Fatal(err)
	}
	if err := ours.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	size := make([]byte, 4)
	if _, err := io.ReadFull(ours, size); err != nil {
		t.Fatal(err)
	}
	frame := make([]byte, binary.BigEndian.Uint32(size))
	if _, err := io.ReadFull(ours, frame); err != nil {
		t.Fatal(err)
	}
	// A RARP announcement (type 0x8035) to everybody.
	if len(frame) < 14 || net.HardwareAddr(frame[:6]).String() != "ff:ff:ff:ff:ff:ff" || net.HardwareAddr(frame[6:12]).String() != mac.String() || frame[12] != 0x80 || frame[13] != 0x35 {
		t.Errorf("got %x", frame)
	}
	m.Kill()
	if _, err := io.ReadFull(ours, size); !errors.Is(err, io.EOF) {
		t.Errorf("the cable of a machine that is gone: %v", err)
	}
}
