// Package inspect tells what is in a disk image of Kiln: its partitions, what the
// operating system and Kubernetes in it are, whose node it is, and which secrets it
// holds. Nothing is mounted and nothing is changed; the image may be of any origin.
//
// INPUTS: an image or a disk. OUTPUTS: Report, which holds no secret's value.
package inspect

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/google/uuid"

	"github.com/kiln-os/kiln/images/disk"
	"github.com/kiln-os/kiln/images/esp"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/nodeimage"
	"github.com/kiln-os/kiln/profiles"
)

// State is how far an image is on its way to being a node.
type State string

// The states.
const (
	StateBase    State = "base"    // nobody's: it has no stamp
	StateStamped State = "stamped" // a node's, not booted yet
	StateBooted  State = "booted"  // a node's; its state partition is there
)

// Report is what an image holds.
type Report struct {
	Image   string `json:"image"`
	Size    int64  `json:"size"` // of the image or the disk, in bytes
	State   State  `json:"state"`
	Profile string `json:"profile"`
	Arch    string `json:"arch"` // Go's name
	// DiskID is the GUID of the partition table.
	DiskID     uuid.UUID   `json:"diskID"`
	Partitions []Partition `json:"partitions"`
	Systems    []System    `json:"systems"`        // one for each that can be started
	Node       *Node       `json:"node,omitempty"` // of a stamp
	// Secrets are those of the stamp, by path. What the node itself makes at its first
	// boot is in the state partition, which is not read.
	Secrets []Secret `json:"secrets"`
	// Problems are what is damaged or could not be read.
	Problems []string `json:"problems"`
}

// Partition is one of the partition table.
type Partition struct {
	Name  string    `json:"name"`
	Type  string    `json:"type"` // in words; of a type that Kiln does not use, its UUID
	UUID  uuid.UUID `json:"uuid"`
	Start int64     `json:"start"` // bytes
	Size  int64     `json:"size"`  // bytes
}

// Options of an inspection.
type Options struct {
	// Verify compares all bytes of /usr with the root hash.
	Verify bool
	// Bytes, if set, is told how much of that is done.
	Bytes func(done, total int64)
	// Now is what expiry is compared with.
	Now time.Time
}

// Image inspects the image or disk at path. What is no image of Kiln is an error;
// what is damaged in one is among the report's problems.
func Image(ctx context.Context, path string, o Options) (*Report, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	found, err := nodeimage.Identify(f)
	if err != nil {
		return nil, &os.PathError{Op: "inspect", Path: path, Err: err}
	}
	profile, err := profiles.Load(found.Profile)
	if err != nil {
		return nil, err
	}
	r := &Report{
		Image: path, Size: found.Table.Size, State: StateBase, Profile: found.Profile, Arch: profile.Arch, DiskID: found.Table.GUID,
		Systems: []System{}, Secrets: []Secret{}, Problems: []string{},
	}
	names, err := typeNames()
	if err != nil {
		return nil, err
	}
	for _, p := range found.Table.Partitions {
		name, ok := names[p.Type]
		if !ok {
			name = p.Type.String()
		}
		r.Partitions = append(r.Partitions, Partition{Name: p.Name, Type: name, UUID: p.UUID, Start: p.Offset, Size: p.Size})
	}
	if found.Table.Damaged {
		r.problem(errors.New("the partition table at the beginning is damaged, and the backup at the end was read: imagegen stamp --image repairs it"))
	}
	if found.Booted {
		r.State = StateBooted
	}
	volume, err := esp.Open(f, found.ESP.Offset, found.ESP.Size)
	if err != nil {
		r.problem(err)
		return r, nil
	}
	r.stamp(volume, o.Now)
	return r, r.systems(ctx, f, found.Table, volume, o)
}

func (r *Report) problem(err error) { r.Problems = append(r.Problems, err.Error()) }

// stamp reads whose node the image is.
func (r *Report) stamp(v *esp.Volume, now time.Time) {
	config, found, err := nodeimage.ReadStamp(v)
	switch {
	case err != nil:
		r.problem(err)
	case !found:
		return
	}
	if r.State == StateBase {
		r.State = StateStamped
	}
	if err != nil {
		return
	}
	c, err := parseConfig(config)
	if err != nil {
		r.problem(err)
		return
	}
	r.Node, err = c.node()
	if err != nil {
		r.problem(err)
	}
	r.Secrets = append(r.Secrets, c.secrets(now)...)
}

// typeNames names the types of partitions that images have.
func typeNames() (map[uuid.UUID]string, error) {
	out := map[uuid.UUID]string{disk.ESPType: "EFI system", disk.PRePType: "PReP boot"}
	for _, n := range arch.Names() {
		a, err := arch.Get(n)
		if err != nil {
			return nil, err
		}
		for what, id := range map[string]string{"root": a.RootType, "usr": a.UsrType, "usr-verity": a.UsrVerityType} {
			u, err := uuid.Parse(id)
			if err != nil {
				return nil, err
			}
			out[u] = what + " " + a.RepartSuffix
		}
	}
	return out, nil
}

// within says whether size bytes fit a partition.
func within(p disk.Placed, size int64) bool { return size <= p.Size }
