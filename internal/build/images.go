package build

import (
	"github.com/kiln-os/kiln/images/oci"
	"github.com/kiln-os/kiln/images/podimages"
	"github.com/kiln-os/kiln/images/tree"
)

// imagesDir holds the container images as one OCI layout; firstboot imports it.
const imagesDir = "usr/share/kiln/images"

// addImages composes the container images out of the node's packages and the
// payload, puts them into t, and returns their names.
func addImages(t *tree.Tree, in inputs) ([]string, error) {
	images, err := podimages.Images(t, in.arch, in.payload)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, i := range images {
		names = append(names, i.Ref)
	}
	return names, oci.WriteLayout(t, imagesDir, images, in.time)
}
