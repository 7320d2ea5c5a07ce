// Package qemu finds a QEMU that works, decides by booting a probe whether KVM
// can be used, and runs one virtual machine as a child process: firmware,
// virtio disk, user-mode network with forwarded ports, a watched serial console
// and a QMP control socket. Nothing here needs root.
//
// A machine is booted as hardware would be: through its firmware and the boot
// loader on the disk, never with -kernel.
package qemu
