package apitest

import (
	"os"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

// Manifests decodes the objects of a YAML file by "Kind name", strictly.
func Manifests(t *testing.T, path string) map[string]runtime.Object {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	out := map[string]runtime.Object{}
	for _, doc := range strings.Split("\n"+string(data), "\n---\n") {
		if strings.TrimSpace(doc) == "" {
			continue
		}
		o, gvk, err := decoder.Decode([]byte(doc+"\n"), nil, nil)
		if err != nil {
			t.Fatalf("%s: %v\n%s", path, err, doc)
		}
		out[gvk.Kind+" "+o.(interface{ GetName() string }).GetName()] = o
	}
	if len(out) == 0 {
		t.Fatalf("%s holds no objects", path)
	}
	return out
}

// SameObjects compares what is created with what should be, by "Kind name". A
// type that the code leaves out, because its client knows it, is no difference.
func SameObjects(t *testing.T, want, got map[string]runtime.Object) {
	t.Helper()
	for k := range got {
		if want[k] == nil {
			t.Errorf("%s is one too many", k)
		}
	}
	for k, w := range want {
		g := got[k]
		if g == nil {
			t.Errorf("%s is missing", k)
			continue
		}
		g = g.DeepCopyObject()
		g.GetObjectKind().SetGroupVersionKind(w.GetObjectKind().GroupVersionKind())
		if !equality.Semantic.DeepEqual(w, g) {
			wy, err := yaml.Marshal(w)
			if err != nil {
				t.Fatal(err)
			}
			gy, err := yaml.Marshal(g)
			if err != nil {
				t.Fatal(err)
			}
			t.Errorf("%s differs\n--- want\n%s--- got\n%s", k, wy, gy)
		}
	}
}
