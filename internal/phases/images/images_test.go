package images

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

func manifest(digest, name string) string {
	return `{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + digest + `","size":1,"annotations":{"io.containerd.image.name":"` + name + `"}}`
}

func TestReadLayout(t *testing.T) {
	dir := t.TempDir()
	if _, err := readLayout(dir); err == nil || !strings.Contains(err.Error(), "index.json") {
		t.Errorf("without an index: %v", err)
	}
	text := `{"schemaVersion":2,"manifests":[` + manifest(digestA, "registry.k8s.io/pause:3.10.2") + `,` + manifest(digestB, "registry.k8s.io/etcd:3.7.0-0") + `]}`
	if err := os.WriteFile(filepath.Join(dir, "index.json"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := readLayout(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].name != "registry.k8s.io/etcd:3.7.0-0" || got[1].desc.Digest != digestA || got[0].desc.Annotations != nil {
		t.Errorf("images %+v", got)
	}
}

func TestIndexMistakes(t *testing.T) {
	for _, c := range []struct{ name, manifests, want string }{
		{"empty", ``, "no images"},
		{"no name", `{"digest":"` + digestA + `"}`, "io.containerd.image.name"},
		{"twice", manifest(digestA, "a") + "," + manifest(digestB, "a"), "twice"},
		{"path for a digest", manifest("sha256:../../../../etc/shadow", "a"), "digest"},
		{"not JSON", `{`, ""},
	} {
		_, err := parseIndex([]byte(`{"manifests":[` + c.manifests + `]}`))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"manifests":[` + manifest(digestA, "a") + `]}`))
	f.Add([]byte(`{"manifests":[{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		out, err := parseIndex(data)
		if err != nil {
			return
		}
		for _, i := range out {
			if i.name == "" || strings.ContainsAny(i.desc.Digest.Encoded(), "/.") {
				t.Errorf("accepted %+v", i)
			}
		}
	})
}
