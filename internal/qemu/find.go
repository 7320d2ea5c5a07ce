package qemu

import (
	"context"
	"fmt"
	"runtime"

	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/hosttools"
)

// Find returns a QEMU for the architecture: the host's own if it says that it is
// new enough and all of it is there, and otherwise Debian's, unpacked into the
// cache. The latter is QEMU 10, which is known to be stable under emulation.
func Find(ctx context.Context, a arch.Arch, o hosttools.Options) (*Tools, error) {
	t, hostErr := findHost(ctx, a)
	if hostErr == nil {
		return t, nil
	}
	u, err := hosttools.Ensure(ctx, hosttools.QEMU(a), o)
	if err != nil {
		return nil, fmt.Errorf("QEMU for %s: the host's is not used (%w), and Debian's cannot be had: %w", a.Go, hostErr, err)
	}
	t = &Tools{
		Origin:  fmt.Sprintf("Debian's, unpacked into %s; the host's is not used: %v", u.Dir(), hostErr),
		command: u.Command, path: u.Path,
		dataDirs: []string{u.Path("/usr/share/qemu"), u.Path("/usr/share/seabios")},
	}
	// The emulator is a program of this host, whatever it emulates.
	host, err := arch.Get(runtime.GOARCH)
	if err != nil {
		return nil, fmt.Errorf("QEMU for %s: %w", a.Go, err)
	}
	t.moduleDir = u.Path("/usr/lib/" + host.Triplet + "/qemu")
	if err := t.check(ctx, a); err != nil {
		return nil, fmt.Errorf("QEMU for %s, in %s: %w", a.Go, u.Dir(), err)
	}
	return t, nil
}
