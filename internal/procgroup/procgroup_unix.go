//go:build unix

// Package procgroup starts programs in process groups of their own: what is typed at
// the terminal reaches this process alone, which then ends theirs.
package procgroup

import (
	"errors"
	"os/exec"
	"syscall"
)

// Set gives a program that is not started yet a group of its own.
func Set(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
}

// Interrupt asks a program that Set prepared, and those that it started, to end.
func Interrupt(cmd *exec.Cmd) error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }

// Alive says whether there is a process with the number.
func Alive(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }
