package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/kiln-os/kiln/images/format"
	"github.com/kiln-os/kiln/internal/nodeimage"
	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/profiles"
)

// Image is a file with the disk image of a node.
type Image struct {
	Node    string `json:"node"`
	Profile string `json:"profile"`
	Format  string `json:"format"`
	File    string `json:"file"`
	// Commands take the image to its platform and start a machine with it; only an
	// image of the profile's first format has any.
	Commands []string `json:"commands,omitempty"`
}

// formatsOf returns the formats of a node's image files.
func (o Options) formatsOf(n spec.Node) ([]format.Format, error) {
	names := o.Formats
	if len(names) == 0 {
		names = n.Formats
	}
	if len(names) == 0 {
		p, err := profiles.Load(n.Profile)
		if err != nil {
			return nil, err
		}
		names = p.Formats
	}
	var formats []format.Format
	byExt := map[string]string{}
	for _, name := range names {
		f, err := format.Get(name)
		if err != nil {
			return nil, err
		}
		switch other := byExt[f.Ext]; other {
		case "":
		case name:
			continue // given twice
		default:
			return nil, fmt.Errorf("formats %s and %s have the same file, NODE%s: build one of them at a time", other, name, f.Ext)
		}
		byExt[f.Ext] = name
		formats = append(formats, f)
	}
	return formats, nil
}

// imagesOf lists the images that the nodes get.
func (o Options) imagesOf(nodes []spec.Node) ([]Image, error) {
	var images []Image
	for _, n := range nodes {
		formats, err := o.formatsOf(n)
		if err != nil {
			return nil, err
		}
		p, err := profiles.Load(n.Profile)
		if err != nil {
			return nil, err
		}
		for _, f := range formats {
			i := Image{Node: n.Name, Profile: n.Profile, Format: f.Name, File: filepath.Join(o.Out, n.Name+f.Ext)}
			if f.Name == p.Formats[0] {
				if i.Commands, err = p.Commands(p.NewUploadVars(n.Name, i.File)); err != nil {
					return nil, err
				}
			}
			images = append(images, i)
		}
	}
	return images, nil
}

// writeImages writes a node's image in all its formats. The raw one is made in any
// case: the others are read from it.
func writeImages(ctx context.Context, o Options, b *nodeimage.Base, n spec.Node, id nodeimage.Identity, copied func(int64)) (w nodeimage.Written, err error) {
	formats, err := o.formatsOf(n)
	if err != nil {
		return w, err
	}
	raw := filepath.Join(o.Out, ImageName(n.Name))
	if !wants(formats, format.Raw) {
		// A name that the next build removes if this one is killed.
		raw = filepath.Join(o.Out, "."+ImageName(n.Name)+".tmp-0")
		defer func() {
			if e := os.Remove(raw); e != nil && !errors.Is(e, os.ErrNotExist) {
				err = errors.Join(err, e)
			}
		}()
	}
	if w, err = b.Create(ctx, raw, id, copied); err != nil {
		return w, err
	}
	when, err := SourceDate(format.Epoch)
	if err != nil {
		return w, err
	}
	for _, f := range formats {
		if f.Name == format.Raw {
			continue
		}
		dst := filepath.Join(o.Out, n.Name+f.Ext)
		if err := f.Convert(ctx, dst, raw, format.Options{Name: strings.ToLower(n.Name), Time: when, Progress: copied}); err != nil {
			return w, fmt.Errorf("format %s: %w", f.Name, err)
		}
	}
	return w, nil
}

func wants(formats []format.Format, name string) bool {
	for _, f := range formats {
		if f.Name == name {
			return true
		}
	}
	return false
}
