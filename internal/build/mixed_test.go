package build

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/images/deb"
	"github.com/kiln-os/kiln/images/disk"
	"github.com/kiln-os/kiln/images/esp"
	"github.com/kiln-os/kiln/images/grub"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/cache"
	"github.com/kiln-os/kiln/internal/nodeimage"
	"github.com/kiln-os/kiln/internal/nodeimage/nodeimagetest"
	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/payload"
	"github.com/kiln-os/kiln/profiles"
)

// TestExamples: examples have no mistakes.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(files) < 2 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		example(t, f)
	}
}

func example(t *testing.T, file string) *spec.Cluster {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	known := spec.Known{Profiles: profiles.Names(), WiFi: profiles.WithWiFi(), Versions: []string{payload.KubernetesVersion}}
	c, mistakes := spec.Parse(file, text, known)
	if len(mistakes) > 0 {
		t.Fatal(mistakes)
	}
	return c
}

// TestMixedCluster: in a cluster of several architectures each node gets the base image of
// its own, with the boot loader and the partition types that its firmware looks for.
func TestMixedCluster(t *testing.T) {
	c := example(t, "../../examples/mixed.yaml")
	power := c.Nodes[len(c.Nodes)-1] // a worker
	power.Name, power.Profile = "worker-3", "qemu-ppc64le"
	c.Nodes = append(c.Nodes, power)
	store, err := cache.Open(filepath.Join(t.TempDir(), "cache"))
	if err != nil {
		t.Fatal(err)
	}
	bases := map[string]*nodeimage.Base{}
	for _, n := range c.Nodes {
		dir, err := store.Dir(t.Context(), BasesKind, cache.Key(n.Profile), func(tmp string) error { return nodeimagetest.WriteBaseFor(tmp, n.Profile, 2) })
		if err != nil {
			t.Fatal(err)
		}
		if bases[n.Profile], err = nodeimage.LoadBase(dir); err != nil {
			t.Fatal(err)
		}
	}
	o := Options{Cluster: c, Out: t.TempDir(), Cache: store, Now: time.Now(), Progress: &told{t: t}}
	authority, err := secrets(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stampNodes(t.Context(), o, authority, bases, c.Nodes); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.Nodes {
		p, err := profiles.Load(n.Profile)
		if err != nil {
			t.Fatal(err)
		}
		a, err := arch.Get(p.Arch)
		if err != nil {
			t.Fatal(err)
		}
		checkArchitecture(t, filepath.Join(o.Out, ImageName(n.Name)), n, a)
	}
}

// checkArchitecture holds a node's image to an architecture.
func checkArchitecture(t *testing.T, path string, n spec.Node, a arch.Arch) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if profile, node, err := nodeimage.NodeOf(f); err != nil || profile != n.Profile || node != n.Name {
		t.Errorf("%s is the image of %s, profile %s, %v", path, node, profile, err)
	}
	table, err := disk.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	usr := false
	for _, part := range table.Partitions {
		usr = usr || strings.EqualFold(part.Type.String(), a.UsrType)
	}
	if !usr {
		t.Errorf("%s has no /usr partition of %s", n.Name, a.Go)
	}
	_, boot, err := nodeimage.ProfileOf(table)
	if err != nil {
		t.Fatal(err)
	}
	v, err := esp.Open(f, boot.Offset, boot.Size)
	if err != nil {
		t.Fatal(err)
	}
	if a.Boot == arch.BootPReP {
		s, found, err := grub.ReadText(v, "kiln-a")
		if err := errors.Join(err, nodeimage.CheckPReP(f, table)); err != nil || !found || len(s.Cmdline) == 0 {
			t.Errorf("%s: GRUB finds %v, command line %q: %v", n.Name, found, s.Cmdline, err)
		}
		return
	}
	files, _, err := v.Read("EFI/BOOT")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := files[a.EFIName]; !ok || len(files) != 1 {
		t.Errorf("%s has %d boot loaders in EFI/BOOT, and %s among them: %v", n.Name, len(files), a.EFIName, ok)
	}
}

// TestRecordOfSeveral: the output folder tells what every kind of machine is made of.
func TestRecordOfSeveral(t *testing.T) {
	out := t.TempDir()
	lock := func(a string) *deb.Lock { return &deb.Lock{Suite: "trixie", Arch: a, Components: []string{"main"}} }
	err := recordAll(out, []*foundBase{
		{lock: lock("amd64"), payload: Payload{Arch: "amd64"}},
		{lock: lock("arm64"), payload: Payload{Arch: "arm64"}},
		{lock: lock("amd64"), payload: Payload{Arch: "amd64"}}, // another profile
	})
	if err != nil {
		t.Fatal(err)
	}
	locks, err := deb.ReadLocks(filepath.Join(out, LockFile))
	if err != nil || len(locks) != 3 || locks[1].Arch != "arm64" {
		t.Errorf("%d locks, %v", len(locks), err)
	}
	// A base that was lost and is made anew has newer packages; the others stay.
	c := &spec.Cluster{Nodes: []spec.Node{{Profile: "qemu-amd64"}, {Profile: "qemu-arm64"}}}
	newer := lock("arm64")
	newer.InRelease = "newer"
	if err := recordOne(Options{Cluster: c, Out: out}, &foundBase{lock: newer, payload: Payload{Arch: "arm64"}}); err != nil {
		t.Fatal(err)
	}
	if locks, err = deb.ReadLocks(filepath.Join(out, LockFile)); err != nil || len(locks) != 3 || locks[2].InRelease != "newer" {
		t.Errorf("%d locks, %v", len(locks), err)
	}
	for file, want := range map[string]string{PayloadFile: "amd64", "kiln.payload.arm64.json": "arm64"} {
		b, err := os.ReadFile(filepath.Join(out, file))
		if err != nil || !strings.Contains(string(b), `"arch": "`+want+`"`) {
			t.Errorf("%s: %s, %v", file, b, err)
		}
	}
}
