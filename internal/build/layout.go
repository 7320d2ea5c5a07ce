package build

import (
	"fmt"
	"strings"

	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/nodeimage"
	"github.com/kiln-os/kiln/profiles"
	"github.com/kiln-os/kiln/units"
)

const mib = 1 << 20

func varsOf(a arch.Arch, p profiles.Profile) units.Vars {
	id := nodeimage.IDsOf(p.Name)
	// What the smallest disk leaves, whose first and last MiB hold the partition tables.
	state := p.Disk.Minimum - p.Disk.PReP - p.Disk.ESP - 2*(p.Disk.Usr+p.Disk.Verity) - 2
	return units.Vars{
		ESPUUID: id.ESP.String(), StateUUID: id.State.String(), RepartArch: a.RepartSuffix,
		UsrSize: int64(p.Disk.Usr) * mib, VeritySize: int64(p.Disk.Verity) * mib,
		StateSize: int64(state) * mib, DiskMiB: p.Disk.Minimum, Platform: p.IgnitionPlatform, Zram: p.Zram, Cloud: p.Cloud(),
	}
}

// commandLine is the kernel's. Each word has a reason:
func commandLine(p profiles.Profile, rootHash [32]byte) string {
	id := nodeimage.IDsOf(p.Name)
	return fmt.Sprintf("root=PARTUUID=%s rootfstype=ext4 rw", id.State) + // the state partition, made by systemd-repart
		fmt.Sprintf(" usrhash=%x mount.usrfstype=squashfs mount.usrflags=ro", rootHash) + // /usr, only if every block is the one we built
		" systemd.firstboot=no" + // ask no questions on the console
		" systemd.gpt_auto=no rd.systemd.gpt_auto=no" + // mount nothing else that happens to be on a disk
		" systemd.show_status=auto" + // quiet, unless something takes long or fails
		" " + strings.Join(p.KernelArguments, " ")
}
