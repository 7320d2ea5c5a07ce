package spec

import (
	"net/netip"
	"reflect"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/diag"
	"github.com/kiln-os/kiln/internal/strict"
)

// Known is what the program that reads the file can build.
type Known struct {
	Profiles []string
	Versions []string // of Kubernetes, compiled: "v1.37.2"
	// Release reads a payload manifest, whose path is as the cluster file has it, and
	// returns its version of Kubernetes and what is wrong with it. Nil checks nothing.
	Release func(manifest string) (version string, mistakes diag.List)
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
	d := &strict.Decoder{Doc: doc, Forms: textForms}
	c := &Cluster{}
	d.Decode(c, "a cluster file", "want apiVersion, kind, name, nodes")
	c.applyDefaults()
	v := &validator{doc: doc, list: &d.List, isBad: d.Bad, c: c, known: known}
	v.validate()
	d.List.Sort()
	return c, d.List
}

// textForms says how values of the types that parse themselves are written.
var textForms = map[reflect.Type][2]string{
	reflect.TypeFor[netip.Prefix]():      {"an address with a prefix length", "such as 10.0.2.15/24"},
	reflect.TypeFor[netip.Addr]():        {"an IP address", "such as 10.0.2.2"},
	reflect.TypeFor[Duration]():          {"a duration of 0s or more", "such as 24h or 90m"},
	reflect.TypeFor[bootplan.Duration](): {"a duration above 0s", "such as 30m"},
}
