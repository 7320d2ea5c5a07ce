package nodeimage

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"github.com/kiln-os/kiln/images/disk"
	"github.com/kiln-os/kiln/images/esp"
	"github.com/kiln-os/kiln/images/format"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/profiles"
)

// Found is an image of Kiln: a base, or a node's.
type Found struct {
	Profile string
	Table   *disk.Table
	ESP     disk.Placed
	// Booted says that there is a state partition, which the first boot makes.
	Booted bool
}

// Identify recognises an image, by the UUID of its boot partition.
func Identify(f disk.File) (*Found, error) {
	// Before the partition table: a VHD has one where a raw image has it.
	if kind, err := format.Detect(f); err != nil {
		return nil, err
	} else if kind != format.Raw {
		return nil, &format.NotRawError{Kind: kind}
	}
	t, err := disk.Read(f)
	if err != nil {
		return nil, fmt.Errorf("this is no Kiln image: %w", err)
	}
	for _, name := range profiles.Names() {
		id := IDsOf(name)
		part, ok := t.Find(id.ESP)
		if !ok {
			continue
		}
		if part.Type != disk.ESPType || part.Name != espName {
			return nil, fmt.Errorf("this is no Kiln image: its boot partition is called %q", part.Name)
		}
		_, booted := t.Find(id.State)
		return &Found{Profile: name, Table: t, ESP: part, Booted: booted}, nil
	}
	for _, p := range t.Partitions {
		if p.Name == espName && p.Type == disk.ESPType {
			return nil, fmt.Errorf("this is an image of a profile that this version of imagegen does not have; it has %s", strings.Join(profiles.Names(), ", "))
		}
	}
	return nil, errors.New("this is no Kiln image: none of its partitions is Kiln's boot partition")
}

// ErrDamaged says that a stamp is not what was written. A node does not boot with it.
var ErrDamaged = errors.New("the stamp is damaged: imagegen stamp --image writes it again")

// ReadStamp returns the Ignition config of a boot partition's stamp, or false if
// there is none, as in a base image.
func ReadStamp(v *esp.Volume) (config secret.Value, found bool, err error) {
	files, found, err := v.Read(folder)
	if err != nil || !found {
		return secret.Value{}, false, err
	}
	content, hasConfig := files[configFile]
	sum, hasSum := files[sumFile]
	switch {
	case !hasConfig && !hasSum:
		return secret.Value{}, false, nil
	case !hasConfig || !hasSum:
		return secret.Value{}, false, fmt.Errorf("%w: of %s and %s one is missing", ErrDamaged, configFile, sumFile)
	case string(sum) != sumLine(content):
		return secret.Value{}, false, fmt.Errorf("%w: %s does not have the SHA-256 that %s names", ErrDamaged, configFile, sumFile)
	}
	return secret.New(content), true, nil
}

// sumLine is the line of sha256sum(1) for the config.
func sumLine(config []byte) string {
	return fmt.Sprintf("%x  %s\n", sha256.Sum256(config), configFile)
}
