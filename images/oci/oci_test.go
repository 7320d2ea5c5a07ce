package oci

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/arch"
)

var mtime = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func getArch(t *testing.T, name string) arch.Arch {
	t.Helper()
	a, err := arch.Get(name)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// twoImages share their first layer.
func twoImages(t *testing.T) []Image {
	a := getArch(t, "amd64")
	shared := tree.New()
	shared.AddFile("usr/local/bin/multi", 0o755, bytes.Repeat([]byte("program "), 100_000))
	shared.AddSymlink("usr/local/bin/one", "multi")
	shared.Set("usr/local/bin/same", &tree.Entry{Type: tree.Hardlink, Link: "usr/local/bin/multi"})
	shared.AddDir("tmp", 0o1777)
	own := tree.New()
	own.Set("two", &tree.Entry{
		Type: tree.File, Mode: 0o755, UID: 7, GID: 8, Content: tree.Bytes("two"),
		Xattrs: map[string]string{"security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00"},
	})
	return []Image{
		{
			Ref: "registry.k8s.io/one:v1.2.3", Arch: a, Layers: []*tree.Tree{shared},
			Entrypoint: []string{"/usr/local/bin/one"}, Env: []string{"PATH=/usr/local/bin"}, WorkingDir: "/",
		},
		{
			Ref: "registry.k8s.io/group/two:4", Arch: a, Layers: []*tree.Tree{shared, own},
			Entrypoint: []string{"/two"}, Cmd: []string{"-v"}, User: "7:8",
		},
	}
}

func write(t *testing.T, images []Image) *tree.Tree {
	t.Helper()
	out := tree.New()
	if err := WriteLayout(out, prefix, images, mtime); err != nil {
		t.Fatal(err)
	}
	return out
}

func treeDigest(t *testing.T, tr *tree.Tree) string {
	t.Helper()
	h := sha256.New()
	if err := tr.WriteTar(h, mtime); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

const prefix = "usr/share/images"

// export writes a layout to the host's file system whose layers are blobs again,
// made of the unpacked ones: the form that reference tools read.
func export(t *testing.T, tr *tree.Tree) string {
	t.Helper()
	dir := t.TempDir()
	blobs := filepath.Join(dir, "blobs/sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		t.Fatal(err)
	}
	layers := map[string]*tree.Tree{}
	err := tr.Walk(func(p string, e *tree.Entry) error {
		p, below := strings.CutPrefix(p, prefix+"/")
		name, inLayer := strings.CutPrefix(p, LayersDir+"/")
		switch {
		case !below || p == LayersDir:
			return nil
		case !inLayer && e.Type == tree.Dir:
			return os.MkdirAll(filepath.Join(dir, p), 0o755)
		case !inLayer:
			b, err := tr.ReadFile(prefix + "/" + p)
			return errors.Join(err, os.WriteFile(filepath.Join(dir, p), b, 0o644))
		}
		digest, name, inside := strings.Cut(name, "/")
		if !inside {
			layers[digest] = tree.New()
			return nil
		}
		own := *e
		if e.Type == tree.Hardlink {
			own.Link = strings.TrimPrefix(e.Link, prefix+"/"+LayersDir+"/"+digest+"/")
		}
		layers[digest].Set(name, &own)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for digest, l := range layers {
		var b bytes.Buffer
		err := errors.Join(l.WriteTar(&b, mtime), os.WriteFile(filepath.Join(blobs, digest), b.Bytes(), 0o644))
		if err != nil {
			t.Fatal(err)
		}
	}
	err = os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestLayoutValidates(t *testing.T) {
	dir := export(t, write(t, twoImages(t)))
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	// Fast leaves out the layers' bytes, which the validator takes for gzip; every
	// blob is checked here.
	if err := validate.Index(index, validate.Fast); err != nil {
		t.Errorf("go-containerregistry finds the layout invalid: %v", err)
	}
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Manifests) != 2 {
		t.Fatalf("%d images in the index", len(m.Manifests))
	}
	// Sorted by name, whatever order they were given in.
	two, one := m.Manifests[0], m.Manifests[1]
	if got := two.Annotations["io.containerd.image.name"]; got != "registry.k8s.io/group/two:4" || two.Annotations["org.opencontainers.image.ref.name"] != got {
		t.Errorf("annotations of the first image: %v", two.Annotations)
	}
	if one.Platform == nil || one.Platform.Architecture != "amd64" || one.Platform.OS != "linux" {
		t.Errorf("platform %v", one.Platform)
	}
	img, err := index.Image(two.Digest)
	if err != nil {
		t.Fatal(err)
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if c.Config.User != "7:8" || fmt.Sprint(c.Config.Entrypoint, c.Config.Cmd) != "[/two] [-v]" || !c.Created.Equal(mtime) || len(c.History) != 0 {
		t.Errorf("configuration %+v, created %v, history %v", c.Config, c.Created, c.History)
	}
	// The shared layer is stored once: 2 layers, 2 manifests, 2 configurations.
	blobs, err := os.ReadDir(filepath.Join(dir, "blobs/sha256"))
	if err != nil || len(blobs) != 6 {
		t.Errorf("%d blobs, expected 6 (%v)", len(blobs), err)
	}
	for _, b := range blobs {
		data, err := os.ReadFile(filepath.Join(dir, "blobs/sha256", b.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != b.Name() {
			t.Errorf("blob %s has SHA-256 %x", b.Name(), sum)
		}
	}
	mf, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	for n, l := range mf.Layers {
		if l.Digest != c.RootFS.DiffIDs[n] || l.MediaType != "application/vnd.oci.image.layer.v1.tar" {
			t.Errorf("layer %d: %s %s, diff id %s", n, l.MediaType, l.Digest, c.RootFS.DiffIDs[n])
		}
	}
}

func TestLayersKeepOwnersAndCapabilities(t *testing.T) {
	index, err := layout.ImageIndexFromPath(export(t, write(t, twoImages(t)[1:])))
	if err != nil {
		t.Fatal(err)
	}
	m, _ := index.IndexManifest()
	img, err := index.Image(m.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil || len(layers) != 2 {
		t.Fatal(len(layers), err)
	}
	r, err := layers[1].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	h, err := tar.NewReader(r).Next()
	if err != nil {
		t.Fatal(err)
	}
	if h.Name != "two" || h.Uid != 7 || h.Gid != 8 || h.Mode != 0o755 || !h.ModTime.Equal(mtime) ||
		h.PAXRecords["SCHILY.xattr.security.capability"] != "\x01\x00\x00\x02\x00\x04\x00\x00" {
		t.Errorf("header %+v", h)
	}
}

// golden is the digest of the layout of twoImages: it changes only with the
// format, and then every node's images do.
const golden = "6a918aa19d2698f890983110c59201b8559e865d3d89ccbd5dce6d5a9585e0fe"

func TestGoldenDigest(t *testing.T) {
	images := twoImages(t)
	first := treeDigest(t, write(t, images))
	images[0], images[1] = images[1], images[0]
	if second := treeDigest(t, write(t, images)); second != first {
		t.Errorf("the order of the images changes the layout: %s, %s", first, second)
	}
	if first != golden {
		t.Errorf("layout has SHA-256 %s, expected %s", first, golden)
	}
}

func TestVariantOfArm(t *testing.T) {
	images := twoImages(t)[:1]
	images[0].Arch = getArch(t, "arm")
	raw, err := write(t, images).ReadFile(prefix + "/index.json")
	if err != nil {
		t.Fatal(err)
	}
	var index struct {
		Manifests []struct {
			Platform struct{ Architecture, OS, Variant string }
		}
	}
	if err := json.Unmarshal(raw, &index); err != nil {
		t.Fatal(err)
	}
	if p := index.Manifests[0].Platform; p.Architecture != "arm" || p.Variant != "v7" || p.OS != "linux" {
		t.Errorf("platform %+v", p)
	}
}

// TestReaderClosedEarly would hang or leak the writer of the tar stream.
func TestReaderClosedEarly(t *testing.T) {
	l, err := newLayer(twoImages(t)[0].Layers[0], mtime)
	if err != nil {
		t.Fatal(err)
	}
	r, err := l.Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 600)); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

type failing struct{ tree.Bytes }

func (failing) Open() (io.ReadCloser, error) { return nil, errors.New("disk is broken") }

func TestErrors(t *testing.T) {
	broken := tree.New()
	broken.Set("f", &tree.Entry{Type: tree.File, Mode: 0o644, Content: failing{tree.Bytes("x")}})
	for _, c := range []struct {
		name, words string
		change      func([]Image) []Image
	}{
		{"no tag", "full name with a tag", func(i []Image) []Image { i[0].Ref = "registry.k8s.io/one"; return i }},
		{"short name", "full name with a tag", func(i []Image) []Image { i[0].Ref = "one:1"; return i }},
		{"twice", "is there twice", func(i []Image) []Image { return append(i, i[0]) }},
		{"no layers", "has no layers", func(i []Image) []Image { i[1].Layers = nil; return i }},
		{"unreadable file", "disk is broken", func(i []Image) []Image { i[1].Layers = []*tree.Tree{broken}; return i }},
	} {
		err := WriteLayout(tree.New(), "p", c.change(twoImages(t)), mtime)
		if err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: error %v, expected %q in it", c.name, err, c.words)
		}
	}
}
