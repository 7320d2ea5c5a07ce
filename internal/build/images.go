package build

import (
	"strings"

	"github.com/kiln-os/kiln/images/oci"
	"github.com/kiln-os/kiln/images/podimages"
	"github.com/kiln-os/kiln/images/tree"
)

// imagesDir holds the container images; firstboot gives them to containerd.
const imagesDir = "usr/share/kiln/images"

// addImages composes the container images out of the node's packages and the
// payload, puts them into t, and returns their names.
func addImages(t *tree.Tree, in inputs) ([]string, error) {
	images, err := podimages.Images(t, in.arch, in.payload.programs, in.payload.images)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, i := range images {
		names = append(names, i.Ref)
	}
	return names, oci.WriteLayout(t, imagesDir, images, in.time)
}

// shareFiles makes the files of container layers hard links to the same files of
// the node, or of other layers: the page cache holds a file once, so what the
// kubelet has read the API server need not read. usr is the tree of /usr.
func shareFiles(usr *tree.Tree) {
	type identity struct {
		content  tree.HostFile
		mode     uint32
		uid, gid int
	}
	layers := strings.TrimPrefix(imagesDir, "usr/") + "/"
	first := map[identity]string{}
	// The function that is called cannot fail.
	_ = usr.Walk(func(p string, e *tree.Entry) error {
		content, ok := e.Content.(tree.HostFile)
		// Nodes copy what is in the factory: such a file is not the same for long.
		if e.Type != tree.File || !ok || len(e.Xattrs) > 0 || strings.HasPrefix(p, "share/factory/") {
			return nil
		}
		id := identity{content, e.Mode, e.UID, e.GID}
		target, seen := first[id]
		switch {
		case !seen:
			first[id] = p
		case strings.HasPrefix(p, layers):
			usr.Set(p, &tree.Entry{Type: tree.Hardlink, Link: target})
		}
		return nil
	})
}
