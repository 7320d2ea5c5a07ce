package build

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kiln-os/kiln/images/disk"
	"github.com/kiln-os/kiln/images/esp"
	"github.com/kiln-os/kiln/internal/cache"
	"github.com/kiln-os/kiln/internal/nodeimage"
	"github.com/kiln-os/kiln/internal/nodeimage/nodeimagetest"
	"github.com/kiln-os/kiln/internal/sparse"
	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/payload"
	"github.com/kiln-os/kiln/profiles"
)

// told is a Progress that checks what it is told.
type told struct {
	t     *testing.T
	mu    sync.Mutex
	steps []string
	done  int64
	total int64
}

func (p *told) Step(name string) { p.steps = append(p.steps, name) }
func (p *told) Log(string)       {}

func (p *told) Bytes(done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if done < p.done || done > total || p.total != 0 && p.total != total {
		p.t.Errorf("%d of %d bytes after %d of %d", done, total, p.done, p.total)
	}
	p.done, p.total = done, total
}

// manyNodes is a cluster of n nodes, the first of which is a control plane, and its
// base images. It is not a file that was parsed.
func manyNodes(t *testing.T, n int) (Options, map[string]*nodeimage.Base, *told) {
	t.Helper()
	c, mistakes := spec.Parse("cluster.yaml", spec.Example(), spec.Known{Profiles: profiles.Names(), Versions: []string{payload.KubernetesVersion}})
	if len(mistakes) > 0 {
		t.Fatal(mistakes)
	}
	addr := c.Nodes[0].Address.Addr()
	for i := 1; i < n; i++ {
		addr = addr.Next()
		c.Nodes = append(c.Nodes, spec.Node{
			Name: fmt.Sprintf("worker-%03d", i), Role: spec.RoleWorker, Profile: nodeimagetest.Profile,
			Address: netip.PrefixFrom(addr, 24), Gateway: c.Nodes[0].Gateway,
		})
	}
	store, err := cache.Open(filepath.Join(t.TempDir(), "cache"))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := store.Dir(t.Context(), BasesKind, cache.Key("base"), func(tmp string) error { return nodeimagetest.WriteBase(tmp, 2) })
	if err != nil {
		t.Fatal(err)
	}
	b, err := nodeimage.LoadBase(dir)
	if err != nil {
		t.Fatal(err)
	}
	p := &told{t: t}
	return Options{Cluster: c, Out: t.TempDir(), Cache: store, Now: time.Now(), Progress: p}, map[string]*nodeimage.Base{nodeimagetest.Profile: b}, p
}

func TestStampAHundredNodes(t *testing.T) {
	o, bases, p := manyNodes(t, 100)
	a, err := secrets(o)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	w, err := stampNodes(t.Context(), o, a, bases, o.Cluster.Nodes)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v, %+v", time.Since(start), w)
	if len(p.steps) != 1 || p.steps[0] != "images of 100 nodes" || p.done != p.total || p.total < 100*(2<<20) {
		t.Errorf("steps %q, %d of %d bytes", p.steps, p.done, p.total)
	}
	seen := map[string]string{}
	for _, n := range o.Cluster.Nodes {
		path := filepath.Join(o.Out, ImageName(n.Name))
		sum, err := sparse.Digest(path)
		if err != nil {
			t.Fatal(err)
		}
		if other := seen[sum]; other != "" {
			t.Errorf("%s and %s have the same image", n.Name, other)
		}
		seen[sum] = n.Name
		config := string(stampOf(t, path)["config.ign"])
		if !strings.Contains(config, n.Name) || n.Role == spec.RoleWorker && strings.Contains(config, "ca.key") {
			t.Errorf("%s has the config of another node", n.Name)
		}
	}
	if entries, _ := os.ReadDir(o.Out); len(entries) != 101 { // and secrets/
		t.Errorf("%d files", len(entries))
	}
	// One alone gets the same bytes.
	alone := filepath.Join(o.Out, ImageName("worker-042"))
	sum, _ := sparse.Digest(alone)
	if err := os.Remove(alone); err != nil {
		t.Fatal(err)
	}
	o.Progress = &told{t: t}
	if _, err := stampNodes(t.Context(), o, a, bases, o.Cluster.Nodes[42:43]); err != nil {
		t.Fatal(err)
	}
	if again, _ := sparse.Digest(alone); again != sum {
		t.Error("stamped alone the image is another one")
	}
}

func stampOf(t *testing.T, path string) map[string][]byte {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := disk.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	part, _ := table.Find(nodeimage.IDsOf(nodeimagetest.Profile).ESP)
	v, err := esp.Open(f, part.Offset, part.Size)
	if err != nil {
		t.Fatal(err)
	}
	files, _, err := v.Read("kiln")
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestTheFirstFailureWins: it names its node, the others stop, and nothing
// half-made is left.
func TestTheFirstFailureWins(t *testing.T) {
	o, bases, _ := manyNodes(t, 40)
	a, err := secrets(o)
	if err != nil {
		t.Fatal(err)
	}
	// A folder in the way of an image.
	if err := os.MkdirAll(filepath.Join(o.Out, "worker-005.img", "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	last := filepath.Join(o.Out, "worker-039.img")
	if err := os.WriteFile(last, []byte("earlier"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = stampNodes(t.Context(), o, a, bases, o.Cluster.Nodes)
	if err == nil || !strings.Contains(err.Error(), "image of node worker-005: ") {
		t.Errorf("error %v", err)
	}
	if b, _ := os.ReadFile(last); string(b) != "earlier" {
		t.Error("nodes behind the failed one were stamped")
	}
	checkNoLeftovers(t, o.Out)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := stampNodes(ctx, o, a, bases, o.Cluster.Nodes[39:]); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	checkNoLeftovers(t, o.Out)
}

func checkNoLeftovers(t *testing.T, dir string) {
	t.Helper()
	if left, _ := filepath.Glob(filepath.Join(dir, ".*.tmp-*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestRecordedBase(t *testing.T) {
	o, _, p := manyNodes(t, 1)
	key := cache.Key("base")
	if err := (baseRecord{nodeimagetest.Profile: key}).write(o.Out); err != nil {
		t.Fatal(err)
	}
	got, b, err := recordedBase(t.Context(), o, nodeimagetest.Profile)
	if err != nil || got != key || b.Profile != nodeimagetest.Profile || len(p.steps) != 1 {
		t.Errorf("%s, %+v, %v", got, b, err)
	}
	// A damaged base is not used, and neither is a record that cannot be read.
	f, err := os.OpenFile(b.Image, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("damage"), 40<<20)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	o.Source = t.TempDir() // a build fails at once
	if _, _, err := recordedBase(t.Context(), o, nodeimagetest.Profile); err == nil || !strings.Contains(err.Error(), "Kiln checkout") {
		t.Errorf("a damaged base: %v", err)
	}
	if err := os.WriteFile(filepath.Join(o.Out, BasesFile), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := recordedBase(t.Context(), o, nodeimagetest.Profile); err == nil || !strings.Contains(err.Error(), BasesFile) {
		t.Errorf("a record that is cut off: %v", err)
	}
}
