package build

import (
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/kiln-os/kiln/images/disk"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/profiles"
	"github.com/kiln-os/kiln/units"
)

const mib = 1 << 20

// identity holds the partition UUIDs that the command line, the units and the
// partition table agree on. They are derived, so that the same profile has the
// same ones in every build and an update finds the state of its predecessor.
type identity struct {
	disk, esp, state uuid.UUID
}

func identityOf(p profiles.Profile) identity {
	return identity{
		disk:  disk.DerivedUUID("disk", p.Name),
		esp:   disk.DerivedUUID("esp", p.Name),
		state: disk.DerivedUUID("state", p.Name),
	}
}

// slots derives the UUIDs of slot A from the root hash: systemd-veritysetup finds
// the data by the first half of the hash and the hash tree by the second, see
// systemd-veritysetup-generator(8).
func slots(rootHash [32]byte) (data, tree uuid.UUID) {
	copy(data[:], rootHash[:16])
	copy(tree[:], rootHash[16:])
	return data, tree
}

func varsOf(a arch.Arch, p profiles.Profile) units.Vars {
	id := identityOf(p)
	return units.Vars{
		ESPUUID: id.esp.String(), StateUUID: id.state.String(), RepartArch: a.RepartSuffix,
		UsrSize: int64(p.Disk.Usr) * mib, VeritySize: int64(p.Disk.Verity) * mib,
		IgnitionPlatform: p.IgnitionPlatform,
	}
}

// commandLine is the kernel's. Each word has a reason:
func commandLine(p profiles.Profile, rootHash [32]byte) string {
	id := identityOf(p)
	return fmt.Sprintf("root=PARTUUID=%s rootfstype=ext4 rw", id.state) + // the state partition, made by systemd-repart
		fmt.Sprintf(" usrhash=%x mount.usrfstype=squashfs mount.usrflags=ro", rootHash) + // /usr, only if every block is the one we built
		" systemd.firstboot=no" + // ask no questions on the console
		" systemd.gpt_auto=no rd.systemd.gpt_auto=no" + // mount nothing else that happens to be on a disk
		" systemd.show_status=auto" + // quiet, unless something takes long or fails
		" " + strings.Join(p.KernelArguments, " ")
}
