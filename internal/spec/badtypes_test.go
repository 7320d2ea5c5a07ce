package spec

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/diag"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
)

// wrongValue is what no setting but a mapping can have.
var wrongValue = map[string]any{"wrong": "SECRET"}

// TestEverySettingRefusesWrongTypes gives every setting of every document a value of
// another type: each is a mistake at its place, and none is taken for something else.
func TestEverySettingRefusesWrongTypes(t *testing.T) {
	kinds := map[string]reflect.Type{
		Kind:                 reflect.TypeFor[Cluster](),
		kubeadmapi.Kind:      reflect.TypeFor[kubeadmapi.ClusterConfiguration](),
		kubeadmapi.KindInit:  reflect.TypeFor[kubeadmapi.InitConfiguration](),
		kubeadmapi.KindJoin:  reflect.TypeFor[kubeadmapi.JoinConfiguration](),
		kubeadmapi.KindReset: reflect.TypeFor[kubeadmapi.ResetConfiguration](),
	}
	var count int
	for kind, typ := range kinds {
		for _, s := range typedSettings(typ, nil) {
			count++
			document := map[string]any{"apiVersion": kubeadmapi.APIVersion, "kind": kind}
			text := minimal + "---\n"
			if kind == Kind {
				document, text = map[string]any{}, ""
				if err := yaml.Unmarshal([]byte(minimal), &document); err != nil {
					t.Fatal(err)
				}
			}
			wrong := any(wrongValue)
			if s.mapping {
				wrong = "SECRET"
			}
			put(document, s.path, wrong)
			data, err := yaml.Marshal(document)
			if err != nil {
				t.Fatal(err)
			}
			_, list := Parse("f", append([]byte(text), data...), known)
			if !mentions(list, s.path.String()) {
				t.Errorf("%s: %s = %v: no mistake there, but\n%v", kind, s.path, wrong, list)
			}
			for _, m := range list {
				if m.Line == 0 || m.Column == 0 || m.Message == "" {
					t.Errorf("%s: %s: a mistake without a place: %+v", kind, s.path, m)
				}
			}
		}
	}
	if count < 150 {
		t.Errorf("only %d settings were tried", count)
	}
}

// mentions reports whether a mistake is at the path, or at something in it.
func mentions(list diag.List, path string) bool {
	for _, m := range list {
		if m.Path == path || strings.HasPrefix(m.Path, path+".") || strings.HasPrefix(m.Path, path+"[") {
			return true
		}
	}
	return false
}

type setting struct {
	path    diag.Path
	mapping bool // its value is a mapping
}

// typedSettings lists the settings of a type that end a path, by the names in documents.
func typedSettings(t reflect.Type, at diag.Path) []setting {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	p := reflect.PointerTo(t)
	text := p.Implements(reflect.TypeFor[interface{ UnmarshalText([]byte) error }]())
	own := p.Implements(reflect.TypeFor[json.Unmarshaler]())
	switch {
	case text || own || t == reflect.TypeFor[Snippet]():
		return []setting{{path: at}}
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct && t.Elem() != reflect.TypeFor[Snippet]() && t.Elem() != reflect.TypeFor[bootplan.Patch]():
		return append([]setting{{path: at}}, typedSettings(t.Elem(), at.Child(0))...)
	case t.Kind() == reflect.Map:
		return []setting{{path: at, mapping: true}}
	case t.Kind() != reflect.Struct:
		return []setting{{path: at}}
	}
	var out []setting
	if len(at) > 0 {
		out = append(out, setting{path: at, mapping: true})
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || name == "apiVersion" || name == "kind":
		case f.Anonymous && (name == "" || strings.Contains(options, "inline")):
			for _, s := range typedSettings(f.Type, at) {
				if len(s.path) > len(at) && s.path.String() != "apiVersion" && s.path.String() != "kind" {
					out = append(out, s)
				}
			}
		default:
			// What is Kubernetes' own goes deeper than Kiln looks.
			inner := f.Type
			for inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			if strings.HasPrefix(inner.PkgPath(), "k8s.io/api/") && inner.Kind() == reflect.Struct {
				out = append(out, setting{path: at.Child(name), mapping: true})
				continue
			}
			out = append(out, typedSettings(f.Type, at.Child(name))...)
		}
	}
	return out
}

// put sets the value at a path of a document.
func put(document map[string]any, path diag.Path, value any) {
	var at any = document
	for i, step := range path[:len(path)-1] {
		var next any = map[string]any{}
		if _, index := path[i+1].(int); index {
			next = []any{map[string]any{}}
		}
		switch c := at.(type) {
		case map[string]any:
			if have, ok := c[fmt.Sprint(step)]; ok {
				next = have
			}
			c[fmt.Sprint(step)] = next
			at = next
		case []any:
			at = c[step.(int)]
			continue
		}
	}
	switch last := path[len(path)-1].(type) {
	case string:
		at.(map[string]any)[last] = value
	case int:
		at.([]any)[last] = value
	}
}
