package nodeimage

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/kiln-os/kiln/images/disk"
	"github.com/kiln-os/kiln/images/esp"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/profiles"
)

// Parts are what a base image is made of.
type Parts struct {
	Profile profiles.Profile
	Arch    arch.Arch
	Time    time.Time // of everything in the boot partition
	// Usr is the file of the /usr file system, Verity that of its dm-verity hash
	// tree, RootHash the tree's root.
	Usr, Verity string
	RootHash    [32]byte
	Boot        Boot
	BootFiles   []esp.File // what comes before Boot
	Kernel      string     // its release
	Images      []string
}

// Base is a base image.
type Base struct {
	Image    string   `json:"-"` // its file
	Profile  string   `json:"profile"`
	RootHash string   `json:"rootHash"`
	Kernel   string   `json:"kernel"`
	Images   []string `json:"images"` // container images, by name
}

const (
	mib       = 1 << 20
	imageFile = "disk.img"
	aboutFile = "base.json"
	espName   = "kiln-esp"
	prepName  = "kiln-prep"
)

// WriteBase makes a base image in the folder dir.
func WriteBase(ctx context.Context, dir string, p Parts) error {
	if err := checkSlots(p); err != nil {
		return err
	}
	id, slot := IDsOf(p.Profile.Name), p.Profile.Disk
	// systemd-veritysetup finds the data by the first half of the root hash and the
	// hash tree by the second, see systemd-veritysetup-generator(8).
	var data, hashTree uuid.UUID
	copy(data[:], p.RootHash[:16])
	copy(hashTree[:], p.RootHash[16:])
	espSize, usrSize, veritySize := int64(slot.ESP)*mib, int64(slot.Usr)*mib, int64(slot.Verity)*mib
	first, err := p.prep()
	if err != nil {
		return err
	}
	err = disk.Create(ctx, filepath.Join(dir, imageFile), disk.Disk{GUID: id.Disk, HybridMBR: slot.HybridMBR, Partitions: append(first, []disk.Partition{
		{Name: espName, Type: disk.ESPType, UUID: id.ESP, Size: espSize, Fill: p.fillESP(espSize)},
		{Name: "kiln-usr-a", Type: uuid.MustParse(p.Arch.UsrType), UUID: data, Size: usrSize, Attributes: disk.ReadOnly, Fill: disk.FromFile(p.Usr, usrSize)},
		{Name: "kiln-usr-a-verity", Type: uuid.MustParse(p.Arch.UsrVerityType), UUID: hashTree, Size: veritySize, Attributes: disk.ReadOnly, Fill: disk.FromFile(p.Verity, veritySize)},
	}...)}, 0o600)
	if err != nil {
		return err
	}
	about, err := json.MarshalIndent(Base{Profile: p.Profile.Name, RootHash: hex.EncodeToString(p.RootHash[:]), Kernel: p.Kernel, Images: p.Images}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, aboutFile), append(about, '\n'), 0o600)
}

// fillESP writes the boot partition, with an empty folder for the stamp.
func (p Parts) fillESP(size int64) func(context.Context, io.WriterAt, int64) error {
	id := disk.DerivedUUID("esp-volume", p.Profile.Name)
	o := esp.Options{Label: "KILN", VolumeID: uint32(id[0])<<24 | uint32(id[1])<<16 | uint32(id[2])<<8 | uint32(id[3]), Time: p.Time}
	files := slices.Concat(p.Boot.Files, []esp.File{{Path: folder + "/"}}, p.BootFiles)
	return func(_ context.Context, w io.WriterAt, offset int64) error {
		return esp.Write(w, offset, size, o, files)
	}
}

// checkSlots fails if /usr does not fit its slot: a later update must fit, too.
func checkSlots(p Parts) error {
	for _, s := range []struct {
		what, file string
		mib        int
	}{{"/usr", p.Usr, p.Profile.Disk.Usr}, {"the hash tree of /usr", p.Verity, p.Profile.Disk.Verity}} {
		st, err := os.Stat(s.file)
		if err != nil {
			return err
		}
		if st.Size() > int64(s.mib)*mib {
			return fmt.Errorf("%s has %d MiB, but its partition in profile %s only %d: make the slot larger", s.what, st.Size()/mib, p.Profile.Name, s.mib)
		}
	}
	return nil
}

// LoadBase returns the base image that WriteBase made in dir.
func LoadBase(dir string) (*Base, error) {
	raw, err := os.ReadFile(filepath.Join(dir, aboutFile))
	if err != nil {
		return nil, err
	}
	b := &Base{Image: filepath.Join(dir, imageFile)}
	if err := json.Unmarshal(raw, b); err != nil {
		return nil, err
	}
	_, err = os.Stat(b.Image)
	if err == nil && b.Profile == "" {
		err = errors.New("no profile in " + aboutFile)
	}
	return b, err
}
