package qemu

import (
	"os/exec"
	"syscall"

	"github.com/kiln-os/kiln/internal/procgroup"
)

// bind puts QEMU into its own process group, and ends it with this process.
func bind(cmd *exec.Cmd) {
	procgroup.Set(cmd)
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}

func socketPairFDs() ([2]int, error) {
	return syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
}
