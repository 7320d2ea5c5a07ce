package oci

import (
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kiln-os/kiln/images/tree"
)

// Annotations of an image in the layout's index. containerd takes the name from
// the first; the second is the one of the OCI image layout specification.
const (
	annotationImageName = "io.containerd.image.name"
	annotationRefName   = "org.opencontainers.image.ref.name"
)

// refForm is a full image name: a host with a dot, a path, a tag.
var refForm = regexp.MustCompile(`^[a-z0-9-]+(\.[a-z0-9-]+)+(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)

// LayersDir is the folder of the layers below the layout's; each is in a folder
// that its diff id names, in hexadecimal.
const LayersDir = "layers"

// WriteLayout puts all images into t below prefix as an OCI image layout whose
// layers are unpacked: one index, the manifests and configurations as blobs, and
// every layer's files once, however many images have it, below LayersDir. A node
// uses them where they are, see internal/phases/images.
//
// Digests are those of the layers' tar streams, in which all files have the time
// mtime, which is also the images' creation time. The result depends on nothing
// else, not even on the order of images.
func WriteLayout(t *tree.Tree, prefix string, images []Image, mtime time.Time) error {
	images = slices.Clone(images)
	slices.SortFunc(images, func(a, b Image) int { return strings.Compare(a.Ref, b.Ref) })
	layers := map[*tree.Tree]*layer{}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	for n, i := range images {
		if !refForm.MatchString(i.Ref) {
			return fmt.Errorf("image name %q: a full name with a tag is right, such as registry.k8s.io/pause:3.10", i.Ref)
		}
		if n > 0 && images[n-1].Ref == i.Ref {
			return fmt.Errorf("image %s is there twice", i.Ref)
		}
		if len(i.Layers) == 0 {
			return fmt.Errorf("image %s has no layers", i.Ref)
		}
		var mine []*layer
		for _, lt := range i.Layers {
			l := layers[lt]
			if l == nil {
				var err error
				if l, err = newLayer(lt, mtime); err != nil {
					return fmt.Errorf("image %s: layer: %w", i.Ref, err)
				}
				layers[lt] = l
				addLayer(t, path.Join(prefix, LayersDir, l.hash.Hex), lt)
			}
			mine = append(mine, l)
		}
		img, err := i.build(mine, mtime)
		if err != nil {
			return err
		}
		d, err := addImage(t, prefix, img)
		if err != nil {
			return fmt.Errorf("image %s: %w", i.Ref, err)
		}
		p := i.platform()
		d.Platform, d.Annotations = &p, map[string]string{annotationImageName: i.Ref, annotationRefName: i.Ref}
		index.Manifests = append(index.Manifests, d)
	}
	raw, err := json.Marshal(index)
	if err != nil {
		return fmt.Errorf("image index: %w", err)
	}
	t.AddFile(path.Join(prefix, "index.json"), 0o644, raw)
	return nil
}

// addLayer puts the layer's files below dir.
func addLayer(t *tree.Tree, dir string, layer *tree.Tree) {
	t.AddDir(dir, 0o755)
	// The function that is called cannot fail.
	_ = layer.Walk(func(p string, e *tree.Entry) error {
		own := *e
		if e.Type == tree.Hardlink {
			own.Link = path.Join(dir, e.Link)
		}
		t.Set(path.Join(dir, p), &own)
		return nil
	})
}

// addImage adds the image's manifest and configuration and returns the manifest's
// descriptor.
func addImage(t *tree.Tree, prefix string, img v1.Image) (v1.Descriptor, error) {
	config, err := img.RawConfigFile()
	if err != nil {
		return v1.Descriptor{}, err
	}
	digest, err := img.ConfigName()
	if err != nil {
		return v1.Descriptor{}, err
	}
	addBlob(t, prefix, digest, tree.Bytes(config))
	manifest, err := img.RawManifest()
	if err != nil {
		return v1.Descriptor{}, err
	}
	if digest, err = img.Digest(); err != nil {
		return v1.Descriptor{}, err
	}
	addBlob(t, prefix, digest, tree.Bytes(manifest))
	return v1.Descriptor{MediaType: types.OCIManifestSchema1, Size: int64(len(manifest)), Digest: digest}, nil
}

func addBlob(t *tree.Tree, prefix string, digest v1.Hash, c tree.Content) {
	p := path.Join(prefix, "blobs", digest.Algorithm, digest.Hex)
	if t.Get(p) == nil {
		t.Set(p, &tree.Entry{Type: tree.File, Mode: 0o644, Content: c})
	}
}
