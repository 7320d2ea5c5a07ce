package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/kiln-os/kiln/internal/arch"
)

// MinVersion is the oldest QEMU that is used. Emulation of 7.2 crashes kernel
// 6.12 with every CPU model that offers what current user space needs.
var MinVersion = Version{8, 2}

// Version is a QEMU release.
type Version struct{ Major, Minor int }

// String implements fmt.Stringer.
func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// Less reports whether v is older than o.
func (v Version) Less(o Version) bool {
	return v.Major < o.Major || v.Major == o.Major && v.Minor < o.Minor
}

var versionLine = regexp.MustCompile(`(?m)^(?:QEMU emulator|qemu-img) version (\d+)\.(\d+)`)

// ParseVersion reads what `qemu-system-… -version` or `qemu-img --version` prints.
func ParseVersion(out string) (Version, error) {
	m := versionLine.FindStringSubmatch(out)
	if m == nil {
		return Version{}, fmt.Errorf("no QEMU version in %q", firstLine(out))
	}
	major, err1 := strconv.Atoi(m[1])
	minor, err2 := strconv.Atoi(m[2])
	if err := errors.Join(err1, err2); err != nil {
		return Version{}, err
	}
	return Version{major, minor}, nil
}

// Tools is a QEMU for one architecture: the emulator, qemu-img and firmware, all
// from one place.
type Tools struct {
	// Version of the emulator.
	Version Version
	// Origin says where it comes from, for a person.
	Origin string

	command func(ctx context.Context, name string, args ...string) (*exec.Cmd, error)
	path    func(abs string) string // where a file of a Debian package lies
	// dataDirs are searched for firmware by QEMU itself (-L); moduleDir holds its
	// loadable parts. Both empty for a QEMU that is installed.
	dataDirs  []string
	moduleDir string
}

// findHost returns the QEMU installed on the host if all of it is there and new
// enough; the error says what is missing.
func findHost(ctx context.Context, a arch.Arch) (*Tools, error) {
	t := &Tools{
		Origin: "installed on this machine",
		command: func(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
			return exec.CommandContext(ctx, name, args...), nil
		},
		path: func(abs string) string { return abs },
	}
	for _, name := range []string{a.QEMU.Binary, "qemu-img"} {
		if _, err := exec.LookPath(name); err != nil {
			return nil, err
		}
	}
	return t, t.check(ctx, a)
}

// check reads the version by running both programs, and looks for the firmware.
func (t *Tools) check(ctx context.Context, a arch.Arch) error {
	for _, q := range []struct{ name, flag string }{{"qemu-img", "--version"}, {a.QEMU.Binary, "-version"}} {
		cmd, err := t.command(ctx, q.name, q.flag)
		if err != nil {
			return err
		}
		out, err := output(cmd)
		if err != nil {
			return err
		}
		v, err := ParseVersion(out)
		if err != nil {
			return fmt.Errorf("%s %s: %w", q.name, q.flag, err)
		}
		if v.Less(MinVersion) {
			return fmt.Errorf("%s is version %s; Kiln needs %s or newer, because older ones crash current kernels", q.name, v, MinVersion)
		}
		t.Version = v
	}
	_, _, err := t.Firmware(a)
	return err
}

// Firmware returns the paths of the firmware's code and of its empty variable
// store; both are "" where QEMU brings the firmware itself.
func (t *Tools) Firmware(a arch.Arch) (code, vars string, err error) {
	if a.QEMU.FirmwareCode == "" {
		return "", "", nil
	}
	code, vars = t.path(a.QEMU.FirmwareCode), t.path(a.QEMU.FirmwareVars)
	for _, p := range []string{code, vars} {
		if _, err := os.Stat(p); err != nil {
			return "", "", fmt.Errorf("firmware of %s (Debian package %s): %w", a.Go, a.QEMU.FirmwarePackage, err)
		}
	}
	return code, vars, nil
}

// system returns the emulator's command.
func (t *Tools) system(ctx context.Context, a arch.Arch, args []string) (*exec.Cmd, error) {
	var dirs []string
	for _, d := range t.dataDirs {
		dirs = append(dirs, "-L", d)
	}
	cmd, err := t.command(ctx, a.QEMU.Binary, append(dirs, args...)...)
	if err != nil {
		return nil, err
	}
	if t.moduleDir != "" {
		// An unpacked QEMU would look where it was compiled to be and find the
		// host's modules, of another version.
		if cmd.Env == nil {
			cmd.Env = os.Environ()
		}
		cmd.Env = append(cmd.Env, "QEMU_MODULE_DIR="+t.moduleDir)
	}
	return cmd, nil
}

// makeOverlay makes a qcow2 file at path that holds what is written over
// d.Image, unless reuse is set and it is there.
func (t *Tools) makeOverlay(ctx context.Context, d Disk, path string, reuse bool) error {
	if reuse {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("no disk of an earlier run to continue with: %w", err)
		}
		return nil
	}
	base, err := filepath.Abs(d.Image)
	if err != nil {
		return err
	}
	format, size, err := inspectImage(base)
	if err != nil {
		return err
	}
	if d.SizeBytes != 0 && d.SizeBytes < size {
		return fmt.Errorf("disk of %d bytes is smaller than its image %s of %d bytes", d.SizeBytes, base, size)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	args := []string{"create", "-q", "-f", "qcow2", "-b", base, "-F", format, path}
	if d.SizeBytes != 0 {
		args = append(args, strconv.FormatInt(d.SizeBytes, 10))
	}
	cmd, err := t.command(ctx, "qemu-img", args...)
	if err != nil {
		return err
	}
	_, err = output(cmd)
	return err
}

// makeVars copies the empty variable store, which the firmware writes to.
func makeVars(from, to string, reuse bool) error {
	if reuse {
		if _, err := os.Stat(to); err == nil {
			return nil
		}
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}

// output runs cmd and returns its standard output; the error holds what was run
// and what it printed to standard error.
func output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
