package render

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/coreos/butane/config/common"
	butane "github.com/coreos/butane/config/fcos/v1_4"
	"github.com/coreos/ignition/v2/config/v3_3"
	"github.com/coreos/ignition/v2/config/v3_3/types"
	"github.com/coreos/vcontext/report"
	"go.yaml.in/yaml/v3"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/diag"
	"github.com/kiln-os/kiln/internal/spec"
)

// CheckSnippets reports every mistake in the Butane snippets of a cluster file and
// in the files it names, sorted. c may have mistakes of its own.
func CheckSnippets(c *spec.Cluster) diag.List {
	var list diag.List
	for _, s := range c.AllSnippets() {
		open(s, &list).check(plannedCluster(c))
	}
	if len(list) == 0 {
		for _, n := range c.Nodes {
			checkTogether(c, n, &list)
		}
	}
	list.Sort()
	return list
}

// checkTogether reports what is wrong with the snippets of a node only once they are
// merged, such as a file and a link with the same path. Each is right by itself.
func checkTogether(c *spec.Cluster, n spec.Node, list *diag.List) {
	snippets := c.Snippets(n)
	if len(snippets) < 2 {
		return
	}
	last := snippets[len(snippets)-1]
	bad := func(message string) {
		list.Add(last.Doc.At(last.Path, fmt.Sprintf("together with the snippets before it on node %s: %s", n.Name, message), "each path and name stands for one thing"))
	}
	merged, err := userConfig(c, n)
	if err != nil {
		bad(reason(err)) // a file was changed since it was checked
		return
	}
	text, err := json.Marshal(merged)
	if err != nil {
		bad("it cannot be encoded")
		return
	}
	_, rep, err := v3_3.Parse(text)
	if err := strict("Ignition", rep, err); err != nil {
		bad(err.Error())
	}
}

// userConfig merges the snippets of a node with Ignition's own rules.
func userConfig(c *spec.Cluster, n spec.Node) (types.Config, error) {
	out := types.Config{Ignition: types.Ignition{Version: types.MaxVersion.String()}}
	for _, s := range c.Snippets(n) {
		var list diag.List
		o := open(s, &list)
		o.check(plannedCluster(c))
		if err := list.Err(); err != nil {
			return types.Config{}, err
		}
		out = v3_3.Merge(out, o.ignition)
	}
	return out, nil
}

// plannedCluster is what owned paths depend on.
func plannedCluster(c *spec.Cluster) bootplan.Cluster { return bootplan.Cluster{Kubeadm: c.Kubeadm} }

// opened is a snippet with the place of everything in it.
type opened struct {
	doc      *diag.Document
	base     diag.Path // of the snippet in doc
	root     *yaml.Node
	filesDir string // the cluster file's folder
	list     *diag.List
	ignition types.Config
}

// open reads the file of a snippet that is one. root is nil if that failed.
func open(s spec.Snippet, list *diag.List) *opened {
	o := &opened{doc: s.Doc, base: s.Path, filesDir: filepath.Dir(s.Doc.File), list: list}
	_, o.root, _ = s.Doc.Lookup(s.Path)
	if s.File == "" {
		return o
	}
	name := s.File
	o.root = nil
	if !filepath.IsAbs(name) {
		name = filepath.Join(o.filesDir, name)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		list.Add(s.Doc.At(s.Path, "cannot be read: "+reason(err), "want the path of a Butane config, relative to the cluster file's folder"))
		return o
	}
	doc, mistakes := diag.Parse(name, data)
	*list = append(*list, mistakes...)
	o.doc, o.base, o.root = doc, nil, doc.Root
	return o
}

// reason is an error of the file system without the path.
func reason(err error) string {
	if e := (*os.PathError)(nil); errors.As(err, &e) {
		return e.Err.Error()
	}
	return err.Error()
}

func (o *opened) bad(p diag.Path, want, format string, a ...any) {
	o.list.Add(o.doc.At(append(slices.Clone(o.base), p...), fmt.Sprintf(format, a...), want))
}

// check translates the snippet, and reports what Butane, Ignition and Kiln have to
// say about it. Nothing is translated that could read or fetch what it must not.
func (o *opened) check(c bootplan.Cluster) {
	if o.root == nil {
		return
	}
	before := len(*o.list)
	o.checkVersion()
	text, lines := encode(o.root, nil)
	without := o.refuse()
	var cfg butane.Config
	if err := yaml.Unmarshal(text, &cfg); err != nil {
		without = append(without, o.decodeErrors(err, lines)...)
	}
	if len(without) > 0 {
		// Without what has the wrong type the rest can be checked.
		text, _ = encode(o.root, without)
		cfg = butane.Config{}
		if yaml.Unmarshal(text, &cfg) != nil {
			return
		}
	}
	o.checkLimits(&cfg)
	o.checkOwned(&cfg, c)
	if len(*o.list) > before {
		o.reportAlone(text)
		return
	}
	opts := common.TranslateBytesOptions{Raw: true, TranslateOptions: common.TranslateOptions{FilesDir: o.filesDir, NoResourceAutoCompression: true}}
	ign, rep, err := butane.ToIgn3_3Bytes(text, opts)
	o.report(rep, err)
	if err != nil {
		return
	}
	parsed, rep, err := v3_3.Parse(ign)
	o.report(rep, err)
	o.ignition = parsed
}

// reportAlone has Butane check a snippet that has mistakes, with no right to read
// files.
func (o *opened) reportAlone(text []byte) {
	opts := common.TranslateBytesOptions{Raw: true, TranslateOptions: common.TranslateOptions{NoResourceAutoCompression: true}}
	_, rep, _ := butane.ToIgn3_3Bytes(text, opts)
	// Without a folder, local files are errors, which say nothing about them.
	rep.Entries = slices.DeleteFunc(rep.Entries, func(e report.Entry) bool { return e.Message == common.ErrNoFilesDir.Error() })
	o.report(rep, nil)
}

func (o *opened) checkVersion() {
	for _, want := range []struct{ key, value string }{{"variant", "fcos"}, {"version", "1.4.0"}} {
		p := append(slices.Clone(o.base), want.key)
		if got := o.doc.Text(p); !o.doc.Has(p) {
			o.bad(diag.Path{want.key}, "want "+want.value, "is missing")
		} else if got != want.value {
			o.bad(diag.Path{want.key}, "want "+want.value+", the newest that the Ignition of the nodes reads", "%q is not the %s of snippets", got, want.key)
		}
	}
}

// report turns Butane's and Ignition's findings, warnings among them, into mistakes.
func (o *opened) report(rep report.Report, err error) {
	for _, e := range rep.Entries {
		message, _, _ := strings.Cut(e.Message, "data:") // what follows is a file's content
		var p diag.Path
		for _, step := range e.Context.Path {
			if _, index := step.(int); !index {
				step = fmt.Sprint(step) // keys have a type of their own
			}
			p = append(p, step)
		}
		p = append(slices.Clone(o.base), p...)
		m := o.doc.At(p, message, "")
		if key, unknown := strings.CutPrefix(message, "unused key "); unknown {
			m = o.doc.AtKey(p, fmt.Sprintf("unknown key %q", key), "Butane's variant fcos, version 1.4.0, has no such key here")
		}
		if !slices.ContainsFunc(*o.list, func(x diag.Mistake) bool { return x.Line == m.Line && x.Column == m.Column && x.File == m.File }) {
			o.list.Add(m)
		}
	}
	if err != nil && len(rep.Entries) == 0 && len(*o.list) == 0 {
		message, _, _ := strings.Cut(err.Error(), "\n")
		o.bad(nil, "", "Butane: %s", message)
	}
}

// encode renders a snippet in block style and says which node stands on which line.
// The nodes in without are null.
func encode(root *yaml.Node, without []*yaml.Node) ([]byte, map[int][]*yaml.Node) {
	block := blockStyle(root, without)
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(block); err != nil {
		return nil, nil
	}
	var again yaml.Node
	if err := yaml.Unmarshal(b.Bytes(), &again); err != nil || len(again.Content) != 1 {
		return b.Bytes(), nil
	}
	lines := map[int][]*yaml.Node{}
	var walk func(encoded, original *yaml.Node)
	walk = func(encoded, original *yaml.Node) {
		for i := range encoded.Content {
			if i >= len(original.Content) {
				return
			}
			if encoded.Kind != yaml.MappingNode || i%2 == 1 {
				lines[encoded.Content[i].Line] = append(lines[encoded.Content[i].Line], original.Content[i])
			}
			walk(encoded.Content[i], original.Content[i])
		}
	}
	walk(again.Content[0], root)
	return b.Bytes(), lines
}

// blockStyle is a copy of n without flow style and comments, with null for the nodes
// in without.
func blockStyle(n *yaml.Node, without []*yaml.Node) *yaml.Node {
	if slices.Contains(without, n) {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}
	}
	c := *n
	c.HeadComment, c.LineComment, c.FootComment = "", "", ""
	if c.Kind != yaml.ScalarNode {
		c.Style = 0
	}
	c.Content = nil
	for _, x := range n.Content {
		c.Content = append(c.Content, blockStyle(x, without))
	}
	return &c
}

var typeError = regexp.MustCompile("line (\\d+): cannot unmarshal (!!\\w+)(?: `([^`]*)`)? into (\\S+)")

// decodeErrors reports values of the wrong type, of each of which the library says the
// line, and returns them.
func (o *opened) decodeErrors(err error, lines map[int][]*yaml.Node) (bad []*yaml.Node) {
	found := typeError.FindAllStringSubmatch(err.Error(), -1)
	for _, m := range found {
		line, _ := strconv.Atoi(m[1])
		node := o.root
		for _, n := range lines[line] {
			if n.ShortTag() == m[2] {
				node = n
				break
			}
		}
		bad = append(bad, node)
		o.list.Add(o.doc.AtNode(node, o.pathOf(node), "is "+kinds[m[2]]+", not "+kindOf(m[4]), ""))
	}
	if len(found) == 0 {
		message, _, _ := strings.Cut(strings.TrimPrefix(err.Error(), "yaml: "), "\n")
		o.bad(nil, "", "not a Butane config: %s", message)
	}
	return bad
}

var kinds = map[string]string{"!!str": "text", "!!int": "a number", "!!float": "a number with a fraction", "!!bool": "a truth value", "!!map": "a mapping", "!!seq": "a list", "!!timestamp": "a date"}

// kindOf names a Go type of Butane's.
func kindOf(t string) string {
	switch {
	case strings.HasPrefix(t, "[]"):
		return "a list"
	case t == "int" || t == "uint":
		return "a whole number"
	case t == "bool":
		return "a truth value"
	case t == "string":
		return "text"
	}
	return "a mapping"
}

// pathOf finds a node's path.
func (o *opened) pathOf(want *yaml.Node) diag.Path {
	var find func(n *yaml.Node, p diag.Path) diag.Path
	find = func(n *yaml.Node, p diag.Path) diag.Path {
		if n == want {
			return p
		}
		for i, c := range n.Content {
			var step any = i
			if n.Kind == yaml.MappingNode {
				if i%2 == 0 {
					continue
				}
				step = n.Content[i-1].Value
			}
			if q := find(c, p.Child(step)); q != nil {
				return q
			}
		}
		return nil
	}
	return find(o.root, append(diag.Path{}, o.base...))
}
