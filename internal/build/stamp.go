package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kiln-os/kiln/images/format"
	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/flash"
	"github.com/kiln-os/kiln/internal/nodeimage"
	"github.com/kiln-os/kiln/internal/render"
	"github.com/kiln-os/kiln/internal/sparse"
	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/pki"
)

// baseRecord is BasesFile: the key of a base image in the cache by profile. A build
// writes it; stamping reads it, so that a node that is stamped later gets the same
// base as the others.
type baseRecord map[string]string

func readBases(out string) (baseRecord, error) {
	r := baseRecord{}
	name := filepath.Join(out, BasesFile)
	b, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w; imagegen build writes it anew", name, err)
	}
	return r, nil
}

func (r baseRecord) write(out string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(filepath.Join(out, BasesFile), append(b, '\n'), 0o644)
}

// Stamped is what stamping one node gave.
type Stamped struct {
	Node  string `json:"node"`
	Image string `json:"image"`
	// Images are all that were written; Image is the first.
	Images []Image `json:"images,omitempty"`
	// BaseKey is the base's key in the cache; it is not known of an existing image.
	BaseKey string            `json:"baseKey,omitempty"`
	Written nodeimage.Written `json:"bytesWritten"`
	Seconds float64           `json:"seconds"` // of the stamp alone
}

// StampOptions say which node is stamped, and into what.
type StampOptions struct {
	Node string
	// Image is an existing image, which is changed; "" makes a new one in the output
	// folder.
	Image string
	// Card is an existing image on a disk or card that was checked and is held; it is
	// read back.
	Card *flash.Target
	// Reset makes an Image or Card that has been booted boot for the first time again.
	Reset bool
}

// existing says whether an image is stamped that is there already, and where it is.
func (s StampOptions) existing() (path string, ok bool) {
	if s.Card != nil {
		return s.Card.Path, true
	}
	return s.Image, s.Image != ""
}

// FindNode returns the node with a name, for the stamp of an image that is there
// already: the cluster's keys must be there, as new ones would be another cluster's.
func FindNode(o Options, name string) (spec.Node, error) {
	node, err := findNode(o.Cluster, name)
	if err != nil {
		return node, err
	}
	if o.Cluster.Existing() {
		return node, nil // which needs none
	}
	return node, requireKeys(o)
}

// Stamp makes the image of one node, or makes an existing image that node's.
func Stamp(ctx context.Context, o Options, s StampOptions) (*Stamped, error) {
	path, existing := s.existing()
	node, err := findNode(o.Cluster, s.Node)
	if existing {
		node, err = FindNode(o, s.Node)
	}
	if err != nil {
		return nil, err
	}
	unlock, err := lockOutput(o.Out)
	if err != nil {
		return nil, err
	}
	defer unlock()
	o.Progress.Step("keys and tokens")
	authority, err := secrets(o)
	if err != nil {
		return nil, err
	}
	if existing {
		o.Progress.Step("stamp of node " + node.Name)
		id, err := identity(o.Cluster, authority, node)
		if err != nil {
			return nil, err
		}
		start := time.Now()
		var w nodeimage.Written
		if s.Card != nil {
			w, err = s.Card.Stamp(ctx, id, s.Reset)
		} else {
			w, err = nodeimage.Stamp(ctx, path, id, s.Reset)
		}
		return &Stamped{Node: node.Name, Image: path, Written: w, Seconds: time.Since(start).Seconds()}, err
	}
	images, err := o.imagesOf([]spec.Node{node})
	if err != nil {
		return nil, err
	}
	key, base, err := recordedBase(ctx, o, node.Profile)
	if err != nil {
		return nil, fmt.Errorf("base image for profile %s: %w", node.Profile, err)
	}
	start := time.Now()
	w, err := stampNodes(ctx, o, authority, map[string]*nodeimage.Base{node.Profile: base}, []spec.Node{node})
	return &Stamped{
		Node: node.Name, Image: images[0].File, Images: images, BaseKey: key, Written: w, Seconds: time.Since(start).Seconds(),
	}, err
}

func findNode(c *spec.Cluster, name string) (spec.Node, error) {
	var names []string
	for _, n := range c.Nodes {
		if n.Name == name {
			return n, nil
		}
		names = append(names, n.Name)
	}
	return spec.Node{}, fmt.Errorf("cluster %s has no node %q; it has %s", c.Name, name, strings.Join(names, ", "))
}

// recordedBase returns the base that the output folder's images were made of. If
// there is none, or the cache has lost it, it is what a build would use.
func recordedBase(ctx context.Context, o Options, profile string) (string, *nodeimage.Base, error) {
	o.Progress.Step("base image")
	record, err := readBases(o.Out)
	if err != nil {
		return "", nil, err
	}
	if key := record[profile]; key != "" {
		dir, ok, err := o.Cache.Find(ctx, BasesKind, key)
		if err != nil {
			return "", nil, err
		}
		if ok {
			b, err := nodeimage.LoadBase(dir)
			return key, b, err
		}
		o.Progress.Log("the base image of the last build is not in the cache any more")
	}
	found, err := baseFor(ctx, o, profile)
	if err != nil {
		return "", nil, err
	}
	b, err := nodeimage.LoadBase(found.dir)
	if err != nil {
		return "", nil, err
	}
	record[profile] = found.key
	return found.key, b, errors.Join(record.write(o.Out), recordOne(o, found))
}

func identity(c *spec.Cluster, a *pki.Authority, n spec.Node) (nodeimage.Identity, error) {
	r, err := render.Node(c, a, n)
	return nodeimage.Identity{Node: n.Name, Profile: n.Profile, Config: r.Ignition}, err
}

// stampNodes makes the images of nodes in parallel. The first failure stops the
// others; images that are complete stay. It returns what was written for all.
func stampNodes(ctx context.Context, o Options, a *pki.Authority, bases map[string]*nodeimage.Base, nodes []spec.Node) (all nodeimage.Written, err error) {
	step := "image of node " + nodes[0].Name
	if len(nodes) > 1 {
		step = fmt.Sprintf("images of %d nodes", len(nodes))
	}
	o.Progress.Step(step)
	var total, done int64
	for _, n := range nodes {
		size, err := dataSize(bases[n.Profile])
		if err != nil {
			return all, err
		}
		formats, err := o.formatsOf(n)
		if err != nil {
			return all, err
		}
		total += size // to make the raw image, and to read it for the others
		for _, f := range formats {
			if f.Name != format.Raw {
				total += size
			}
		}
	}
	var mu sync.Mutex
	copied := func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		// The formats read blocks, which are more than the data in them.
		done = min(done+n, total)
		o.Progress.Bytes(done, total)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, n := range nodes {
		group.Go(func() error {
			w, err := stampNode(ctx, o, a, bases[n.Profile], n, copied)
			if err != nil {
				return fmt.Errorf("image of node %s: %w", n.Name, err)
			}
			mu.Lock()
			defer mu.Unlock()
			all.Base, all.Stamp = all.Base+w.Base, all.Stamp+w.Stamp
			return nil
		})
	}
	return all, group.Wait()
}

func stampNode(ctx context.Context, o Options, a *pki.Authority, b *nodeimage.Base, n spec.Node, copied func(int64)) (nodeimage.Written, error) {
	// Nodes that wait for their turn when another has failed do not begin.
	if err := ctx.Err(); err != nil {
		return nodeimage.Written{}, err
	}
	id, err := identity(o.Cluster, a, n)
	if err != nil {
		return nodeimage.Written{}, err
	}
	return writeImages(ctx, o, b, n, id, copied)
}

func dataSize(b *nodeimage.Base) (int64, error) {
	f, err := os.Open(b.Image)
	if err != nil {
		return 0, err
	}
	n, err := sparse.DataSize(f)
	return n, errors.Join(err, f.Close())
}
