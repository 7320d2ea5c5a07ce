package qemu

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/kiln-os/kiln/internal/arch"
)

// Accel is how the guest's instructions are run.
type Accel struct {
	KVM bool
	// Reason says why, in words for a person.
	Reason string
}

// String implements fmt.Stringer.
func (a Accel) String() string {
	name := "TCG (emulation)"
	if a.KVM {
		name = "KVM"
	}
	return name + ": " + a.Reason
}

// tcgFactor is how much longer a boot takes under emulation than under KVM.
const tcgFactor = 6

// Scale stretches a duration that fits KVM to the accelerator.
func (a Accel) Scale(d time.Duration) time.Duration {
	if a.KVM {
		return d
	}
	return d * tcgFactor
}

// args are the -accel and -cpu options.
func (a Accel) args(m arch.QEMU) []string {
	if a.KVM {
		return []string{"-accel", "kvm", "-cpu", "host"}
	}
	// One host thread per guest CPU. The translated code of a control plane takes
	// more than QEMU's default of 1 GiB; when the buffer is full all of it is thrown
	// away, and the guest stands still until it is translated again. The CPU model is the architecture table's:
	// QEMU's named models crash current kernels under emulation.
	return []string{"-accel", "tcg,thread=multi,tb-size=2048", "-cpu", m.CPU}
}

// probeTime bounds the KVM probe. Firmware needs about a second where KVM works;
// a host busy with other things should not be taken for one without KVM, because
// that makes every boot several times slower. Where KVM is broken the guest
// usually dies at once, so the whole time is seldom waited for.
const probeTime = 10 * time.Second

// firmwareAlive is what the firmware prints when it has found no disk to boot.
// To get there it has gone through real mode, paging, PCI enumeration and its
// drivers, which is where broken nested virtualisation dies; a boot sector that
// prints a byte and halts would pass.
var firmwareAlive = regexp.MustCompile(`BdsDxe:|UEFI Interactive Shell|>>\s*Start (PXE|HTTP)|SLOF`)

// ProbeAccel decides between KVM and emulation. A device node proves nothing
// (nested virtualisation may offer one whose guests die), so a machine of the
// architecture is started with KVM and must get through its firmware. Nothing
// is remembered: the answer may change with every boot of the host.
func ProbeAccel(ctx context.Context, t *Tools, a arch.Arch) Accel {
	if a.Go != runtime.GOARCH {
		return Accel{Reason: fmt.Sprintf("KVM cannot run %s on %s", a.Go, runtime.GOARCH)}
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return Accel{Reason: err.Error()}
	}
	_ = f.Close()
	dir, err := os.MkdirTemp("", "kiln-kvm-probe-")
	if err != nil {
		return Accel{Reason: fmt.Sprintf("no room for a probe: %v", err)}
	}
	defer os.RemoveAll(dir)
	start := time.Now()
	if err := probe(ctx, t, a, Accel{KVM: true}, dir, probeTime); err != nil {
		return Accel{Reason: "a probe guest does not run with KVM: " + firstLine(err.Error())}
	}
	return Accel{KVM: true, Reason: fmt.Sprintf("a probe guest came through its firmware in %.1f s", time.Since(start).Seconds())}
}

// probe starts a machine without a disk and waits for its firmware to say that
// there is none.
func probe(ctx context.Context, t *Tools, a arch.Arch, accel Accel, dir string, within time.Duration) error {
	m, err := Start(ctx, t, Config{Arch: a, Accel: accel, Name: "kvm-probe", MemoryMiB: 256, CPUs: 1, Dir: dir})
	if err != nil {
		return err
	}
	defer m.Kill()
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("its firmware did not get through in %v", within))
	defer cancel()
	// "Nothing to boot" is what this machine is meant to say, so its console is
	// searched before the failure it also counts as.
	if _, err := m.Console().WaitFor(ctx, firmwareAlive); err != nil {
		if tail := m.StderrTail(); tail != "" {
			return fmt.Errorf("QEMU said %q", firstLine(tail))
		}
		return err
	}
	return nil
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	return strings.TrimSpace(s)
}
