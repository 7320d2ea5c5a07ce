package registry

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/cache"
	"github.com/kiln-os/kiln/internal/release/releasetest"
)

func client(t *testing.T) Client {
	t.Helper()
	c, err := cache.Open(filepath.Join(t.TempDir(), "cache"))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_CONFIG", t.TempDir()) // nobody's credentials
	return Client{Cache: c, Wait: time.Millisecond}
}

func get(t *testing.T, goarch string) arch.Arch {
	t.Helper()
	a, err := arch.Get(goarch)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func server(t *testing.T) *releasetest.Server {
	s := releasetest.NewEmptyServer()
	t.Cleanup(s.Close)
	return s
}

// push returns the reference by digest of what it gave the registry.
func push(t *testing.T, s *releasetest.Server, repo string, img interface {
	remote.Taggable
	Digest() (v1.Hash, error)
}) string {
	t.Helper()
	if err := s.Push(repo, img); err != nil {
		t.Fatal(err)
	}
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return s.Registry + "/" + repo + ":v1@" + d.String()
}

func image(t *testing.T, goarch, variant, content string) v1.Image {
	t.Helper()
	img, err := releasetest.Image(goarch, "/program", map[string][]byte{"program": []byte(content), "below/old": nil})
	if err != nil {
		t.Fatal(err)
	}
	if variant == "" {
		return img
	}
	c, err := img.ConfigFile()
	if err == nil {
		c = c.DeepCopy()
		c.Variant = variant
		img, err = mutate.ConfigFile(img, c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func read(t *testing.T, tr *tree.Tree, p string) string {
	t.Helper()
	b, err := tr.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPullOfAnIndex(t *testing.T) {
	s, c := server(t), client(t)
	index := v1.ImageIndex(empty.Index)
	for _, p := range []v1.Platform{
		{OS: "linux", Architecture: "arm64", Variant: "v8"}, {OS: "windows", Architecture: "amd64"}, {OS: "linux", Architecture: "amd64"},
		{OS: "linux", Architecture: "arm", Variant: "v6"}, {OS: "linux", Architecture: "arm", Variant: "v7"},
	} {
		img := image(t, p.Architecture, p.Variant, p.OS+p.Architecture+p.Variant)
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &p}})
	}
	ref := push(t, s, "multi", index)
	for goarch, want := range map[string]string{"amd64": "linuxamd64", "arm64": "linuxarm64v8", "arm": "linuxarmv7"} {
		img, err := c.Pull(t.Context(), ref, get(t, goarch))
		if err != nil {
			t.Error(err)
		} else if got := read(t, img.Layers[0], "program"); got != want {
			t.Errorf("%s: got the program of %s", goarch, got)
		}
	}
	_, err := c.Pull(t.Context(), ref, get(t, "ppc64le"))
	expect(t, err, "no image for linux/ppc64le, only for linux/arm64")
	// Once it is there no network is needed.
	s.Close()
	c.Offline = true
	if _, err := c.Pull(t.Context(), ref, get(t, "amd64")); err != nil {
		t.Error(err)
	}
	c = client(t)
	c.Offline = true
	_, err = c.Pull(t.Context(), ref, get(t, "amd64"))
	expect(t, err, "image "+ref, "offline nothing is fetched")
}

func TestMediaTypes(t *testing.T) {
	s := server(t)
	raw := releasetest.Tar(map[string][]byte{"program": []byte("hello")})
	var gz, zs bytes.Buffer
	g := gzip.NewWriter(&gz)
	z, err := zstd.NewWriter(&zs)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []io.WriteCloser{g, z} {
		if _, err := w.Write(raw); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	diffID, _, err := v1.SHA256(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range []struct {
		manifest, config, layer types.MediaType
		bytes                   []byte
		words                   string
	}{
		{types.OCIManifestSchema1, types.OCIConfigJSON, types.OCILayer, gz.Bytes(), ""},
		{types.OCIManifestSchema1, types.OCIConfigJSON, types.OCILayerZStd, zs.Bytes(), ""},
		{types.OCIManifestSchema1, types.OCIConfigJSON, types.OCIUncompressedLayer, raw, ""},
		{types.DockerManifestSchema2, types.DockerConfigJSON, types.DockerLayer, gz.Bytes(), ""},
		{types.DockerManifestSchema2, types.DockerConfigJSON, types.DockerForeignLayer, gz.Bytes(), "foreign"},
		{types.OCIManifestSchema1, types.OCIConfigJSON, types.OCILayer, zs.Bytes(), "unpack: gzip"},
		{types.OCIManifestSchema1, types.OCIConfigJSON, types.OCILayer, append(append([]byte(nil), gz.Bytes()...), gz.Bytes()...), "unpack: got"},
	} {
		l := layer{static.NewLayer(k.bytes, k.layer), diffID}
		img, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, k.manifest), k.config), l)
		if err != nil {
			t.Fatal(err)
		}
		config, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		config = config.DeepCopy()
		config.OS, config.Architecture = "linux", "amd64"
		if img, err = mutate.ConfigFile(img, config); err != nil {
			t.Fatal(err)
		}
		got, err := client(t).Pull(t.Context(), push(t, s, fmt.Sprint("kind", i), img), get(t, "amd64"))
		if k.words != "" {
			expect(t, err, "layer 1", k.words)
		} else if err != nil {
			t.Errorf("%s %s: %v", k.manifest, k.layer, err)
		} else if read(t, got.Layers[0], "program") != "hello" {
			t.Errorf("%s: wrong content", k.layer)
		}
	}
}

// layer has another diff id than its bytes.
type layer struct {
	v1.Layer
	diffID v1.Hash
}

func (l layer) DiffID() (v1.Hash, error) { return l.diffID, nil }

func TestAuthentication(t *testing.T) {
	s, c := server(t), client(t)
	ref := push(t, s, "private", image(t, "amd64", "", "x"))
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte("ada:secret-word"))
	s.RegistryHandler = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == want {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	_, err := c.Pull(t.Context(), ref, get(t, "amd64"))
	expect(t, err, "credentials", "config.json", "401")
	login := func(password string) {
		t.Helper()
		b, err := json.Marshal(map[string]any{"auths": map[string]any{s.Registry: map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte("ada:" + password))}}})
		if err == nil {
			err = os.WriteFile(filepath.Join(os.Getenv("DOCKER_CONFIG"), "config.json"), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	login("wrong-word")
	_, err = c.Pull(t.Context(), ref, get(t, "amd64"))
	expect(t, err, "credentials")
	if strings.Contains(err.Error(), "wrong-word") {
		t.Errorf("the error has the password: %v", err)
	}
	login("secret-word")
	if _, err := c.Pull(t.Context(), ref, get(t, "amd64")); err != nil {
		t.Error(err)
	}
	if d, err := c.Resolve(t.Context(), s.Registry+"/private:v1"); err != nil || !strings.HasSuffix(ref, d) {
		t.Errorf("%s, %v", d, err)
	}
}

func TestWhatRegistriesGetWrong(t *testing.T) {
	isBlob := func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/blobs/") }
	isManifest := func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/") }
	for name, k := range map[string]struct {
		handler func(w http.ResponseWriter, r *http.Request) bool
		words   []string
	}{
		"truncated blob": {func(w http.ResponseWriter, r *http.Request) bool {
			if isBlob(r) {
				w.Header().Set("Content-Length", "100000")
				_, _ = w.Write([]byte("short"))
			}
			return isBlob(r)
		}, []string{"EOF"}},
		"other blob": {func(w http.ResponseWriter, r *http.Request) bool {
			if isBlob(r) {
				_, _ = w.Write([]byte("other"))
			}
			return isBlob(r)
		}, []string{"configuration: sha256:", "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa"}},
		"other manifest": {func(w http.ResponseWriter, r *http.Request) bool {
			if isManifest(r) {
				w.Header().Set("Content-Type", string(types.OCIManifestSchema1))
				_, _ = w.Write([]byte("{}"))
			}
			return isManifest(r)
		}, []string{"digest"}},
		"web page": {func(w http.ResponseWriter, r *http.Request) bool {
			if isManifest(r) {
				w.Header().Set("Content-Type", "text/html")
				_, _ = w.Write([]byte("<html>"))
			}
			return isManifest(r)
		}, []string{"digest"}},
		"gone": {func(w http.ResponseWriter, r *http.Request) bool {
			if isManifest(r) {
				w.WriteHeader(http.StatusNotFound)
			}
			return isManifest(r)
		}, []string{"no such image"}},
		"failing": {func(w http.ResponseWriter, r *http.Request) bool {
			if isBlob(r) {
				w.WriteHeader(http.StatusBadGateway)
			}
			return isBlob(r)
		}, []string{"502"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, c := server(t), client(t)
			ref := push(t, s, "wrong", image(t, "amd64", "", "x"))
			s.RegistryHandler = k.handler
			_, err := c.Pull(t.Context(), ref, get(t, "amd64"))
			expect(t, err, append(k.words, "image "+ref)...)
			for _, p := range []string{".*", "*.tmp*"} {
				if left, _ := filepath.Glob(filepath.Join(c.Cache.Path(), "blobs", p)); len(left) > 0 {
					t.Errorf("left %v", left)
				}
			}
		})
	}
	// What breaks once is tried again.
	s, c := server(t), client(t)
	ref := push(t, s, "flaky", image(t, "amd64", "", "x"))
	broken := map[string]bool{}
	s.RegistryHandler = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || broken[r.URL.Path] || !isBlob(r) && !isManifest(r) {
			return false
		}
		broken[r.URL.Path] = true
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte("short"))
		return true
	}
	if _, err := c.Pull(t.Context(), ref, get(t, "amd64")); err != nil || len(broken) != 3 {
		t.Errorf("%d broken transfers: %v", len(broken), err)
	}
}

func TestPullRefuses(t *testing.T) {
	s, c := server(t), client(t)
	_, err := c.Pull(t.Context(), push(t, s, "arm", image(t, "arm64", "", "x")), get(t, "amd64"))
	expect(t, err, "it is for linux/arm64")
	if _, err := c.Pull(t.Context(), s.Registry+"/x:v1", get(t, "amd64")); err == nil {
		t.Error("a tag alone is pulled")
	}
	if _, err := name.NewDigest(s.Registry + "/x:v1@sha512:00"); err == nil {
		t.Error("a short digest")
	}
}

func TestLayers(t *testing.T) {
	c := client(t)
	file := func(name, content string) entryOf { return entryOf{tar.Header{Name: name, Mode: 0o644}, content} }
	dir := func(name string, mode int64) entryOf {
		return entryOf{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}, ""}
	}
	for title, k := range map[string]struct {
		layers [][]entryOf
		want   string // path=content or path/ for a folder
		words  string
	}{
		"whiteout":               {[][]entryOf{{file("a/b", "1"), file("a/c", "2")}, {file("a/.wh.b", "")}}, "a/ a/c=2", ""},
		"whiteout of a folder":   {[][]entryOf{{file("a/b/c", "1"), file("a/bb", "2")}, {file("a/.wh.b", "")}}, "a/ a/bb=2", ""},
		"opaque":                 {[][]entryOf{{file("a/b", "1"), file("ab", "2")}, {file("a/.wh..wh..opq", ""), file("a/c", "3")}}, "a/ a/c=3 ab=2", ""},
		"replaced":               {[][]entryOf{{file("a", "1")}, {file("a", "2")}}, "a=2", ""},
		"folder instead of file": {[][]entryOf{{file("a", "1")}, {dir("a", 0o700), file("a/b", "2")}}, "a/700 a/b=2", ""},
		"mode of a folder stays": {[][]entryOf{{dir("tmp", 0o1777)}, {file("tmp/x", "1")}}, "tmp/1777 tmp/x=1", ""},
		"hard link outlives":     {[][]entryOf{{file("a", "1"), {tar.Header{Typeflag: tar.TypeLink, Name: "b", Linkname: "a"}, ""}}, {file(".wh.a", "")}}, "b=1", ""},
		"hard link below":        {[][]entryOf{{file("a", "1")}, {{tar.Header{Typeflag: tar.TypeLink, Name: "b", Linkname: "/a"}, ""}}}, "a=1 b=1", ""},
		"dots":                   {[][]entryOf{{file("./../../a", "1")}}, "a=1", ""},
		"hard link to nothing":   {[][]entryOf{{{tar.Header{Typeflag: tar.TypeLink, Name: "b", Linkname: "a"}, ""}}}, "", "hard link to a, which is no file"},
		"below a link":           {[][]entryOf{{{tar.Header{Typeflag: tar.TypeSymlink, Name: "lib", Linkname: "usr/lib"}, ""}}, {file("lib/x", "1")}}, "", "lies below lib, which is no folder"},
	} {
		merged := tree.New()
		var err error
		for i, l := range k.layers {
			p := filepath.Join(c.Cache.Path(), fmt.Sprint(len(title), title, i))
			if werr := os.WriteFile(p, tarOf(t, l), 0o600); werr != nil {
				t.Fatal(werr)
			}
			if err == nil {
				err = apply(merged, p)
			}
		}
		if k.words != "" {
			expect(t, err, k.words)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", title, err)
			continue
		}
		var got []string
		_ = merged.Walk(func(p string, e *tree.Entry) error {
			switch {
			case e.Type == tree.Dir && e.Mode != 0o755:
				p += fmt.Sprintf("/%o", e.Mode)
			case e.Type == tree.Dir:
				p += "/"
			default:
				p += "=" + read(t, merged, p)
			}
			got = append(got, p)
			return nil
		})
		if s := strings.Join(got, " "); s != k.want {
			t.Errorf("%s: %s, want %s", title, s, k.want)
		}
	}
}

type entryOf struct {
	tar.Header
	content string
}

func tarOf(t testing.TB, list []entryOf) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range list {
		h := e.Header
		h.Size = int64(len(e.content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func expect(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error; expected %q", words)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %v\nhas no %q", err, w)
		}
	}
}

// A layer's bytes are foreign, and whatever they are its files stay in the tree.
func FuzzLayer(f *testing.F) {
	f.Add(tarOf(f, []entryOf{{tar.Header{Name: "a/b", Mode: 0o644}, "x"}, {tar.Header{Typeflag: tar.TypeLink, Name: "c", Linkname: "a/b"}, ""}, {tar.Header{Name: "a/.wh..wh..opq"}, ""}}))
	f.Add(tarOf(f, []entryOf{{tar.Header{Typeflag: tar.TypeSymlink, Name: "../a", Linkname: "/"}, ""}, {tar.Header{Name: ".wh.a"}, ""}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		merged := tree.New()
		size := int64(len(b))
		err := applyTar(merged, bytes.NewReader(b), func(offset, n int64) tree.Content {
			if offset < 0 || n < 0 || offset > size {
				t.Errorf("content of %d bytes at %d of %d", n, offset, size)
			}
			return tree.Bytes(nil)
		})
		if err != nil {
			return
		}
		for _, p := range merged.Paths() {
			if p != tree.Clean(p) || p == "" || strings.HasPrefix(p, "../") {
				t.Errorf("path %q", p)
			}
		}
	})
}
