//go:build unix && !linux

package qemu

import (
	"os/exec"
	"syscall"

	"github.com/kiln-os/kiln/internal/procgroup"
)

// bind puts QEMU into its own process group. Only Linux can end it with this process,
// whatever ends this one.
func bind(cmd *exec.Cmd) { procgroup.Set(cmd) }

func socketPairFDs() ([2]int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	return fds, err
}
