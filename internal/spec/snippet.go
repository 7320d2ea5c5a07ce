package spec

import (
	"go.yaml.in/yaml/v3"

	"github.com/kiln-os/kiln/internal/diag"
	"github.com/kiln-os/kiln/internal/strict"
)

// Snippet is a Butane config of the user: a mapping in the cluster file, or a file.
type Snippet struct {
	// File is a path relative to the cluster file's folder; "" for a snippet that
	// stands in the cluster file.
	File string `json:"file"`
	// Doc and Path are where the snippet, or its file's name, stands.
	Doc  *diag.Document `json:"-"`
	Path diag.Path      `json:"-"`
}

// Roles are settings of all nodes of a role.
type Roles struct {
	ControlPlane RoleSettings `json:"controlPlane"`
	Worker       RoleSettings `json:"worker"`
}

// RoleSettings are settings of all nodes of one role.
type RoleSettings struct {
	Butane []Snippet `json:"butane"`
}

// Snippets returns the snippets of a node in the order in which they are merged:
// the cluster's, its role's, its own.
func (c *Cluster) Snippets(n Node) []Snippet {
	role := c.Roles.Worker.Butane
	if n.Role == RoleControlPlane {
		role = c.Roles.ControlPlane.Butane
	}
	var out []Snippet
	for _, list := range [][]Snippet{c.Butane, role, n.Butane} {
		for _, s := range list {
			if s.Doc != nil { // else it was rejected
				out = append(out, s)
			}
		}
	}
	return out
}

// AllSnippets returns every snippet of the file once.
func (c *Cluster) AllSnippets() []Snippet {
	lists := [][]Snippet{c.Butane, c.Roles.ControlPlane.Butane, c.Roles.Worker.Butane}
	for _, n := range c.Nodes {
		lists = append(lists, n.Butane)
	}
	var out []Snippet
	for _, list := range lists {
		for _, s := range list {
			if s.Doc != nil {
				out = append(out, s)
			}
		}
	}
	return out
}

// decodeSnippet takes a mapping as it is: what is in it is Butane's, and checked where
// Butane is called.
func decodeSnippet(d *strict.Decoder, n *yaml.Node, p diag.Path) any {
	switch {
	case n.Kind == yaml.MappingNode:
		return map[string]any{}
	case n.Kind == yaml.ScalarNode && n.Tag == "!!str" && n.Value != "":
		return map[string]any{"file": n.Value}
	}
	return d.Reject(n, p, "is "+strict.Describe(n)+", not a Butane config", "want a mapping with variant: fcos, or the path of a file with one")
}

// placeSnippets notes where the snippets stand.
func placeSnippets(d *strict.Decoder, c *Cluster) {
	place := func(list []Snippet, p diag.Path) {
		for i := range list {
			if q := p.Child(i); !d.Bad(q) && d.Doc.Has(q) {
				list[i].Doc, list[i].Path = d.Doc, q
			}
		}
	}
	place(c.Butane, diag.Path{"butane"})
	place(c.Roles.ControlPlane.Butane, diag.Path{"roles", "controlPlane", "butane"})
	place(c.Roles.Worker.Butane, diag.Path{"roles", "worker", "butane"})
	for i := range c.Nodes {
		place(c.Nodes[i].Butane, diag.Path{"nodes", i, "butane"})
	}
}
