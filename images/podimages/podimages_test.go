package podimages

import (
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/images/elfdeps/elftest"
	"github.com/kiln-os/kiln/images/oci"
	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/staticpod"
	"github.com/kiln-os/kiln/payload"
)

const lib = "usr/lib/x86_64-linux-gnu/"

// packages is a tree with what the images take from a node's packages.
func packages() *tree.Tree {
	const interp = "/lib64/ld-linux-x86-64.so.2"
	t := tree.New()
	add := func(p string, f elftest.File) { t.AddFile(p, 0o755, f.Bytes()) }
	t.AddSymlink("usr/lib64/ld-linux-x86-64.so.2", "../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
	add(lib+"ld-linux-x86-64.so.2", elftest.File{})
	add(lib+"libc.so.6", elftest.File{Needed: []string{"ld-linux-x86-64.so.2"}})
	add(lib+"libxtables.so.12.7.0", elftest.File{Needed: []string{"libc.so.6"}})
	t.AddSymlink(lib+"libxtables.so.12", "libxtables.so.12.7.0")
	add(lib+"libunrelated.so.1", elftest.File{})
	add(lib+"xtables/libxt_comment.so", elftest.File{Needed: []string{"libxtables.so.12"}})
	add("usr/sbin/xtables-nft-multi", elftest.File{Interp: interp, Needed: []string{"libxtables.so.12", "libc.so.6"}})
	for _, p := range []string{"usr/sbin/nft", "usr/bin/ip", "usr/sbin/conntrack", "usr/bin/unrelated"} {
		add(p, elftest.File{Interp: interp, Needed: []string{"libc.so.6"}})
	}
	for _, p := range []string{"etc/protocols", "etc/services", "etc/ssl/certs/ca-certificates.crt"} {
		t.AddFile(p, 0o644, []byte(p))
	}
	return t
}

// built is a payload of small files.
func built(t *testing.T) payload.Result {
	dir := t.TempDir()
	components, err := payload.Components(payload.KubernetesVersion)
	if err != nil {
		t.Fatal(err)
	}
	var r payload.Result
	for _, c := range components {
		for _, p := range c.Programs {
			file := filepath.Join(dir, p.Name)
			if err := os.WriteFile(file, []byte(p.Name), 0o755); err != nil {
				t.Fatal(err)
			}
			r.Binaries = append(r.Binaries, payload.Binary{Name: p.Name, Path: file, Version: c.Version})
		}
	}
	sort.Slice(r.Binaries, func(i, j int) bool { return r.Binaries[i].Name < r.Binaries[j].Name })
	return r
}

func images(t *testing.T) map[string]oci.Image {
	t.Helper()
	a, err := arch.Get("amd64")
	if err != nil {
		t.Fatal(err)
	}
	list, err := Images(packages(), a, built(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]oci.Image{}
	for _, i := range list {
		m[i.Ref] = i
	}
	return m
}

// rootfs is what a container of the image sees.
func rootfs(i oci.Image) *tree.Tree {
	t := tree.New()
	for _, l := range i.Layers {
		_ = l.Walk(func(p string, e *tree.Entry) error {
			t.Set(p, e)
			return nil
		})
	}
	return t
}

// The names are what the node's pods ask for; a wrong tag is a pull without a network.
func TestNames(t *testing.T) {
	want := []string{
		"ghcr.io/flannel-io/flannel:v0.28.10",
		"registry.k8s.io/coredns/coredns:v1.14.6",
		"registry.k8s.io/etcd:3.7.0-0",
		"registry.k8s.io/kube-apiserver:v1.37.2",
		"registry.k8s.io/kube-controller-manager:v1.37.2",
		"registry.k8s.io/kube-proxy:v1.37.2",
		"registry.k8s.io/kube-scheduler:v1.37.2",
		"registry.k8s.io/pause:3.10.2",
	}
	var got []string
	for ref := range images(t) {
		got = append(got, ref)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("images\n got %q\nwant %q", got, want)
	}
	if Etcd != staticpod.EtcdImage {
		t.Errorf("the static pod runs %s, baked is %s", staticpod.EtcdImage, Etcd)
	}
	if tag := strings.TrimPrefix(payload.EtcdVersion, "v") + "-0"; !strings.HasSuffix(Etcd, ":"+tag) {
		t.Errorf("%s holds etcd %s", Etcd, payload.EtcdVersion)
	}
}

func TestContents(t *testing.T) {
	all := images(t)
	for _, c := range []struct {
		ref, user  string
		entrypoint string
		has        []string // paths, through links
		hasNot     []string
	}{
		{APIServer, "", "/usr/local/bin/kube-apiserver", []string{"usr/local/bin/kubectl", "etc/ssl/certs/ca-certificates.crt", "tmp"}, []string{"usr/sbin/nft"}},
		{ControllerManager, "", "/usr/local/bin/kube-controller-manager", []string{"etc/passwd"}, nil},
		{Scheduler, "", "/usr/local/bin/kube-scheduler", []string{"etc/nsswitch.conf"}, nil},
		{Proxy, "", "/usr/local/bin/kube-proxy", []string{
			"usr/sbin/iptables-restore", "usr/sbin/ip6tables-save", "usr/sbin/nft", "usr/sbin/conntrack", "sbin/iptables",
			"lib64/ld-linux-x86-64.so.2", lib + "libxtables.so.12", lib + "xtables/libxt_comment.so", "etc/protocols",
		}, []string{"usr/bin/unrelated", lib + "libunrelated.so.1"}},
		{Flannel, "", "/opt/bin/flanneld", []string{"opt/bin/install-conf", "usr/sbin/iptables", "usr/bin/ip"}, []string{"usr/local/bin/kubernetes"}},
		{Etcd, "", "/usr/local/bin/etcd", []string{"usr/local/bin/etcdctl"}, nil},
		{CoreDNS, "65532:65532", "/coredns", []string{"etc/ssl/certs/ca-certificates.crt"}, nil},
		{Pause, "65535:65535", "/pause", nil, []string{"etc"}},
	} {
		i := all[c.ref]
		fs := rootfs(i)
		if i.User != c.user || len(i.Entrypoint) != 1 || i.Entrypoint[0] != c.entrypoint || i.WorkingDir != "/" {
			t.Errorf("%s: user %q, entrypoint %q, working folder %q", c.ref, i.User, i.Entrypoint, i.WorkingDir)
		}
		if _, e, err := fs.Lookup(c.entrypoint); err != nil || e.Type != tree.File || e.Mode != 0o755 {
			t.Errorf("%s: entrypoint %s: %v, %v", c.ref, c.entrypoint, e, err)
		}
		for _, p := range c.has {
			if _, _, err := fs.Lookup(p); err != nil {
				t.Errorf("%s: %v", c.ref, err)
			}
		}
		for _, p := range c.hasNot {
			if fs.Get(p) != nil {
				t.Errorf("%s has /%s", c.ref, p)
			}
		}
	}
	// cap_net_bind_service is capability 10.
	x := rootfs(all[CoreDNS]).Get("coredns").Xattrs["security.capability"]
	if len(x) != 20 || x[0] != 1 || x[3] != 2 || uint32(x[4])|uint32(x[5])<<8 != 1<<10 {
		t.Errorf("capabilities of coredns: %x", x)
	}
}

func TestLayersAreShared(t *testing.T) {
	all := images(t)
	last := func(ref string) *tree.Tree { l := all[ref].Layers; return l[len(l)-1] }
	for _, ref := range []string{ControllerManager, Scheduler, Proxy} {
		if last(ref) != last(APIServer) {
			t.Errorf("%s has its own layer of programs", ref)
		}
	}
	if all[Proxy].Layers[1] != all[Flannel].Layers[1] {
		t.Error("kube-proxy and flannel have two layers of packet filter tools")
	}
	var list []oci.Image
	for _, i := range all {
		list = append(list, i)
	}
	out := tree.New()
	if err := oci.WriteLayout(out, "images", list, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	blobs, layers := 0, 0
	for _, p := range out.Paths() {
		if strings.HasPrefix(p, "images/blobs/sha256/") {
			blobs++
		}
		if strings.HasPrefix(p, "images/layers/") && strings.Count(p, "/") == 2 {
			layers++
		}
	}
	// 8 manifests, 8 configurations; base, kubernetes, netfilter, etcd, coredns, pause, flannel.
	if blobs != 8+8 || layers != 7 {
		t.Errorf("%d blobs and %d layers, expected 16 and 7", blobs, layers)
	}
}

func TestErrors(t *testing.T) {
	a, err := arch.Get("amd64")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		without, words string
	}{
		{"usr/sbin/nft", "no /usr/sbin/nft"},
		{lib + "libxtables.so.12", "libxtables.so.12"},
		{lib + "xtables", "no iptables plugins"},
		{"etc/ssl/certs/ca-certificates.crt", "ca-certificates.crt"},
	} {
		os := packages()
		os.Delete(c.without)
		if _, err := Images(os, a, built(t), nil); err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("without %s: error %v", c.without, err)
		}
	}
	r := built(t)
	r.Binaries = slices.DeleteFunc(r.Binaries, func(b payload.Binary) bool { return b.Name == payload.Etcd })
	if _, err := Images(packages(), a, r, nil); err == nil || !strings.Contains(err.Error(), `"etcd"`) {
		t.Errorf("without etcd: error %v", err)
	}
}

// A release has every program by itself, perhaps of another patch release, and images
// that are made already.
func TestReleasedPrograms(t *testing.T) {
	a, err := arch.Get("amd64")
	if err != nil {
		t.Fatal(err)
	}
	r := built(t)
	r.Binaries = slices.DeleteFunc(r.Binaries, func(b payload.Binary) bool { return b.Name == payload.Kubernetes || b.Name == payload.Etcd })
	file := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(file, []byte("program"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, n := range payload.KubernetesPrograms() {
		r.Binaries = append(r.Binaries, payload.Binary{Name: n, Path: file, Version: "v1.37.5"})
	}
	sort.Slice(r.Binaries, func(i, j int) bool { return r.Binaries[i].Name < r.Binaries[j].Name })
	root := tree.New()
	root.AddFile("etcd", 0o755, []byte("released"))
	ready := map[string]oci.Image{"etcd": {Arch: a, Layers: []*tree.Tree{root}, Entrypoint: []string{"/etcd"}, User: "7"}}
	list, err := Images(packages(), a, r, ready)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]oci.Image{}
	for _, i := range list {
		all[i.Ref] = i
	}
	if i := all[Etcd]; i.User != "7" || i.Layers[0] != root || len(list) != 8 {
		t.Errorf("%d images, etcd is %+v", len(list), i)
	}
	for _, n := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"} {
		i, ok := all["registry.k8s.io/"+n+":v1.37.5"]
		if !ok {
			t.Errorf("no image of %s v1.37.5", n)
			continue
		}
		if e := rootfs(i).Get("usr/local/bin/" + n); e == nil || e.Type != tree.File {
			t.Errorf("%s: its program is %+v", n, e)
		}
	}
}
