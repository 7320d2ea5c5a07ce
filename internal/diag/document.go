package diag

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Path is a place in a document: strings are keys, ints are list indexes.
type Path []any

// Child is p with further steps.
func (p Path) Child(steps ...any) Path { return append(p[:len(p):len(p)], steps...) }

var plainKey = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*$`)

// String writes nodes[0].labels["example.org/rack"].
func (p Path) String() string {
	var b strings.Builder
	for _, s := range p {
		switch s := s.(type) {
		case int:
			fmt.Fprintf(&b, "[%d]", s)
		case string:
			switch {
			case !plainKey.MatchString(s):
				fmt.Fprintf(&b, "[%q]", s)
			case b.Len() == 0:
				b.WriteString(s)
			default:
				b.WriteString("." + s)
			}
		}
	}
	return b.String()
}

// Document is a parsed YAML file that knows where everything stands.
type Document struct {
	File  string
	Root  *yaml.Node // the document's value; nil if there is none
	lines []string
}

var (
	syntaxLine = regexp.MustCompile(`^yaml: line (\d+): `)
	yamlPrefix = regexp.MustCompile(`^yaml: (line \d+: )?`)
)

// Parse reads a file with one YAML document. Bad syntax, a second document, anchors,
// aliases, tags and merge keys are mistakes; Root is nil then. Without aliases the
// nodes are a tree, and as large as the file.
func Parse(file string, data []byte) (*Document, List) {
	docs, list := ParseAll(file, data)
	if len(list) == 0 && len(docs) == 1 {
		return docs[0], nil
	}
	d := newDocument(file, data)
	switch {
	case len(docs) > 1:
		m := docs[1].AtNode(docs[1].Root, nil, "a second YAML document begins here", "want one document in the file")
		m.Width = 1
		list.Add(m)
	case len(list) == 0:
		list.Add(Mistake{File: file, Message: "the file is empty"})
	}
	return d, list
}

// ParseAll reads a file of YAML documents, separated by lines of three dashes, and
// leaves out empty ones. Documents with mistakes of the kinds that Parse names are
// not among those it returns.
func ParseAll(file string, data []byte) ([]*Document, List) {
	base := newDocument(file, data)
	var list List
	if !utf8.Valid(data) {
		list.Add(Mistake{File: file, Message: "the file is not UTF-8 text", Want: "want YAML in UTF-8"})
		return nil, list
	}
	var docs []*Document
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var node yaml.Node
		err := dec.Decode(&node)
		if errors.Is(err, io.EOF) {
			return docs, list
		}
		if err != nil {
			list.Add(base.syntax(err))
			return docs, list
		}
		if len(node.Content) != 1 || node.Content[0].Tag == "!!null" {
			continue
		}
		before := len(list)
		base.checkPlain(&node, &list)
		if len(list) == before {
			docs = append(docs, &Document{File: file, Root: node.Content[0], lines: base.lines})
		}
	}
}

func newDocument(file string, data []byte) *Document {
	return &Document{File: file, lines: strings.Split(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n")}
}

// syntax turns an error of the YAML library into a mistake.
func (d *Document) syntax(err error) Mistake {
	line := 1
	if m := syntaxLine.FindStringSubmatch(err.Error()); m != nil {
		line, _ = strconv.Atoi(m[1])
	}
	line = min(max(line, 1), len(d.lines))
	src := d.lines[line-1]
	indent := utf8.RuneCountInString(src) - utf8.RuneCountInString(strings.TrimLeft(src, " \t"))
	return d.mistake(line, indent+1, utf8.RuneCountInString(strings.TrimSpace(src)), "",
		"not valid YAML: "+yamlPrefix.ReplaceAllString(err.Error(), ""), "")
}

// checkPlain refuses what makes a document more than a tree.
func (d *Document) checkPlain(n *yaml.Node, list *List) {
	switch {
	case n.Kind == yaml.AliasNode:
		list.Add(d.mistake(n.Line, n.Column, len(n.Value)+1, "", "aliases are not supported", "write the value out"))
		return
	case n.Anchor != "":
		list.Add(d.mistake(n.Line, n.Column, len(n.Anchor)+1, "", "anchors are not supported", "write the value out"))
	case n.Style&yaml.TaggedStyle != 0:
		list.Add(d.mistake(n.Line, n.Column, len(n.Tag), "", "tags are not supported", "write the plain value, with quotes if it is text"))
	case n.Tag == "!!merge":
		list.Add(d.mistake(n.Line, n.Column, len(n.Value), "", "merge keys are not supported", "write the keys out"))
	}
	for _, c := range n.Content {
		d.checkPlain(c, list)
	}
}

func (d *Document) mistake(line, col, width int, path, message, want string) Mistake {
	m := Mistake{File: d.File, Line: line, Column: col, Path: path, Message: message, Want: want, Width: width}
	if line >= 1 && line <= len(d.lines) {
		m.Source = strings.TrimRight(d.lines[line-1], " \t\r")
	}
	return m
}

// Lookup returns the key node (nil in a list) and the value node at p, and
// whether p is in the document.
func (d *Document) Lookup(p Path) (key, value *yaml.Node, ok bool) {
	k, v, n := d.deepest(p)
	return k, v, v != nil && n == len(p)
}

// deepest follows p as far as the document goes, and says how many steps that were.
func (d *Document) deepest(p Path) (key, value *yaml.Node, steps int) {
	value = d.Root
	for i, s := range p {
		k, v := child(value, s)
		if v == nil {
			return key, value, i
		}
		key, value = k, v
	}
	return key, value, len(p)
}

func child(n *yaml.Node, step any) (key, value *yaml.Node) {
	if n == nil {
		return nil, nil
	}
	switch s := step.(type) {
	case string:
		if n.Kind == yaml.MappingNode {
			for i := 0; i+1 < len(n.Content); i += 2 {
				if n.Content[i].Value == s {
					return n.Content[i], n.Content[i+1]
				}
			}
		}
	case int:
		if n.Kind == yaml.SequenceNode && s >= 0 && s < len(n.Content) {
			return nil, n.Content[s]
		}
	}
	return nil, nil
}

// Has reports whether the document has a value other than null at p.
func (d *Document) Has(p Path) bool {
	_, v, ok := d.Lookup(p)
	return ok && v.Tag != "!!null"
}

// Text is the scalar at p, "" if there is none.
func (d *Document) Text(p Path) string {
	_, v, ok := d.Lookup(p)
	if !ok || v.Kind != yaml.ScalarNode || v.Tag == "!!null" {
		return ""
	}
	return v.Value
}

// At is a mistake in the value at p. What is missing is reported where it should be.
func (d *Document) At(p Path, message, want string) Mistake {
	key, value, steps := d.deepest(p)
	n := value
	if key != nil && (steps < len(p) || n.Kind != yaml.ScalarNode || n.Tag == "!!null" && n.Value == "") {
		// Below a key nothing of its own is worth underlining: point at the key.
		n = key
	}
	return d.AtNode(n, p, message, want)
}

// AtKey is a mistake in the key at p.
func (d *Document) AtKey(p Path, message, want string) Mistake {
	key, value, _ := d.deepest(p)
	if key == nil {
		key = value
	}
	return d.AtNode(key, p, message, want)
}

// AtNode is a mistake in a node, reported under the path p.
func (d *Document) AtNode(n *yaml.Node, p Path, message, want string) Mistake {
	if n == nil {
		return Mistake{File: d.File, Path: p.String(), Message: message, Want: want}
	}
	return d.mistake(n.Line, n.Column, d.width(n), p.String(), message, want)
}

// width is the number of characters of a node on its line.
func (d *Document) width(n *yaml.Node) int {
	if n.Kind != yaml.ScalarNode {
		return 1
	}
	w := utf8.RuneCountInString(n.Value)
	switch n.Style &^ yaml.TaggedStyle {
	case yaml.SingleQuotedStyle, yaml.DoubleQuotedStyle:
		return w + 2
	case yaml.LiteralStyle, yaml.FoldedStyle:
		return 1
	}
	return w
}
