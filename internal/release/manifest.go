// Package release is the payload that comes from official releases: programs by URL
// and container images by registry, each named with its digest in a manifest. It
// reads and checks the manifest, pins what has no digest yet, and fetches what the
// nodes of one architecture need.
//
// Nothing enters the cache under its name before its digest is right, and nothing is
// handed on that is not what the manifest says it is: a program for the architecture,
// of the version.
package release

import (
	"errors"
	"fmt"
	"os"

	"github.com/kiln-os/kiln/internal/diag"
	"github.com/kiln-os/kiln/internal/strict"
)

// APIVersion and Kind identify a manifest.
const (
	APIVersion = "kiln-os.dev/v1alpha1"
	Kind       = "Payload"
)

// Manifest is a payload manifest.
type Manifest struct {
	// File is its path.
	File string
	content
	doc *diag.Document
	raw []byte
}

// content is what the file says.
type content struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	// BaseURL is what URLs of binaries that are not whole stand below.
	BaseURL string `json:"baseURL"`
	// Registry is what image references that begin with a slash stand in.
	Registry string   `json:"registry"`
	Binaries []Binary `json:"binaries"`
	Images   []Image  `json:"images"`
}

// Binary is a file with one program, or an archive with several, for one architecture.
type Binary struct {
	// Name is the program's; an archive may have any.
	Name    string `json:"name"`
	Version string `json:"version"`
	Arch    string `json:"arch"` // GOARCH
	URL     string `json:"url"`
	// SHA256 is required for a build, SHA512 is checked too if it is there; both in
	// hexadecimal.
	SHA256 string `json:"sha256"`
	SHA512 string `json:"sha512"`
	Size   int64  `json:"size"` // bytes; 0 is unknown
	// Members of an archive: its path by program.
	Members map[string]string `json:"members"`
}

// programs lists what the entry holds: member path by program; a plain file's is empty.
func (b Binary) programs() map[string]string {
	if len(b.Members) > 0 {
		return b.Members
	}
	return map[string]string{b.Name: ""}
}

// Image is a container image in a registry.
type Image struct {
	Name    string `json:"name"` // one of the names in needs.go
	Version string `json:"version"`
	// Ref is a reference with the digest of the image, or of the index that has it for
	// each architecture: registry.example.com/pause:3.10@sha256:….
	Ref string `json:"ref"`
}

// Load reads a manifest and reports what is wrong with it. The Manifest is usable
// only if the list is empty. What lacks a digest is a mistake unless unpinned is set.
func Load(file string, unpinned bool) (*Manifest, diag.List) {
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, diag.List{{File: file, Message: "there is no such file", Want: "want a payload manifest, see docs/guide.md; its path counts from the folder of the cluster file"}}
	}
	if err != nil {
		return nil, diag.List{{File: file, Message: err.Error()}}
	}
	return parse(file, data, unpinned)
}

func parse(file string, data []byte, unpinned bool) (*Manifest, diag.List) {
	doc, list := diag.Parse(file, data)
	if doc.Root == nil {
		if len(list) == 0 {
			list.Add(diag.Mistake{File: file, Message: "the file is empty", Want: "want apiVersion, kind, binaries, images"})
		}
		list.Sort()
		return nil, list
	}
	m := &Manifest{File: file, doc: doc, raw: data}
	d := &strict.Decoder{Doc: doc, List: &list}
	d.Decode(&m.content, "a payload manifest", "want apiVersion, kind, binaries, images")
	v := &validator{Decoder: d, m: m, unpinned: unpinned}
	v.validate()
	list.Sort()
	return m, list
}

// place is where a path of the manifest stands: file:line:column.
func (m *Manifest) place(p diag.Path) string {
	at := m.doc.At(p, "", "")
	return fmt.Sprintf("%s:%d:%d", at.File, at.Line, at.Column)
}

// Kubernetes is the version of the Kubernetes programs, such as v1.37.2.
func (m *Manifest) Kubernetes() string {
	for _, b := range m.Binaries {
		for p := range b.programs() {
			if programs[p].name == kubernetes.name {
				return b.Version
			}
		}
	}
	return ""
}

// Missing reports what the nodes of an architecture need and the manifest has not.
func (m *Manifest) Missing(goarch string) diag.List {
	have := map[string]bool{}
	for _, b := range m.Binaries {
		if b.Arch != goarch {
			continue
		}
		for p := range b.programs() {
			have[p] = true
		}
	}
	var list diag.List
	for _, p := range hostPrograms {
		if !have[p] {
			list.Add(m.doc.At(diag.Path{"binaries"}, fmt.Sprintf("there is no %s for %s", p, goarch), "add an entry with its URL, or an archive that has it"))
		}
	}
	for _, n := range images {
		if m.image(n.name) >= 0 {
			continue
		}
		for _, p := range n.programs {
			if !have[p] {
				list.Add(m.doc.At(diag.Path{"images"}, fmt.Sprintf("there is neither an image %s nor a program %s for %s", n.name, p, goarch), "add the image, or the program to binaries"))
			}
		}
	}
	return list
}

// image is the index of the image with the given name, or -1.
func (m *Manifest) image(name string) int {
	for i, img := range m.Images {
		if img.Name == name {
			return i
		}
	}
	return -1
}
