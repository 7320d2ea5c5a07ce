// Package oci composes container images out of file trees and lays them out as an
// OCI image layout whose layers are unpacked, ready to be mounted from where they
// are.
package oci

import (
	"fmt"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/arch"
)

// Image is one container image.
type Image struct {
	// Ref is the full name with a tag, such as registry.k8s.io/pause:3.10.
	Ref  string
	Arch arch.Arch
	// Layers are the image's trees, the lowest first. A tree that several images
	// have is stored once.
	Layers     []*tree.Tree
	Entrypoint []string
	Cmd        []string
	Env        []string // NAME=value
	// User is numeric, "uid:gid"; empty is root.
	User       string
	WorkingDir string
}

// platform is the image's in the terms of the OCI image index: the variant of
// 32-bit arm is the version of its instruction set.
func (i Image) platform() v1.Platform {
	p := v1.Platform{OS: "linux", Architecture: i.Arch.Go}
	if i.Arch.GoARM != "" {
		p.Variant = "v" + i.Arch.GoARM
	}
	return p
}

// build makes the image out of layers that were digested already.
func (i Image) build(layers []*layer, created time.Time) (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	adds := make([]mutate.Addendum, len(layers))
	for n, l := range layers {
		adds[n] = mutate.Addendum{Layer: l, MediaType: types.OCIUncompressedLayer}
	}
	img, err := mutate.Append(img, adds...)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", i.Ref, err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", i.Ref, err)
	}
	config = config.DeepCopy()
	p := i.platform()
	config.OS, config.Architecture, config.Variant = p.OS, p.Architecture, p.Variant
	config.Created = v1.Time{Time: created.UTC().Truncate(time.Second)}
	config.History = nil // its times would say nothing
	config.Config = v1.Config{
		Entrypoint: slices.Clone(i.Entrypoint), Cmd: slices.Clone(i.Cmd), Env: slices.Clone(i.Env),
		User: i.User, WorkingDir: i.WorkingDir,
	}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		return nil, fmt.Errorf("image %s: %w", i.Ref, err)
	}
	return img, nil
}
