// Package units embeds what Kiln adds to Debian's files: units, presets, network,
// repart and tmpfiles definitions. system/ is laid over the operating system, zram/
// over that of machines that swap to memory, initrd/ over the initramfs, cloud/ over that
// of clouds, and live/ over one that a machine without a disk boots from. Words such as @ESP_UUID@ are replaced by the build.
package units

import (
	"embed"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/kiln-os/kiln/images/tree"
)

//go:embed all:system all:zram all:initrd all:cloud all:live
var files embed.FS

// Vars are the words that the build replaces in the files.
type Vars struct {
	ESPUUID, StateUUID string // partition UUIDs
	RepartArch         string // systemd's architecture name in partition types, such as x86-64
	UsrSize            int64  // bytes of one /usr slot
	VeritySize         int64  // bytes of one hash tree slot
	StateSize          int64  // bytes that the state takes at least
	DiskMiB            int    // the smallest disk
	Platform           string // Ignition's platform id, such as qemu or metal
	Zram               string // how the swap space in memory is compressed; "" makes none
	Cloud              bool   // Kiln reads the platform's user data, and not Ignition
}

// link is a symbolic link that enables a unit in /usr.
type link struct{ path, target string }

var systemLinks = []link{
	{"usr/lib/systemd/system/default.target", "multi-user.target"},
	{"usr/lib/systemd/system/multi-user.target.wants/firstboot.service", "../firstboot.service"},
	{"usr/lib/systemd/system/multi-user.target.wants/kiln-machine.service", "../kiln-machine.service"},
	{"usr/lib/systemd/system/multi-user.target.wants/kiln-resume.service", "../kiln-resume.service"},
	{"usr/lib/systemd/system/multi-user.target.wants/kiln-start-order.service", "../kiln-start-order.service"},
	{"usr/lib/systemd/system/multi-user.target.wants/kiln-virtual-ip.service", "../kiln-virtual-ip.service"},
	{"usr/lib/systemd/system/ssh.service.wants/kiln-sshd-keygen.service", "../kiln-sshd-keygen.service"},
}

var initrdLinks = []link{
	{"usr/lib/systemd/system/initrd.target.requires/kiln-etc.service", "../kiln-etc.service"},
	{"usr/lib/systemd/system/initrd.target.requires/kiln-ignition.service", "../kiln-ignition.service"},
}

// The stamp is in the boot partition, which is mounted by then. At user.ign Ignition
// takes it and looks no further; what is in base.d user data is merged over.
var (
	stampAlone  = []link{{"usr/lib/ignition/user.ign", stamp}}
	stampAsBase = []link{{"usr/lib/ignition/base.d/kiln.ign", stamp}}
)

const stamp = "/run/kiln/boot/kiln/config.ign"

var cloudLinks = []link{
	{"usr/lib/ignition/user.ign", "/run/kiln/userdata/config.ign"},
	{"usr/lib/ignition/base.d/name.ign", "/run/kiln/userdata/name.ign"},
}

// liveLinks begin with the mask of a unit that looks for the disk that /usr is on.
var liveLinks = []link{
	{"etc/systemd/system/systemd-repart.service", "/dev/null"},
	{"etc/systemd/system/sysinit.target.wants/kiln-live.service", "../kiln-live.service"},
	{"etc/systemd/system/initrd-root-fs.target.requires/kiln-install.service", "../kiln-install.service"},
}

// System lays the operating system's files over t.
func System(t *tree.Tree, v Vars) error {
	if err := overlay(t, "system", v, systemLinks); err != nil || v.Zram == "" {
		return err
	}
	return overlay(t, "zram", v, nil)
}

// Initrd lays the initramfs's files over t.
func Initrd(t *tree.Tree, v Vars) error {
	links := slices.Concat(initrdLinks, stampAsBase)
	if v.Platform == "metal" || v.Platform == "qemu" { // which have no user data
		links = slices.Concat(initrdLinks, stampAlone)
	}
	if err := overlay(t, "initrd", v, links); err != nil || !v.Cloud {
		return err
	}
	return overlay(t, "cloud", v, cloudLinks)
}

// Live lays over t what an initramfs of Kiln has on top if it brings /usr in /kiln/usr,
// its hash tree in /kiln/usr-verity and the boot partition's folder of the stamp in
// /kiln/boot, and what is left of the disk image for an installation. It is below /etc,
// where units have precedence.
func Live(t *tree.Tree) error { return overlay(t, "live", Vars{}, liveLinks) }

var placeholder = regexp.MustCompile(`@[A-Z_]+@`)

func overlay(t *tree.Tree, dir string, v Vars, links []link) error {
	// Where Kiln has left the user data, there is no other source, and the network is up
	// if it takes one.
	source, fetch := v.Platform, "fetch-offline"
	if v.Cloud {
		source, fetch = "metal", "fetch"
	}
	r := strings.NewReplacer(
		"@ESP_UUID@", v.ESPUUID,
		"@STATE_UUID@", v.StateUUID,
		"@REPART_ARCH@", v.RepartArch,
		"@USR_SIZE@", fmt.Sprint(v.UsrSize),
		"@VERITY_SIZE@", fmt.Sprint(v.VeritySize),
		"@STATE_SIZE@", fmt.Sprint(v.StateSize),
		"@DISK_MIB@", fmt.Sprint(v.DiskMiB),
		"@PLATFORM@", v.Platform,
		"@ZRAM@", v.Zram,
		"@IGNITION_PLATFORM@", source,
		"@IGNITION_FETCH@", fetch,
	)
	err := fs.WalkDir(files, dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := files.ReadFile(p)
		if err != nil {
			return err
		}
		s := r.Replace(string(b))
		if left := placeholder.FindString(s); left != "" {
			return fmt.Errorf("units/%s: nothing replaces %s", p, left)
		}
		t.AddFile(strings.TrimPrefix(p, dir+"/"), 0o644, []byte(s))
		return nil
	})
	for _, l := range links {
		t.AddSymlink(l.path, l.target)
	}
	return err
}
