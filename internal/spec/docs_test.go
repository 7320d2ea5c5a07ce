package spec

import (
	"encoding"
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/internal/kubeadmapi"
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
	documents := map[string]reflect.Type{
		kubeadmapi.Kind:      reflect.TypeFor[kubeadmapi.ClusterConfiguration](),
		kubeadmapi.KindInit:  reflect.TypeFor[kubeadmapi.InitConfiguration](),
		kubeadmapi.KindJoin:  reflect.TypeFor[kubeadmapi.JoinConfiguration](),
		kubeadmapi.KindReset: reflect.TypeFor[kubeadmapi.ResetConfiguration](),
	}
	for kind, d := range documents {
		settings(d, kind+".", want)
		delete(want, kind+".apiVersion")
		delete(want, kind+".kind")
	}
	got := map[string]bool{}
	for _, line := range strings.Split(string(text), "\n") {
		cells := strings.Split(line, "|")
		if len(cells) < 2 {
			continue
		}
		name := strings.Trim(cells[1], " `")
		kind, _, _ := strings.Cut(name, ".")
		if strings.Contains(cells[1], "`") && (len(cells) > 4 || documents[kind] != nil) {
			got[name] = true
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
	for _, f := range reflect.VisibleFields(t) {
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if key == "" || key == "-" { // an embedded struct, or none of the file's
			continue
		}
		name, ft := prefix+key, f.Type
		if ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		isText := reflect.PointerTo(ft).Implements(textType)
		switch {
		case ft == reflect.TypeFor[[]Snippet](), reflect.PointerTo(ft).Implements(jsonType), strings.HasPrefix(ft.String(), "[]kubeadmapi."),
			ft.String() == "[]v1.EnvVar", ft.String() == "[]v1.Taint", ft == reflect.TypeFor[kubeadmapi.ExternalEtcd]():
			into[name] = true
		case ft.Kind() == reflect.Struct && !isText:
			settings(ft, name+".", into)
		case ft.Kind() == reflect.Slice && ft.Elem().Kind() == reflect.Struct && !reflect.PointerTo(ft.Elem()).Implements(textType):
			settings(ft.Elem(), name+"[].", into)
			if name == "nodes[].taints" || name == "nodes[].machines" { // a list whose being empty has a meaning
				into[name] = true
			}
		default:
			into[name] = true
		}
	}
}

var (
	textType = reflect.TypeFor[encoding.TextUnmarshaler]()
	jsonType = reflect.TypeFor[json.Unmarshaler]()
)
