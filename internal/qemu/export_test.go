package qemu

// For the boot tests, which are outside of the package because what finds their
// QEMU imports it.
var (
	Probe       = probe
	OverlayName = overlayName
)

const ProbeTime = probeTime
