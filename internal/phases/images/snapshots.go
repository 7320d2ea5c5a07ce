package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
)

// layersDir is oci.LayersDir, which this program does not import.
const layersDir = "layers"

// addSnapshots makes a snapshot for each layer that has none and returns the name
// of the topmost.
func addSnapshots(ctx context.Context, sn snapshots.Snapshotter, layers string, diffIDs []digest.Digest) (string, error) {
	parent := ""
	for i, d := range diffIDs {
		if err := d.Validate(); err != nil {
			return "", fmt.Errorf("layer %d: diff id %q: %w", i, d, err)
		}
		name := identity.ChainID(diffIDs[:i+1]).String()
		_, err := sn.Stat(ctx, name)
		if errdefs.IsNotFound(err) {
			err = addSnapshot(ctx, sn, name, parent, filepath.Join(layers, d.Encoded()))
		}
		if err != nil {
			return "", fmt.Errorf("layer %s: %w", d, err)
		}
		parent = name
	}
	if parent == "" {
		return "", errors.New("the image has no layers")
	}
	return parent, nil
}

// addSnapshot makes a committed snapshot whose files are those of the folder layer:
// it lets the snapshotter prepare an empty one, as for unpacking, and puts a link
// in the place of its folder. overlay mounts follow links to lower folders.
func addSnapshot(ctx context.Context, sn snapshots.Snapshotter, name, parent, layer string) error {
	if st, err := os.Stat(layer); err != nil {
		return err
	} else if !st.IsDir() {
		return fmt.Errorf("%s is not the folder of a layer", layer)
	}
	key := "kiln-" + name
	mounts, err := sn.Prepare(ctx, key, parent)
	if errdefs.IsAlreadyExists(err) { // left by a run that was interrupted
		if err = sn.Remove(ctx, key); err == nil {
			mounts, err = sn.Prepare(ctx, key, parent)
		}
	}
	if err != nil {
		return err
	}
	dir, err := upper(mounts)
	if err == nil {
		err = os.Remove(dir) // it is empty
	}
	if err == nil {
		err = os.Symlink(layer, dir)
	}
	if err == nil {
		err = sn.Commit(ctx, name, key)
	}
	if err != nil {
		return errors.Join(err, sn.Remove(context.WithoutCancel(ctx), key))
	}
	return nil
}

// upper is the folder into which writes to the mounts of an active overlayfs
// snapshot go: without a parent it is mounted by itself.
func upper(mounts []mount.Mount) (string, error) {
	if len(mounts) == 1 {
		m := mounts[0]
		if m.Type == "bind" {
			return m.Source, nil
		}
		for _, o := range m.Options {
			if dir, ok := strings.CutPrefix(o, "upperdir="); ok {
				return dir, nil
			}
		}
	}
	return "", fmt.Errorf("containerd's snapshotter %s prepares mounts that are not overlayfs: %v", snapshotter, mounts)
}
