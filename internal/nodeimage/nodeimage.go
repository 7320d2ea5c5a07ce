// Package nodeimage makes the disk images of nodes: a base image, which is the same
// for all nodes of a profile and holds no secret, and the stamp that makes it the
// image of one node.
//
// The stamp is the folder kiln of the boot partition: the node's Ignition config
// and its SHA-256, which the initramfs checks before Ignition reads the config. A
// stamped image depends on the base and the stamp only, not on how it was made.
package nodeimage

import (
	"github.com/google/uuid"

	"github.com/kiln-os/kiln/images/disk"
	"github.com/kiln-os/kiln/images/esp"
	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/secret"
)

// IDs are the partition UUIDs that the command line, the units and the partition
// table agree on. They are derived, so that the same profile has the same ones in
// every build and an update finds the state of its predecessor.
type IDs struct{ Disk, ESP, State uuid.UUID }

// IDsOf returns the UUIDs of a profile.
func IDsOf(profile string) IDs {
	return IDs{
		Disk:  disk.DerivedUUID("disk", profile),
		ESP:   disk.DerivedUUID("esp", profile),
		State: disk.DerivedUUID("state", profile),
	}
}

// Identity is what makes a base image the image of one node.
type Identity struct {
	Node    string
	Profile string
	Config  secret.Value // Ignition config
}

// The stamp on the boot partition; units/initrd names the same paths.
const (
	folder     = "kiln"
	configFile = "config.ign"
	sumFile    = configFile + ".sha256" // as sha256sum(1) writes and checks it
)

func (i Identity) files() []esp.File {
	return []esp.File{
		{Path: configFile, Content: tree.Bytes(i.Config.Reveal())},
		{Path: sumFile, Content: tree.Bytes(sumLine(i.Config.Reveal()))},
	}
}
