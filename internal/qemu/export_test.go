package qemu

import "context"

// For the boot tests, which are outside of the package because what finds their
// QEMU imports it.
var (
	Probe       = probe
	OverlayName = overlayName
)

const ProbeTime = probeTime

// QMP runs a command of the machine's control socket.
func (m *Machine) QMP(ctx context.Context, command string, args any) error {
	return m.qmp.Do(ctx, command, args, nil)
}

// NewTurnsOn is NewTurns on a host with so many processors.
func NewTurnsOn(processors int) *Turns { return &Turns{processors: processors, slice: turnTime} }
