package build

import (
	"fmt"

	"github.com/kiln-os/kiln/images/grub"
	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/images/uki"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/nodeimage"
)

// loaderOf takes the boot loader of an architecture out of the packages' tree t, which
// loses it when /usr is made. What it returns leads to the kernel of a system.
func loaderOf(t *tree.Tree, a arch.Arch) (func(uki.Sections) (nodeimage.Boot, error), error) {
	if a.Boot == arch.BootPReP {
		core, err := grub.FromPackage(t, nodeimage.GRUBPrefix)
		if err != nil {
			return nil, fmt.Errorf("boot loader: %w", err)
		}
		return func(s uki.Sections) (nodeimage.Boot, error) { return nodeimage.BootPReP(core, s) }, nil
	}
	const folder = "usr/lib/systemd/boot/efi/"
	stub, err := t.ReadFile(folder + a.EFIStub)
	if err != nil {
		return nil, fmt.Errorf("UKI stub: %w", err)
	}
	loader, err := t.ReadFile(folder + a.EFIBoot)
	if err != nil {
		return nil, fmt.Errorf("boot loader: %w", err)
	}
	return func(s uki.Sections) (nodeimage.Boot, error) {
		image, err := uki.Build(stub, s)
		if err != nil {
			return nodeimage.Boot{}, fmt.Errorf("unified kernel image: %w", err)
		}
		return nodeimage.BootEFI(a, loader, image), nil
	}, nil
}
