package nodeimage

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/kiln-os/kiln/images/disk"
	"github.com/kiln-os/kiln/images/esp"
	"github.com/kiln-os/kiln/images/grub"
	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/images/uki"
	"github.com/kiln-os/kiln/internal/arch"
)

// Boot is what leads from the firmware to the kernel of slot A.
type Boot struct {
	Files []esp.File // of the boot partition
	// PReP is what Open Firmware starts, in a partition of its own; nil where UEFI boots.
	PReP []byte
}

// BootEFI is systemd-boot and a unified kernel image.
func BootEFI(a arch.Arch, loader, image []byte) Boot {
	return Boot{Files: []esp.File{
		{Path: "EFI/BOOT/" + a.EFIName, Content: tree.Bytes(loader)},
		{Path: "EFI/Linux/" + slotA + ".efi", Content: tree.Bytes(image)},
		{Path: "loader/loader.conf", Content: tree.Bytes("timeout 0\neditor no\n")},
	}}
}

// slotA is the name of the system that an image has.
const slotA = "kiln-a"

// GRUBPrefix is where GRUB's core image looks for its configuration: on the disk that it
// was started from, in the boot partition, which is the second one.
const GRUBPrefix = "(,gpt2)/" + grub.ConfigFolder

// BootPReP is GRUB, whose core image has GRUBPrefix, and the system that it starts.
func BootPReP(core []byte, s uki.Sections) (Boot, error) {
	files, err := grub.Files(slotA, s)
	return Boot{Files: files, PReP: core}, err
}

// prep is the partition before the boot partition, if there is one.
func (p Parts) prep() ([]disk.Partition, error) {
	size, core := int64(p.Profile.Disk.PReP)*mib, p.Boot.PReP
	switch {
	case size == 0 && core == nil:
		return nil, nil
	case len(core) == 0 || int64(len(core)) > size:
		return nil, fmt.Errorf("the boot loader has %d bytes, and its partition in profile %s %d", len(core), p.Profile.Name, size)
	}
	return []disk.Partition{{
		Name: prepName, Type: disk.PRePType, UUID: disk.DerivedUUID("prep", p.Profile.Name), Size: size,
		Fill: func(_ context.Context, w io.WriterAt, offset int64) error {
			_, err := w.WriteAt(core, offset)
			return err
		},
	}}, nil
}

// CheckPReP says what is wrong with the partition that Open Firmware starts GRUB from.
func CheckPReP(f io.ReaderAt, t *disk.Table) error {
	for i, p := range t.Partitions {
		if p.Type != disk.PRePType {
			continue
		}
		prefix, err := grub.ReadPrefix(io.NewSectionReader(f, p.Offset, p.Size))
		if err != nil {
			return fmt.Errorf("partition %s: %w: a machine does not start from this image", p.Name, err)
		}
		if prefix != GRUBPrefix || i != 0 || len(t.Partitions) < 2 || t.Partitions[1].Name != espName {
			return fmt.Errorf("partition %s: GRUB looks for its configuration at %s, which is not on the boot partition", p.Name, prefix)
		}
		return nil
	}
	return errors.New("there is no PReP partition: a machine does not start from this image")
}
