package userdata

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ReadConfigDrive returns a file of this machine's config drive, nil if it is not there,
// and whether the machine has a config drive. The device manager has to have found all
// disks.
func ReadConfigDrive(file string) (data []byte, found bool, err error) {
	names, err := os.ReadDir("/sys/class/block")
	if err != nil {
		return nil, false, fmt.Errorf("config drive: %w", err)
	}
	for _, n := range names {
		dev := "/dev/" + n.Name()
		if kind := probe(dev); kind != "" {
			data, err := readMounted(dev, kind, file)
			if err != nil {
				return nil, true, fmt.Errorf("the config drive %s cannot be read: %w", dev, err)
			}
			return data, true, nil
		}
	}
	return nil, false, nil
}

func readMounted(dev, kind, file string) (data []byte, err error) {
	dir, err := os.MkdirTemp("", "config-drive-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.Remove(dir)) }()
	if err := unix.Mount(dev, dir, kind, unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, ""); err != nil {
		return nil, fmt.Errorf("mount: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Unmount(dir, 0)) }()
	return readFile(filepath.Join(dir, file))
}
