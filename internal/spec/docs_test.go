package spec

import (
	"encoding"
	"os"
	"reflect"
	"strings"
	"testing"
)

// TestReferenceIsComplete holds docs/cluster-file.md to the types: every setting
// has its line, and every line is a setting.
func TestReferenceIsComplete(t *testing.T) {
	text, err := os.ReadFile("../../docs/cluster-file.md")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	settings(reflect.TypeFor[Cluster](), "", want)
	got := map[string]bool{}
	for _, line := range strings.Split(string(text), "\n") {
		if cells := strings.Split(line, "|"); len(cells) > 4 && strings.Contains(cells[1], "`") {
			got[strings.Trim(cells[1], " `")] = true
		}
	}
	for s := range want {
		if !got[s] {
			t.Errorf("%s is not documented", s)
		}
	}
	for s := range got {
		if !want[s] && s != "nodes" {
			t.Errorf("%s is documented, but there is no such setting", s)
		}
	}
}

func settings(t reflect.Type, prefix string, into map[string]bool) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, ft := prefix+key(f), f.Type
		if ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		isText := reflect.PointerTo(ft).Implements(textType)
		switch {
		case ft.Kind() == reflect.Struct && !isText:
			settings(ft, name+".", into)
		case ft.Kind() == reflect.Slice && ft.Elem().Kind() == reflect.Struct && !reflect.PointerTo(ft.Elem()).Implements(textType):
			settings(ft.Elem(), name+"[].", into)
			if name == "nodes[].taints" { // a list whose being empty has a meaning
				into[name] = true
			}
		default:
			into[name] = true
		}
	}
}

var textType = reflect.TypeFor[encoding.TextUnmarshaler]()

func key(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}
