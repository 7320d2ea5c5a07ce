// Package strict decodes YAML documents that people wrote: an unknown key, a wrong
// type or a key that is there twice is a mistake with its place, and costs its own
// value only, so that one run reports every mistake.
package strict

import (
	"encoding"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/internal/diag"
)

// Decoder turns a document into a value of a Go type. It walks nodes and Go types
// side by side, so that an unknown key or a wrong type costs its own value only: the
// rest is still decoded and validated.
type Decoder struct {
	Doc *diag.Document
	// List gets the mistakes. Decoders of one file may share it.
	List *diag.List
	// Forms says how values of types that parse themselves are written: what a value
	// is, and an example ("an IP address", "such as 10.0.2.2").
	Forms map[reflect.Type][2]string
	// Special decodes the values of a type: it returns what encoding/json makes of the
	// node, or what Reject returns.
	Special map[reflect.Type]func(d *Decoder, n *yaml.Node, p diag.Path) any
	// Hints says what to write instead of a key that is unknown now, by its path.
	Hints map[string]string
	// bad holds the paths whose value was dropped; nothing below them is reported again.
	bad map[string]bool
}

// Decode fills into, a pointer to a struct, from the document. The struct's fields
// have json tags. what names the kind of document, want its first keys.
func (d *Decoder) Decode(into any, what, want string) {
	if d.Doc.Root.Kind != yaml.MappingNode {
		d.Reject(d.Doc.Root, nil, what+" is a mapping, this is "+Describe(d.Doc.Root), want)
		return
	}
	clean, err := json.Marshal(d.value(d.Doc.Root, reflect.TypeOf(into).Elem(), nil))
	if err == nil {
		err = sigsyaml.UnmarshalStrict(clean, into)
	}
	if err != nil {
		d.List.Add(d.Doc.At(nil, "cannot be decoded: "+err.Error(), ""))
	}
}

// Reject reports a node whose value cannot be used.
func (d *Decoder) Reject(n *yaml.Node, p diag.Path, message, want string) any {
	d.drop(p)
	d.List.Add(d.Doc.AtNode(n, p, message, want))
	return nil
}

// RejectAt reports the value at p, or the lack of it.
func (d *Decoder) RejectAt(p diag.Path, message, want string) {
	d.drop(p)
	d.List.Add(d.Doc.At(p, message, want))
}

func (d *Decoder) drop(p diag.Path) {
	if d.bad == nil {
		d.bad = map[string]bool{}
	}
	d.bad[p.String()] = true
}

// Bad reports whether p or something above it was rejected.
func (d *Decoder) Bad(p diag.Path) bool {
	for i := len(p); i >= 0; i-- {
		if d.bad[p[:i].String()] {
			return true
		}
	}
	return false
}

var (
	textType = reflect.TypeFor[encoding.TextUnmarshaler]()
	jsonType = reflect.TypeFor[json.Unmarshaler]()
)

// value checks n against t and returns what encoding/json makes of it; nil is
// absent or rejected.
func (d *Decoder) value(n *yaml.Node, t reflect.Type, p diag.Path) any {
	if n.Tag == "!!null" {
		return nil
	}
	if t.Kind() == reflect.Pointer {
		return d.value(n, t.Elem(), p)
	}
	switch {
	case d.Special[t] != nil:
		return d.Special[t](d, n, p)
	case reflect.PointerTo(t).Implements(textType):
		return d.text(n, t, p)
	case reflect.PointerTo(t).Implements(jsonType):
		return d.ownForm(n, t, p)
	}
	switch t.Kind() {
	case reflect.Bool:
		if n.Tag != "!!bool" {
			return d.Reject(n, p, "is "+Describe(n)+", not a truth value", "want true or false")
		}
		return n.Value == "true"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Float32, reflect.Float64:
		return d.number(n, t, p)
	case reflect.Interface:
		return Plain(n)
	case reflect.Struct:
		return d.structure(n, t, p)
	case reflect.Map:
		return d.mapping(n, t, p)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			return d.Reject(n, p, "is "+Describe(n)+", not a list", "want [a, b], or one item a line after a dash")
		}
		out := make([]any, len(n.Content))
		for i, item := range n.Content {
			q := p.Child(i)
			if item.Tag == "!!null" {
				d.Reject(item, q, "the list item is empty", "remove it or give it a value")
				continue
			}
			// A rejected item stays, empty, so that the indexes of the others do not move.
			out[i] = d.value(item, t.Elem(), q)
		}
		return out
	case reflect.String:
		if n.Kind != yaml.ScalarNode {
			return d.Reject(n, p, "is "+Describe(n)+", not text", "")
		}
		switch n.Tag {
		case "!!int", "!!float", "!!bool":
			return d.Reject(n, p, "is "+Describe(n)+", not text", fmt.Sprintf("put it in quotes: %q", n.Value))
		}
		return n.Value
	}
	return d.Reject(n, p, "has a type this program cannot decode: "+t.String(), "")
}

// number checks that n is a number that fits into t.
func (d *Decoder) number(n *yaml.Node, t reflect.Type, p diag.Path) any {
	if n.Tag != "!!int" && n.Tag != "!!float" {
		what := "a number"
		if t.Kind() != reflect.Float32 && t.Kind() != reflect.Float64 {
			what = "a whole number"
		}
		return d.Reject(n, p, "is "+Describe(n)+", not "+what, "")
	}
	v := reflect.New(t)
	if err := n.Decode(v.Interface()); err != nil {
		return d.Reject(n, p, fmt.Sprintf("%s is not a number that fits here", n.Value), "want a number of the type "+t.String())
	}
	if t.Kind() == reflect.Float32 || t.Kind() == reflect.Float64 {
		if f := v.Elem().Float(); math.IsNaN(f) || math.IsInf(f, 0) {
			return d.Reject(n, p, n.Value+" is not a number that fits here", "want a finite number")
		}
	}
	return v.Interface()
}

// ownForm checks n against a type that decodes itself from JSON.
func (d *Decoder) ownForm(n *yaml.Node, t reflect.Type, p diag.Path) any {
	form, ok := d.Forms[t]
	if !ok {
		form = [2]string{"a " + t.Name(), ""}
	}
	text, err := json.Marshal(Plain(n))
	if err == nil {
		err = json.Unmarshal(text, reflect.New(t).Interface())
	}
	switch {
	case err != nil && n.Kind == yaml.ScalarNode:
		return d.Reject(n, p, fmt.Sprintf("%q is not %s", n.Value, form[0]), form[1])
	case err != nil:
		return d.Reject(n, p, "is "+Describe(n)+", not "+form[0], form[1])
	}
	return json.RawMessage(text)
}

// Plain is what a node stands for without any type in mind.
func Plain(n *yaml.Node) any {
	var v any
	if n.Decode(&v) != nil {
		return n.Value
	}
	return v
}

func (d *Decoder) text(n *yaml.Node, t reflect.Type, p diag.Path) any {
	form, ok := d.Forms[t]
	if !ok {
		form = [2]string{"a " + t.Name(), ""}
	}
	if n.Kind != yaml.ScalarNode {
		return d.Reject(n, p, "is "+Describe(n)+", not "+form[0], form[1])
	}
	v := reflect.New(t)
	// netip takes empty text for the zero value.
	if err := v.Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(n.Value)); err != nil || n.Value == "" {
		return d.Reject(n, p, fmt.Sprintf("%q is not %s", n.Value, form[0]), form[1])
	}
	return n.Value
}

func (d *Decoder) structure(n *yaml.Node, t reflect.Type, p diag.Path) any {
	if n.Kind != yaml.MappingNode {
		want := "want the keys " + strings.Join(keys(t), ", ")
		if len(keys(t)) > manyKeys {
			want = ""
		}
		return d.Reject(n, p, "is "+Describe(n)+", not a mapping", want)
	}
	fields := map[string]reflect.Type{}
	for _, f := range fieldsOf(t) {
		fields[jsonKey(f)] = f.Type
	}
	out := map[string]any{}
	for key, val := range d.pairs(n, p) {
		ft, ok := fields[key.Value]
		if !ok {
			want := "want one of " + strings.Join(keys(t), ", ")
			if len(fields) > manyKeys {
				want = ""
			}
			if hint := d.Hints[p.Child(key.Value).String()]; hint != "" {
				want = hint
			} else if s := Nearest(key.Value, keys(t)); s != "" {
				want = "did you mean " + s + "?"
			}
			d.Reject(key, p.Child(key.Value), fmt.Sprintf("unknown key %q", key.Value), want)
			continue
		}
		if v := d.value(val, ft, p.Child(key.Value)); v != nil {
			out[key.Value] = v
		}
	}
	return out
}

func (d *Decoder) mapping(n *yaml.Node, t reflect.Type, p diag.Path) any {
	if n.Kind != yaml.MappingNode {
		return d.Reject(n, p, "is "+Describe(n)+", not a mapping", "want key: value")
	}
	out := map[string]any{}
	for key, val := range d.pairs(n, p) {
		if v := d.value(val, t.Elem(), p.Child(key.Value)); v != nil {
			out[key.Value] = v
		}
	}
	return out
}

// pairs yields the key and value nodes of a mapping, without duplicates and
// without keys that are no text; those are reported.
func (d *Decoder) pairs(n *yaml.Node, p diag.Path) func(func(k, v *yaml.Node) bool) {
	return func(yield func(k, v *yaml.Node) bool) {
		first := map[string]int{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			if key.Kind != yaml.ScalarNode {
				d.Reject(key, p, "a key is "+Describe(key), "want text")
				continue
			}
			if line, dup := first[key.Value]; dup {
				// The value of the first one stands.
				d.List.Add(d.Doc.AtNode(key, p.Child(key.Value), fmt.Sprintf("key %q is there twice", key.Value), fmt.Sprintf("the first one is in line %d", line)))
				continue
			}
			first[key.Value] = key.Line
			if !yield(key, n.Content[i+1]) {
				return
			}
		}
	}
}

// manyKeys is how many keys a message does not list any more.
const manyKeys = 20

// fieldsOf lists the fields of a struct type that have keys, those of embedded
// structs in their place.
func fieldsOf(t reflect.Type) []reflect.StructField {
	var out []reflect.StructField
	for i := range t.NumField() {
		switch f := t.Field(i); {
		case f.Anonymous && jsonKey(f) == "":
			out = append(out, fieldsOf(f.Type)...)
		case jsonKey(f) != "-":
			out = append(out, f)
		}
	}
	return out
}

// keys lists the keys of a struct type in the order of its fields.
func keys(t reflect.Type) []string {
	var out []string
	for _, f := range fieldsOf(t) {
		out = append(out, jsonKey(f))
	}
	return out
}

func jsonKey(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// Describe names the kind of a node.
func Describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.Tag {
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "a truth value"
	case "!!null":
		return "empty"
	}
	return "text"
}

// Nearest returns the candidate that s was probably meant to be, or "".
func Nearest(s string, candidates []string) string {
	best, bestDist := "", min(1+max(2, len(s)/3), len(s))
	for _, c := range candidates {
		if dist := distance(strings.ToLower(s), strings.ToLower(c)); dist < bestDist {
			best, bestDist = c, dist
		}
	}
	return best
}

// distance is the Levenshtein distance of two strings.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		prev := slices.Clone(row)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(prev[j+1]+1, row[j]+1, prev[j]+cost)
		}
	}
	return row[len(b)]
}
