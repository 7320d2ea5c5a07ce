//go:build integration

package images

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	criv1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
)

// These tests need root and a containerd: $KILN_CONTAINERD, else the one in PATH.

// layout writes an OCI image layout with unpacked layers and the given images. All
// share their first layer, as the images of Kubernetes do.
func layout(t *testing.T, dir string, names ...string) {
	t.Helper()
	blob := func(data []byte) ocispec.Descriptor {
		d := digest.FromBytes(data)
		path := filepath.Join(dir, "blobs", "sha256", d.Encoded())
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return ocispec.Descriptor{Digest: d, Size: int64(len(data))}
	}
	object := func(mediaType string, v any) ocispec.Descriptor {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		d := blob(data)
		d.MediaType = mediaType
		return d
	}
	layer := func(name, text string) ocispec.Descriptor {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		d := digest.FromBytes(b.Bytes())
		files := filepath.Join(dir, layersDir, d.Encoded())
		if err := os.MkdirAll(files, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(files, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: int64(b.Len())}
	}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	index.SchemaVersion = 2
	shared := layer("shared", strings.Repeat("shared", 1000))
	for _, n := range names {
		layers := []ocispec.Descriptor{shared, layer("name", n)}
		config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}}
		config.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layers[0].Digest, layers[1].Digest}}
		m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: object(ocispec.MediaTypeImageConfig, config), Layers: layers}
		m.SchemaVersion = 2
		d := object(ocispec.MediaTypeImageManifest, m)
		d.Annotations = map[string]string{"io.containerd.image.name": n}
		index.Manifests = append(index.Manifests, d)
	}
	data, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "index.json"), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// start runs a containerd whose files are below the returned root.
func start(t *testing.T) host.Paths {
	t.Helper()
	program := os.Getenv("KILN_CONTAINERD")
	if program == "" {
		program = "containerd"
	}
	// A unix socket's path may have 107 bytes: not below the test's own folder.
	root, err := os.MkdirTemp("", "kiln")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	p := host.Paths{Root: root}
	config := fmt.Sprintf("version = 3\nroot = %q\nstate = %q\n[grpc]\n  address = %q\n[plugins.'io.containerd.cri.v1.runtime'.cni]\n  bin_dirs = [%q]\n  conf_dir = %q\n",
		p.ContainerdState(), p.At("/state"), p.Containerd(), p.At("/cni/bin"), p.At("/cni/net.d"))
	path := p.At("/config.toml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(program, "--config", path)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("containerd:\n%s", &log)
		}
	})
	return p
}

func TestRun(t *testing.T) {
	names := []string{"registry.k8s.io/etcd:3.7.0-0", "registry.k8s.io/kube-proxy:v1.37.2", "registry.k8s.io/pause:3.10.2"}
	p := start(t)
	layout(t, p.Images(), names...)
	cfg := nodeconfig.Config{Plan: bootplan.Plan{Timeouts: bootplan.DefaultTimeouts()}}
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(context.Background(), namespace), 2*time.Minute)
	defer cancel()
	var out bytes.Buffer
	run := func() string {
		t.Helper()
		out.Reset()
		if err := Run(ctx, cfg, p, phase.NewPrinter(&out)); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	// containerd is still starting: Run waits for it.
	if got := run(); strings.Count(got, "adding ") != len(names) {
		t.Errorf("first run:\n%s", got)
	}
	client, err := containerd.New(p.Containerd(), containerd.WithDefaultNamespace(namespace))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	check := func() {
		t.Helper()
		for _, n := range names {
			img, err := client.GetImage(ctx, n)
			if err != nil {
				t.Fatal(err)
			}
			if ok, err := img.IsUnpacked(ctx, snapshotter); err != nil || !ok {
				t.Errorf("%s: unpacked %v, %v", n, ok, err)
			}
		}
		for _, n := range names {
			if got := read(ctx, t, client, n); got != [2]string{strings.Repeat("shared", 1000), n} {
				t.Errorf("%s holds %.20q", n, got)
			}
		}
		ls, err := client.LeasesService().List(ctx)
		if err != nil || slices.ContainsFunc(ls, func(l leases.Lease) bool { return l.ID == leaseID }) {
			t.Errorf("leases left: %v, %v", ls, err)
		}
	}
	check()
	if got := run(); strings.Contains(got, "adding") {
		t.Errorf("a second run adds again:\n%s", got)
	}

	// What a reset between unpacking and naming leaves: snapshots that only the lease holds.
	lm := client.LeasesService()
	if _, err := lm.Create(ctx, leases.WithID(leaseID)); err != nil {
		t.Fatal(err)
	}
	if err := client.ImageService().Delete(ctx, names[1]); err != nil {
		t.Fatal(err)
	}
	if got := run(); strings.Count(got, "adding ") != 1 || !strings.Contains(got, "adding "+names[1]+" (2 of 3)") {
		t.Errorf("after a reset:\n%s", got)
	}
	check()

	// A run that was cut off between two steps left a snapshot that is not committed.
	sn := client.SnapshotService(snapshotter)
	for _, name := range []string{names[2], imageID(ctx, t, client, names[2])} {
		if err := client.ImageService().Delete(ctx, name, images.SynchronousDelete()); err != nil {
			t.Fatal(err)
		}
	}
	layer := top(ctx, t, p, names[2])
	if _, err := sn.Stat(ctx, layer); !errdefs.IsNotFound(err) {
		t.Errorf("the snapshot of an image that was deleted: %v", err)
	}
	if _, err := sn.Prepare(ctx, "kiln-"+layer, "", snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "yes"})); err != nil {
		t.Fatal(err)
	}
	run()
	check()
	// A collection of garbage leaves everything that an image needs, and the layers
	// themselves are nobody's to collect.
	if _, err := lm.Create(ctx, leases.WithID("gc")); err != nil {
		t.Fatal(err)
	}
	if err := lm.Delete(ctx, leases.Lease{ID: "gc"}, leases.SynchronousDelete); err != nil {
		t.Fatal(err)
	}
	check()

	// The kubelet asks through the CRI.
	conn, err := grpc.NewClient("unix://"+p.Containerd(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cri := criv1.NewImageServiceClient(conn)
	for _, n := range names {
		var img *criv1.Image
		for range 100 { // the CRI plugin learns of images by events
			s, err := cri.ImageStatus(ctx, &criv1.ImageStatusRequest{Image: &criv1.ImageSpec{Image: n}})
			if err != nil {
				t.Fatal(err)
			}
			if img = s.GetImage(); img != nil {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		if img == nil || !img.GetPinned() || !slices.Contains(img.GetRepoTags(), n) || !strings.HasPrefix(img.GetId(), "sha256:") {
			t.Errorf("%s: the CRI has %v", n, img)
		}
	}
}

// read mounts an image and returns what its two files hold.
func read(ctx context.Context, t *testing.T, client *containerd.Client, name string) (out [2]string) {
	t.Helper()
	img, err := client.GetImage(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	diffIDs, err := img.RootFS(ctx)
	if err != nil {
		t.Fatal(err)
	}
	sn := client.SnapshotService(snapshotter)
	ctx, done, err := client.WithLease(ctx) // else a collection of garbage takes it away
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = done(ctx) }() // the test's containerd ends soon
	// A container's own snapshot, as the CRI plugin makes it.
	mounts, err := sn.Prepare(ctx, "test", identity.ChainID(diffIDs).String())
	if err != nil {
		t.Fatal(err)
	}
	err = mount.WithTempMount(ctx, mounts, func(root string) error {
		for i, f := range []string{"shared", "name"} {
			b, err := os.ReadFile(filepath.Join(root, f))
			if err != nil {
				return err
			}
			out[i] = string(b)
		}
		return os.WriteFile(filepath.Join(root, "shared"), []byte("a container writes"), 0o644)
	})
	if err := errors.Join(err, sn.Remove(ctx, "test")); err != nil {
		t.Fatal(err)
	}
	return out
}

// imageID is the name under which the CRI plugin keeps an image beside its own.
func imageID(ctx context.Context, t *testing.T, client *containerd.Client, name string) string {
	t.Helper()
	img, err := client.GetImage(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.Config(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return config.Digest.String()
}

// top is the name of the topmost snapshot of a baked image.
func top(ctx context.Context, t *testing.T, p host.Paths, name string) string {
	t.Helper()
	baked, err := readLayout(p.Images())
	if err != nil {
		t.Fatal(err)
	}
	blob := func(d digest.Digest, into any) {
		data, err := os.ReadFile(filepath.Join(p.Images(), "blobs/sha256", d.Encoded()))
		if err == nil {
			err = json.Unmarshal(data, into)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, b := range baked {
		if b.name == name {
			var m ocispec.Manifest
			var c ocispec.Image
			blob(b.desc.Digest, &m)
			blob(m.Config.Digest, &c)
			return identity.ChainID(c.RootFS.DiffIDs).String()
		}
	}
	t.Fatalf("no image %s", name)
	return ""
}

func TestMissingLayer(t *testing.T) {
	p := start(t)
	const name = "registry.k8s.io/pause:3.10.2"
	layout(t, p.Images(), name)
	cfg := nodeconfig.Config{Plan: bootplan.Plan{Timeouts: bootplan.DefaultTimeouts()}}
	layers, err := filepath.Glob(filepath.Join(p.Images(), layersDir, "*"))
	if err != nil || len(layers) != 2 {
		t.Fatal(layers, err)
	}
	if err := os.Rename(layers[0], layers[0]+".away"); err != nil {
		t.Fatal(err)
	}
	err = Run(context.Background(), cfg, p, phase.NewPrinter(os.Stderr))
	if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), layers[0]) {
		t.Errorf("without a layer: %v", err)
	}
}

func TestDamagedBlob(t *testing.T) {
	p := start(t)
	const name = "registry.k8s.io/pause:3.10.2"
	layout(t, p.Images(), name)
	cfg := nodeconfig.Config{Plan: bootplan.Plan{Timeouts: bootplan.DefaultTimeouts()}}
	blobs, err := filepath.Glob(filepath.Join(p.Images(), "blobs", "sha256", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blobs {
		data, err := os.ReadFile(b)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, []byte("rootfs")) {
			if err := os.WriteFile(b, bytes.Replace(data, []byte("linux"), []byte("Linux"), 1), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	err = Run(context.Background(), cfg, p, phase.NewPrinter(os.Stderr))
	if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "digest") {
		t.Errorf("a configuration with other bytes: %v", err)
	}
}
