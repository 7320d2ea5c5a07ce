package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/containerd/platforms"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kiln-os/kiln/images/oci"
	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/arch"
)

// maxDocument is the largest manifest, index or configuration that is read, in bytes.
// Registries take manifests of 4 MiB.
const maxDocument = 4 << 20

// Pull fetches the image with the digest in ref for an architecture: ref may be of the
// image or of an index that has one for each architecture. The image's layers are
// merged into one; its Ref is left to the caller.
func (c Client) Pull(ctx context.Context, ref string, a arch.Arch) (oci.Image, error) {
	r, err := name.NewDigest(ref, name.StrictValidation)
	if err != nil {
		return oci.Image{}, err
	}
	img, err := c.pull(ctx, r, a)
	if err != nil {
		return oci.Image{}, fmt.Errorf("image %s for %s: %w", ref, a.Go, err)
	}
	return img, nil
}

func (c Client) pull(ctx context.Context, r name.Digest, a arch.Arch) (oci.Image, error) {
	h, err := v1.NewHash(r.DigestStr())
	if err != nil {
		return oci.Image{}, err
	}
	m, err := c.imageManifest(ctx, r.Repository, h, a)
	if err != nil {
		return oci.Image{}, err
	}
	file, err := c.layer(ctx, r.Repository, m.Config)
	if err != nil {
		return oci.Image{}, fmt.Errorf("configuration: %w", err)
	}
	var config v1.ConfigFile
	if err := readJSON(file, &config); err != nil {
		return oci.Image{}, fmt.Errorf("configuration: %w", err)
	}
	if config.OS != "linux" || config.Architecture != a.Go {
		return oci.Image{}, fmt.Errorf("it is for %s/%s", config.OS, config.Architecture)
	}
	if len(config.RootFS.DiffIDs) != len(m.Layers) {
		return oci.Image{}, fmt.Errorf("it has %d layers, but its configuration names %d", len(m.Layers), len(config.RootFS.DiffIDs))
	}
	merged := tree.New()
	for i, l := range m.Layers {
		file, err := c.layer(ctx, r.Repository, l)
		if err == nil {
			file, err = c.uncompressed(ctx, file, l.MediaType, config.RootFS.DiffIDs[i])
		}
		if err == nil {
			err = apply(merged, file)
		}
		if err != nil {
			return oci.Image{}, fmt.Errorf("layer %d: %w", i+1, err)
		}
	}
	return oci.Image{
		Arch: a, Layers: []*tree.Tree{merged}, Entrypoint: config.Config.Entrypoint, Cmd: config.Config.Cmd,
		Env: config.Config.Env, User: config.Config.User, WorkingDir: config.Config.WorkingDir,
	}, nil
}

// imageManifest follows an index to the manifest of the architecture's image.
func (c Client) imageManifest(ctx context.Context, repo name.Repository, h v1.Hash, a arch.Arch) (*v1.Manifest, error) {
	file, err := c.manifest(ctx, repo, h)
	if err != nil {
		return nil, err
	}
	var kind struct {
		MediaType types.MediaType   `json:"mediaType"`
		Manifests []json.RawMessage `json:"manifests"`
	}
	if err := readJSON(file, &kind); err != nil {
		return nil, fmt.Errorf("manifest %s: %w", h, err)
	}
	// OCI leaves the media type out if it likes.
	if kind.MediaType.IsIndex() || kind.MediaType == "" && kind.Manifests != nil {
		var index v1.IndexManifest
		if err := readJSON(file, &index); err != nil {
			return nil, fmt.Errorf("index %s: %w", h, err)
		}
		d, err := choose(index.Manifests, a)
		if err != nil {
			return nil, err
		}
		if h = d.Digest; !d.MediaType.IsImage() {
			return nil, fmt.Errorf("the index names a %q for %s, which is no image", d.MediaType, a.Go)
		}
		if file, err = c.manifest(ctx, repo, h); err != nil {
			return nil, err
		}
	} else if kind.MediaType != "" && !kind.MediaType.IsImage() {
		return nil, fmt.Errorf("%s is a %q; an image or an index of images is right (media types of OCI or of Docker's version 2)", h, kind.MediaType)
	}
	var m v1.Manifest
	if err := readJSON(file, &m); err != nil {
		return nil, fmt.Errorf("manifest %s: %w", h, err)
	}
	if m.SchemaVersion != 2 || m.Config.Digest.Hex == "" {
		return nil, fmt.Errorf("manifest %s is of schema version %d; 2 is right", h, m.SchemaVersion)
	}
	return &m, nil
}

// choose returns the image of an index that suits the architecture best: a 32-bit arm
// of version 7 runs what is for version 6, but prefers its own.
func choose(list []v1.Descriptor, a arch.Arch) (v1.Descriptor, error) {
	want := ocispec.Platform{OS: "linux", Architecture: a.Go}
	if a.GoARM != "" {
		want.Variant = "v" + a.GoARM
	}
	suits := platforms.Only(want)
	var have []string
	var best *v1.Descriptor
	var bestPlatform ocispec.Platform
	for i, d := range list {
		if d.Platform == nil {
			continue
		}
		have = append(have, d.Platform.String())
		p := ocispec.Platform{OS: d.Platform.OS, Architecture: d.Platform.Architecture, Variant: d.Platform.Variant}
		// A 64-bit arm may run 32-bit programs, but these are not what is asked for.
		if p.Architecture != a.Go || !suits.Match(p) {
			continue
		}
		if best == nil || suits.Less(p, bestPlatform) {
			best, bestPlatform = &list[i], p
		}
	}
	if best == nil {
		return v1.Descriptor{}, fmt.Errorf("the index has no image for linux/%s, only for %s", a.Go, strings.Join(have, ", "))
	}
	return *best, nil
}

func readJSON(file string, into any) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err != nil {
		return err
	}
	if len(b) > maxDocument {
		return errors.New("it is larger than 4 MiB")
	}
	return json.Unmarshal(b, into)
}
