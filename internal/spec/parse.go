package spec

import (
	"github.com/kiln-os/kiln/internal/diag"
)

// Known is what the program that reads the file can build.
type Known struct {
	Profiles []string
	Versions []string // of Kubernetes: "v1.37.2"
}

// Parse reads a cluster file, applies defaults and validates. filename is only
// for messages. The Cluster is usable only if the list is empty; the list is sorted.
func Parse(filename string, data []byte, known Known) (*Cluster, diag.List) {
	doc, list := diag.Parse(filename, data)
	if doc.Root == nil {
		if len(list) == 0 {
			list.Add(diag.Mistake{File: filename, Message: "the file is empty"})
		}
		list.Sort()
		return &Cluster{}, list
	}
	d := &decoder{doc: doc, bad: map[string]bool{}}
	c := &Cluster{}
	d.decode(c)
	c.applyDefaults()
	v := &validator{decoder: d, c: c, known: known}
	v.validate()
	d.list.Sort()
	return c, d.list
}
