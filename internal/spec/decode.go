package spec

import (
	"encoding"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/diag"
)

// decoder turns a document into a Go value, such as a Cluster. It walks nodes and Go types side by
// side, so that an unknown key or a wrong type costs its own value only: the rest
// is still decoded and validated.
type decoder struct {
	doc  *diag.Document
	list *diag.List // of all documents
	// bad holds the paths whose value was dropped; nothing below them is reported again.
	bad map[string]bool
}

// decode fills into, a pointer to a struct, from the document.
func (d *decoder) decode(into any, what, want string) {
	if d.doc.Root.Kind != yaml.MappingNode {
		d.reject(d.doc.Root, nil, what+" is a mapping, this is "+describe(d.doc.Root), want)
		return
	}
	clean, err := json.Marshal(d.value(d.doc.Root, reflect.TypeOf(into).Elem(), nil))
	if err == nil {
		err = sigsyaml.UnmarshalStrict(clean, into)
	}
	if err != nil {
		d.list.Add(d.doc.At(nil, "cannot be decoded: "+err.Error(), ""))
	}
}

// reject reports a node whose value cannot be used.
func (d *decoder) reject(n *yaml.Node, p diag.Path, message, want string) any {
	d.bad[p.String()] = true
	d.list.Add(d.doc.AtNode(n, p, message, want))
	return nil
}

// isBad reports whether p or something above it was rejected.
func (d *decoder) isBad(p diag.Path) bool {
	for i := len(p); i >= 0; i-- {
		if d.bad[p[:i].String()] {
			return true
		}
	}
	return false
}

var (
	textType    = reflect.TypeFor[encoding.TextUnmarshaler]()
	jsonType    = reflect.TypeFor[json.Unmarshaler]()
	snippetType = reflect.TypeFor[Snippet]()
)

// textForms says how values of the types that parse themselves are written.
var textForms = map[reflect.Type][2]string{
	reflect.TypeFor[netip.Prefix]():      {"an address with a prefix length", "such as 10.0.2.15/24"},
	reflect.TypeFor[netip.Addr]():        {"an IP address", "such as 10.0.2.2"},
	reflect.TypeFor[Duration]():          {"a duration of 0s or more", "such as 24h or 90m"},
	reflect.TypeFor[bootplan.Duration](): {"a duration above 0s", "such as 30m"},
	reflect.TypeFor[metav1.Duration]():   {"a duration", "such as 90s"},
	reflect.TypeFor[resource.Quantity](): {"a quantity", "such as 100Mi"},
}

// value checks n against t and returns what encoding/json makes of it; nil is
// absent or rejected.
func (d *decoder) value(n *yaml.Node, t reflect.Type, p diag.Path) any {
	if n.Tag == "!!null" {
		return nil
	}
	if t.Kind() == reflect.Pointer {
		return d.value(n, t.Elem(), p)
	}
	switch {
	case t == snippetType:
		return d.snippet(n, p)
	case reflect.PointerTo(t).Implements(textType):
		return d.text(n, t, p)
	case reflect.PointerTo(t).Implements(jsonType):
		return d.ownForm(n, t, p)
	}
	switch t.Kind() {
	case reflect.Bool:
		if n.Tag != "!!bool" {
			return d.reject(n, p, "is "+describe(n)+", not a truth value", "want true or false")
		}
		return n.Value == "true"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Float32, reflect.Float64:
		return d.number(n, t, p)
	case reflect.Interface:
		return plain(n)
	case reflect.Struct:
		return d.structure(n, t, p)
	case reflect.Map:
		return d.mapping(n, t, p)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			return d.reject(n, p, "is "+describe(n)+", not a list", "want [a, b], or one item a line after a dash")
		}
		out := make([]any, len(n.Content))
		for i, item := range n.Content {
			q := p.Child(i)
			if item.Tag == "!!null" {
				d.reject(item, q, "the list item is empty", "remove it or give it a value")
				continue
			}
			// A rejected item stays, empty, so that the indexes of the others do not move.
			out[i] = d.value(item, t.Elem(), q)
		}
		return out
	case reflect.String:
		if n.Kind != yaml.ScalarNode {
			return d.reject(n, p, "is "+describe(n)+", not text", "")
		}
		switch n.Tag {
		case "!!int", "!!float", "!!bool":
			return d.reject(n, p, "is "+describe(n)+", not text", fmt.Sprintf("put it in quotes: %q", n.Value))
		}
		return n.Value
	}
	return d.reject(n, p, "has a type this program cannot decode: "+t.String(), "")
}

// number checks that n is a number that fits into t.
func (d *decoder) number(n *yaml.Node, t reflect.Type, p diag.Path) any {
	if n.Tag != "!!int" && n.Tag != "!!float" {
		return d.reject(n, p, "is "+describe(n)+", not a number", "")
	}
	v := reflect.New(t)
	if err := n.Decode(v.Interface()); err != nil {
		return d.reject(n, p, fmt.Sprintf("%s is not a number that fits here", n.Value), "want a number of the type "+t.String())
	}
	if t.Kind() == reflect.Float32 || t.Kind() == reflect.Float64 {
		if f := v.Elem().Float(); math.IsNaN(f) || math.IsInf(f, 0) {
			return d.reject(n, p, n.Value+" is not a number that fits here", "want a finite number")
		}
	}
	return v.Interface()
}

// ownForm checks n against a type that decodes itself from JSON.
func (d *decoder) ownForm(n *yaml.Node, t reflect.Type, p diag.Path) any {
	form, ok := textForms[t]
	if !ok {
		form = [2]string{"a " + t.Name(), ""}
	}
	text, err := json.Marshal(plain(n))
	if err == nil {
		err = json.Unmarshal(text, reflect.New(t).Interface())
	}
	switch {
	case err != nil && n.Kind == yaml.ScalarNode:
		return d.reject(n, p, fmt.Sprintf("%q is not %s", n.Value, form[0]), form[1])
	case err != nil:
		return d.reject(n, p, "is "+describe(n)+", not "+form[0], form[1])
	}
	return json.RawMessage(text)
}

// plain is what a node stands for without any type in mind.
func plain(n *yaml.Node) any {
	var v any
	if n.Decode(&v) != nil {
		return n.Value
	}
	return v
}

func (d *decoder) text(n *yaml.Node, t reflect.Type, p diag.Path) any {
	form, ok := textForms[t]
	if !ok {
		form = [2]string{"a " + t.Name(), ""}
	}
	if n.Kind != yaml.ScalarNode {
		return d.reject(n, p, "is "+describe(n)+", not "+form[0], form[1])
	}
	v := reflect.New(t)
	// netip takes empty text for the zero value.
	if err := v.Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(n.Value)); err != nil || n.Value == "" {
		return d.reject(n, p, fmt.Sprintf("%q is not %s", n.Value, form[0]), form[1])
	}
	return n.Value
}

func (d *decoder) structure(n *yaml.Node, t reflect.Type, p diag.Path) any {
	if n.Kind != yaml.MappingNode {
		want := "want the keys " + strings.Join(keys(t), ", ")
		if len(keys(t)) > manyKeys {
			want = ""
		}
		return d.reject(n, p, "is "+describe(n)+", not a mapping", want)
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
			if hint := removedKeys[p.Child(key.Value).String()]; hint != "" && t != reflect.TypeFor[Cluster]() {
				want = hint
			} else if s := nearest(key.Value, keys(t)); s != "" {
				want = "did you mean " + s + "?"
			}
			d.reject(key, p.Child(key.Value), fmt.Sprintf("unknown key %q", key.Value), want)
			continue
		}
		if v := d.value(val, ft, p.Child(key.Value)); v != nil {
			out[key.Value] = v
		}
	}
	return out
}

func (d *decoder) mapping(n *yaml.Node, t reflect.Type, p diag.Path) any {
	if n.Kind != yaml.MappingNode {
		return d.reject(n, p, "is "+describe(n)+", not a mapping", "want key: value")
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
func (d *decoder) pairs(n *yaml.Node, p diag.Path) func(func(k, v *yaml.Node) bool) {
	return func(yield func(k, v *yaml.Node) bool) {
		first := map[string]int{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			if key.Kind != yaml.ScalarNode {
				d.reject(key, p, "a key is "+describe(key), "want text")
				continue
			}
			if line, dup := first[key.Value]; dup {
				// The value of the first one stands.
				d.list.Add(d.doc.AtNode(key, p.Child(key.Value), fmt.Sprintf("key %q is there twice", key.Value), fmt.Sprintf("the first one is in line %d", line)))
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

// describe names the kind of a node.
func describe(n *yaml.Node) string {
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

// nearest returns the candidate that s was probably meant to be, or "".
func nearest(s string, candidates []string) string {
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
