package host

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kiln-os/kiln/internal/atomicfile"
)

// BootID is the kernel's random id of this boot.
func (p Paths) BootID() (string, error) {
	b, err := os.ReadFile(p.At("/proc/sys/kernel/random/boot_id"))
	if err != nil {
		return "", fmt.Errorf("boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// Memory is the machine's RAM in bytes.
func Memory() (uint64, error) {
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return 0, fmt.Errorf("sysinfo: %w", err)
	}
	return uint64(si.Totalram) * uint64(si.Unit), nil
}

// KernelRelease is what uname -r prints.
func KernelRelease() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", fmt.Errorf("uname: %w", err)
	}
	return unix.ByteSliceToString(u.Release[:]), nil
}

// SetHostname sets the kernel's host name and /etc/hostname, from which the next
// boots take it.
func (p Paths) SetHostname(name string) error {
	if err := atomicfile.WriteFile(p.At("/etc/hostname"), []byte(name+"\n"), 0o644); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("set host name %q: %w", name, err)
	}
	return nil
}

// BuildTime is when the operating system was made: the time of /usr/lib/os-release,
// which is that of the whole image.
func (p Paths) BuildTime() (time.Time, error) {
	st, err := os.Stat(p.At("/usr/lib/os-release"))
	if err != nil {
		return time.Time{}, fmt.Errorf("build time: %w", err)
	}
	return st.ModTime(), nil
}

// ClockFloor is the latest of the given times: the machine exists after all of
// them, so its clock cannot be right while it shows less.
func ClockFloor(times ...time.Time) time.Time {
	var floor time.Time
	for _, t := range times {
		if t.After(floor) {
			floor = t
		}
	}
	return floor
}

// SetClock sets the system clock.
func SetClock(t time.Time) error {
	tv := unix.NsecToTimeval(t.UnixNano())
	if err := unix.Settimeofday(&tv); err != nil {
		return fmt.Errorf("set the clock to %s: %w", t.UTC().Format(time.RFC3339), err)
	}
	return nil
}
