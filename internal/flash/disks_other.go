//go:build !linux && !darwin && !windows

package flash

import (
	"errors"
	"os"
	"runtime"
)

var errSystem = errors.New("imagegen writes to no disks on " + runtime.GOOS + " yet: write the raw image (NODE.img) with another program, such as Raspberry Pi Imager; files in the place of disks work")

// List returns the disks of this machine.
func List() ([]Disk, error) { return nil, errSystem }

func find(string) (Disk, error) { return Disk{}, errSystem }

func startWriting(*os.File, int64, int64, int64, int64) {}

func dropCache(*os.File) error { return nil }

func reread(*os.File) {}
