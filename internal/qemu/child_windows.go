package qemu

import (
	"errors"
	"os/exec"

	"github.com/kiln-os/kiln/internal/procgroup"
)

func bind(cmd *exec.Cmd) { procgroup.Set(cmd) }

// socketPairFDs fails: QEMU cannot be handed open sockets here.
func socketPairFDs() ([2]int, error) {
	return [2]int{}, errors.New("imagegen starts no virtual machines on Windows yet: start the image with another program, such as Hyper-V or QEMU itself")
}
