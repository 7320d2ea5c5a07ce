//go:build integration

package images

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
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
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/opencontainers/go-digest"
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

// layout writes an OCI image layout with the given images. All share their first
// layer, as the images of Kubernetes do.
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
		d := blob(b.Bytes())
		d.MediaType = ocispec.MediaTypeImageLayer
		return d
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

func TestImport(t *testing.T) {
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
	if got := run(); strings.Count(got, "importing ") != len(names) {
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
		ls, err := client.LeasesService().List(ctx)
		if err != nil || slices.ContainsFunc(ls, func(l leases.Lease) bool { return l.ID == leaseID }) {
			t.Errorf("leases left: %v, %v", ls, err)
		}
	}
	check()
	if got := run(); strings.Contains(got, "importing") {
		t.Errorf("a second run imports again:\n%s", got)
	}

	// What a reset between unpacking and naming leaves: snapshots that only the lease holds.
	lm := client.LeasesService()
	if _, err := lm.Create(ctx, leases.WithID(leaseID)); err != nil {
		t.Fatal(err)
	}
	if err := client.ImageService().Delete(ctx, names[1]); err != nil {
		t.Fatal(err)
	}
	if got := run(); strings.Count(got, "importing ") != 1 || !strings.Contains(got, "importing "+names[1]+" (2 of 3)") {
		t.Errorf("after a reset:\n%s", got)
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

func TestDamagedLayout(t *testing.T) {
	p := start(t)
	layout(t, p.Images(), "registry.k8s.io/pause:3.10.2")
	blobs, err := filepath.Glob(filepath.Join(p.Images(), "blobs", "sha256", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blobs {
		data, err := os.ReadFile(b)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, []byte("shared")) {
			if err := os.WriteFile(b, bytes.Replace(data, []byte("sharedshared"), []byte("sharedShared"), 1), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	cfg := nodeconfig.Config{Plan: bootplan.Plan{Timeouts: bootplan.DefaultTimeouts()}}
	err = Run(context.Background(), cfg, p, phase.NewPrinter(os.Stderr))
	if err == nil || !strings.Contains(err.Error(), "registry.k8s.io/pause:3.10.2") || !strings.Contains(err.Error(), "digest") {
		t.Errorf("a layer with other bytes was imported: %v", err)
	}
}
