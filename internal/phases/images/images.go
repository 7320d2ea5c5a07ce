// Package images is the phase that gives containerd the container images which
// are baked into the operating system, so that nothing is ever pulled.
//
// INPUTS: host.Paths.Images(), an OCI image layout whose index names each image
// in the annotation io.containerd.image.name and whose layers lie unpacked below
// layers/, each in a folder that its diff id names; containerd's socket.
//
// OUTPUTS: in containerd's namespace k8s.io the images, with a snapshot for each of
// their layers, under their names and under their ids, labelled as the CRI plugin
// labels what it pulls, and pinned: the kubelet must never collect an image that
// nothing can bring back.
//
// No layer is copied: a snapshot is a link to the layer's folder in /usr. The node
// runs what dm-verity guards, nothing is written to the disk, and programs that the
// node and its containers share are once in memory. What is missing, as with
// containerd's own setting discard_unpacked_layers, are the layers' blobs: these
// images can be run, but not exported.
//
// An image's name is made last, after its files are flushed to the disk: an image
// that has its name is whole, whenever the power went.
package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
)

const (
	namespace   = "k8s.io" // the CRI plugin's
	snapshotter = "overlayfs"
	leaseID     = "kiln-firstboot-images"
)

// labels are those of the CRI plugin (containerd's internal/cri/labels).
func labels() map[string]string {
	return map[string]string{"io.cri-containerd.image": "managed", "io.cri-containerd.pinned": "pinned"}
}

// Run adds every image of the layout that containerd does not have yet.
func Run(ctx context.Context, cfg nodeconfig.Config, paths host.Paths, r phase.Report) error {
	baked, err := readLayout(paths.Images())
	if err != nil {
		return phase.Permanent(err)
	}
	client, err := containerd.New(paths.Containerd(), containerd.WithDefaultNamespace(namespace))
	if err != nil {
		return err
	}
	defer client.Close()
	bound := time.Duration(cfg.Plan.Timeouts.ContainerdUp)
	err = phase.Poll(ctx, r, "containerd at "+paths.Containerd(), time.Second, bound, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		_, err := client.Version(ctx)
		return err
	})
	if err != nil {
		return err
	}
	return addAll(namespaces.WithNamespace(ctx, namespace), client, paths, baked, r)
}

func addAll(ctx context.Context, client *containerd.Client, paths host.Paths, baked []image, r phase.Report) (err error) {
	lm := client.LeasesService()
	lease := leases.Lease{ID: leaseID}
	// What an interrupted run left is held by its lease alone, and its files may
	// not have reached the disk: drop it.
	if err := lm.Delete(ctx, lease, leases.SynchronousDelete); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("containerd: delete lease %s: %w", leaseID, err)
	}
	if _, err := lm.Create(ctx, leases.WithID(leaseID)); err != nil {
		return fmt.Errorf("containerd: create lease %s: %w", leaseID, err)
	}
	defer func() { err = errors.Join(err, lm.Delete(context.WithoutCancel(ctx), lease)) }()
	ctx = leases.WithLease(ctx, leaseID)

	for i, b := range baked {
		have, err := present(ctx, client, b)
		if err != nil {
			return fmt.Errorf("image %s: %w", b.name, err)
		}
		if have {
			continue
		}
		r.Step("adding %s (%d of %d)", b.name, i+1, len(baked))
		if err := addOne(ctx, client, paths, b); err != nil {
			return fmt.Errorf("add image %s: %w", b.name, err)
		}
	}
	return nil
}

// present reports whether containerd has the image, unpacked.
func present(ctx context.Context, client *containerd.Client, b image) (bool, error) {
	img, err := client.GetImage(ctx, b.name)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if img.Target().Digest != b.desc.Digest {
		return false, nil
	}
	unpacked, err := img.IsUnpacked(ctx, snapshotter)
	if errdefs.IsNotFound(err) { // some of its content is gone
		return false, nil
	}
	return unpacked, err
}

func addOne(ctx context.Context, client *containerd.Client, paths host.Paths, b image) error {
	cs := client.ContentStore()
	ingest := images.HandlerFunc(func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		if images.IsLayerType(d.MediaType) {
			return nil, nil
		}
		if err := ingestBlob(ctx, cs, paths.Images(), d); err != nil {
			return nil, err
		}
		return images.Children(ctx, cs, d)
	})
	// The labels tie a manifest's blobs to it, so that they are kept as long as it is.
	handler := images.SetChildrenMappedLabels(cs, ingest, images.ChildGCLabels)
	if err := images.Walk(ctx, images.FilterPlatforms(handler, platforms.Default()), b.desc); err != nil {
		return err
	}
	record := images.Image{Name: b.name, Target: b.desc, Labels: labels()}
	img := containerd.NewImage(client, record)
	config, err := img.Config(ctx)
	if err != nil {
		return err
	}
	diffIDs, err := img.RootFS(ctx)
	if err != nil {
		return err
	}
	top, err := addSnapshots(ctx, client.SnapshotService(snapshotter), filepath.Join(paths.Images(), layersDir), diffIDs)
	if err != nil {
		return err
	}
	// And this one ties the snapshots to the configuration.
	const ref = "containerd.io/gc.ref.snapshot." + snapshotter
	info := content.Info{Digest: config.Digest, Labels: map[string]string{ref: top}}
	if _, err := cs.Update(ctx, info, "labels."+ref); err != nil {
		return err
	}
	if err := host.Flush(paths.ContainerdState()); err != nil {
		return err
	}
	// The id comes first, as when the CRI plugin pulls: once the name is there the
	// plugin takes the image for complete.
	for _, name := range []string{config.Digest.String(), b.name} {
		record.Name = name
		if err := put(ctx, client.ImageService(), record); err != nil {
			return err
		}
	}
	return nil
}

func put(ctx context.Context, store images.Store, record images.Image) error {
	_, err := store.Create(ctx, record)
	if errdefs.IsAlreadyExists(err) {
		_, err = store.Update(ctx, record)
	}
	return err
}

// ingestBlob copies one blob of the layout into the content store, which checks
// its digest. A blob that is there already is not read.
func ingestBlob(ctx context.Context, cs content.Store, layout string, d ocispec.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w", d.Digest, err)
	}
	f, err := os.Open(filepath.Join(layout, ocispec.ImageBlobsDir, d.Digest.Algorithm().String(), d.Digest.Encoded()))
	if err != nil {
		return err
	}
	defer f.Close()
	return content.WriteBlob(ctx, cs, "kiln-"+d.Digest.String(), f, d)
}

// image is one entry of the layout's index.
type image struct {
	name string
	desc ocispec.Descriptor
}

// readLayout lists the images of an OCI image layout, sorted by name.
func readLayout(dir string) ([]image, error) {
	data, err := os.ReadFile(filepath.Join(dir, ocispec.ImageIndexFile))
	if err != nil {
		return nil, fmt.Errorf("baked container images: %w", err)
	}
	out, err := parseIndex(data)
	if err != nil {
		return nil, fmt.Errorf("baked container images: %s: %w", filepath.Join(dir, ocispec.ImageIndexFile), err)
	}
	return out, nil
}

func parseIndex(data []byte) ([]image, error) {
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	var out []image
	for _, d := range index.Manifests {
		name := d.Annotations[images.AnnotationImageName]
		switch {
		case name == "":
			return nil, fmt.Errorf("manifest %s has no annotation %s", d.Digest, images.AnnotationImageName)
		case seen[name]:
			return nil, fmt.Errorf("image %s stands in it twice", name)
		}
		if err := d.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("image %s: digest %q: %w", name, d.Digest, err)
		}
		seen[name] = true
		// The name belongs to the index, not to the image.
		d.Annotations = nil
		out = append(out, image{name, d})
	}
	if len(out) == 0 {
		return nil, errors.New("it has no images")
	}
	sort.Slice(out, func(i, j int) bool { return out[i].name < out[j].name })
	return out, nil
}
