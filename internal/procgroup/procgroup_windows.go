// Package procgroup starts programs in process groups of their own: what is typed at
// the terminal reaches this process alone, which then ends theirs.
package procgroup

import (
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/windows"
)

// Set gives a program that is not started yet a group of its own.
func Set(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.CreationFlags |= windows.CREATE_NEW_PROCESS_GROUP
}

// Interrupt asks a program that Set prepared, and those that it started, to end. A
// group has no Ctrl-C here, but Ctrl-Break, which programs in Go take for it.
func Interrupt(cmd *exec.Cmd) error {
	return windows.GenerateConsoleCtrlEvent(windows.CTRL_BREAK_EVENT, uint32(cmd.Process.Pid))
}

// Alive says whether there is a process with the number.
func Alive(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	_ = p.Release()
	return true
}
