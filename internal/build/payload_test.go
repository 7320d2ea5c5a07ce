//go:build integration

package build

import (
	"encoding/json"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kiln-os/kiln/images/elfdeps/elftest"
	"github.com/kiln-os/kiln/images/oci"
	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/cache"
	"github.com/kiln-os/kiln/internal/release"
	"github.com/kiln-os/kiln/internal/release/releasetest"
	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/payload"
)

// TestReleaseIsWhatWasCompiled serves the compiled payload as a release would be: as
// files, archives, and images in a registry with one index for two architectures.
// Pinned and fetched, it must put the same programs at the same places.
//
// It needs the compiled payload for amd64 in the default cache (imagegen payload makes
// it), a gigabyte in the temporary folder, and no network but loopback.
func TestReleaseIsWhatWasCompiled(t *testing.T) {
	ctx := t.Context()
	a, err := arch.Get("amd64")
	if err != nil {
		t.Fatal(err)
	}
	store, err := cache.Open("")
	if err != nil {
		t.Fatal(err)
	}
	source, err := payload.FindSource("")
	if err != nil {
		t.Fatal(err)
	}
	compiled, err := getPayload(ctx, Options{Cluster: &spec.Cluster{KubernetesVersion: payload.KubernetesVersion}, Cache: store, Progress: quiet{t}}, a, source)
	if err != nil {
		t.Fatal(err)
	}

	manifest := filepath.Join(t.TempDir(), "payload.yaml")
	s := serve(t, compiled.programs, manifest)
	// Another cache: nothing may come from the one with the compiled programs.
	if store, err = cache.Open(filepath.Join(t.TempDir(), "cache")); err != nil {
		t.Fatal(err)
	}
	m, mistakes := release.Load(manifest, true)
	if len(mistakes) > 0 {
		t.Fatal(mistakes)
	}
	if _, err := release.Pin(ctx, m, false, release.Options{Cache: store}); err != nil {
		t.Fatal(err)
	}
	if m, mistakes = release.Load(manifest, false); len(mistakes) > 0 {
		t.Fatal(mistakes)
	}
	o := Options{Payload: m, Cache: store, Progress: quiet{t}}
	if _, err := getPayload(ctx, o, a, source); err != nil {
		t.Fatal(err)
	}
	s.Close()
	o.Offline = true
	released, err := getPayload(ctx, o, a, source)
	if err != nil {
		t.Fatalf("a second time, offline: %v", err)
	}
	if released.record.Source != spec.PayloadRelease || released.record.Kubernetes != compiled.record.Kubernetes || len(released.record.Parts) != 7+7 {
		t.Errorf("record: %+v", released.record)
	}
	compare(t, lay(t, a, released), lay(t, a, compiled))
}

// serve publishes the compiled payload and writes the manifest without digests.
func serve(t *testing.T, r payload.Result, manifest string) *releasetest.Server {
	s := releasetest.NewEmptyServer()
	t.Cleanup(s.Close)
	read := func(name string) []byte {
		b, err := r.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(b.Path)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	all := read(payload.Kubernetes) // it is the program by whose name it is called
	for _, n := range []string{"kubelet", "kubectl"} {
		s.Files["v1/"+n] = all
	}
	s.Files["containerd.tgz"] = releasetest.TarGz(map[string][]byte{
		"bin/containerd": read(payload.Containerd), "bin/containerd-shim-runc-v2": read(payload.Shim), "bin/ctr": read(payload.Ctr),
	})
	plugins := map[string][]byte{}
	for _, n := range payload.CNIPlugins() {
		plugins["./"+n] = read(n)
	}
	s.Files["cni.tgz"] = releasetest.TarGz(plugins)
	for _, n := range []string{payload.Flanneld, payload.FlannelInstallConf} {
		s.Files[n] = read(n)
	}
	s.Files["etcd.tar"] = releasetest.Tar(map[string][]byte{"etcd-v3/etcd": read(payload.Etcd), "etcd-v3/etcdctl": read(payload.Etcdctl)})
	images := map[string]map[string][]byte{
		"coredns": {"coredns": read(payload.CoreDNS)}, "pause": {"pause": read(payload.Pause)},
		"etcd": {"usr/local/bin/etcd": read(payload.Etcd), "usr/local/bin/etcdctl": read(payload.Etcdctl)},
	}
	for _, n := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"} {
		images[n] = map[string][]byte{"usr/local/bin/" + n: all}
	}
	versions := map[string]string{"coredns": payload.CoreDNSVersion, "pause": payload.PauseVersion, "etcd": payload.EtcdVersion}
	text := "apiVersion: kiln-os.dev/v1alpha1\nkind: Payload\nbaseURL: " + s.URL + "\nregistry: " + s.Registry + "\nbinaries:\n"
	entry := func(name, version, url string, members ...string) {
		text += "- name: " + name + "\n  version: " + version + "\n  arch: amd64\n  url: " + url + "\n"
		for i, p := range members {
			if i == 0 {
				text += "  members:\n"
			}
			text += "    " + path.Base(p) + ": " + p + "\n"
		}
	}
	entry("kubelet", payload.KubernetesVersion, "v1/kubelet")
	entry("kubectl", payload.KubernetesVersion, "v1/kubectl")
	entry("containerd", payload.ContainerdVersion, "containerd.tgz", "bin/containerd", "bin/containerd-shim-runc-v2", "bin/ctr")
	entry("cni", payload.CNIVersion, "cni.tgz", payload.CNIPlugins()...)
	entry("flanneld", payload.FlannelVersion, "flanneld")
	entry("install-conf", payload.FlannelVersion, "install-conf")
	entry("etcd-archive", payload.EtcdVersion, "etcd.tar", "etcd-v3/etcd", "etcd-v3/etcdctl")
	text += "images:\n"
	for n, files := range images {
		version := versions[n]
		if version == "" {
			version = payload.KubernetesVersion
		}
		var entrypoint string
		for p := range files {
			if path.Base(p) == n {
				entrypoint = "/" + p
			}
		}
		push(t, s, n, entrypoint, files)
		text += "- name: " + n + "\n  version: \"" + version + "\"\n  ref: /" + n + ":v1\n"
	}
	// Flannel's image is composed: of its programs, and of tools from Debian's packages.
	if err := os.WriteFile(manifest, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return s
}

func push(t *testing.T, s *releasetest.Server, name, entrypoint string, files map[string][]byte) {
	t.Helper()
	var both []v1.Image
	for goarch, files := range map[string]map[string][]byte{"amd64": files, "arm64": {"other": []byte("machine")}} {
		img, err := releasetest.Image(goarch, entrypoint, files)
		if err != nil {
			t.Fatal(err)
		}
		both = append(both, img)
	}
	index, err := releasetest.Index(both...)
	if err == nil {
		err = s.Push(name, index)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// lay puts the programs and images of a payload where a base has them.
func lay(t *testing.T, a arch.Arch, p payloadParts) *tree.Tree {
	t.Helper()
	ps := programs{firstbootProgram: {path: os.Args[0]}, installProgram: {path: os.Args[0]}}
	for _, b := range p.programs.Binaries {
		ps[b.Name] = program{b.Path, b.SHA256}
	}
	tr := packages()
	list, err := osPrograms(ps)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list {
		for _, n := range append(i.Names, i.Path) {
			tr.Set(n, &tree.Entry{Type: tree.File, Mode: 0o755, Content: i.Content})
		}
		for _, l := range i.Links {
			tr.AddSymlink(l, "/"+i.Path)
		}
	}
	in := inputs{arch: a, programs: ps, payload: p, time: time.Unix(1, 0)}
	if err := describePayload(tr, in); err != nil {
		t.Fatal(err)
	}
	if _, err := addImages(tr, in); err != nil {
		t.Fatal(err)
	}
	return tr
}

// compare fails if the node, or a container, would run other bytes. A release's image
// may have less around its program, and one file where there were links to one.
func compare(t *testing.T, got, want *tree.Tree) {
	t.Helper()
	same := func(what string, g *tree.Tree, gp string, w *tree.Tree, wp string) {
		t.Helper()
		_, ge, gerr := g.Lookup(gp)
		_, we, werr := w.Lookup(wp)
		if gerr != nil || werr != nil {
			t.Errorf("%s: %v, %v", what, gerr, werr)
			return
		}
		if gd, wd := digest(t, ge), digest(t, we); gd != wd || ge.Mode != we.Mode {
			t.Errorf("%s: %s, compiled it is %s", what, gd, wd)
		}
	}
	host := []string{"usr/bin/kubelet", "usr/bin/kubectl", "usr/bin/containerd", "usr/bin/containerd-shim-runc-v2", "usr/bin/ctr"}
	for _, n := range payload.CNIPlugins() {
		host = append(host, "usr/lib/cni/"+n)
	}
	for _, p := range host {
		same("/"+p, got, p, want, p)
	}
	gi, wi := readImages(t, got), readImages(t, want)
	if len(gi) != len(wi) || len(gi) != 8 {
		t.Errorf("%d images, compiled there are %d", len(gi), len(wi))
	}
	for ref, w := range wi {
		g, ok := gi[ref]
		if !ok {
			t.Errorf("no image %s", ref)
			continue
		}
		if g.entrypoint != w.entrypoint {
			t.Errorf("%s: entrypoint %q, compiled it is %q", ref, g.entrypoint, w.entrypoint)
		}
		same(ref, g.root, w.entrypoint, w.root, w.entrypoint)
	}
	b, err := got.ReadFile("usr/lib/os-release")
	if err != nil || !strings.Contains(string(b), "KILN_PAYLOAD=release\nKILN_KUBERNETES="+payload.KubernetesVersion+"\n") {
		t.Errorf("os-release: %s, %v", b, err)
	}
}

// image is one of a layout, with what its containers see.
type image struct {
	entrypoint string
	root       *tree.Tree
}

func readImages(t *testing.T, tr *tree.Tree) map[string]image {
	t.Helper()
	decode := func(p string, into any) {
		t.Helper()
		b, err := tr.ReadFile(p)
		if err == nil {
			err = json.Unmarshal(b, into)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var index v1.IndexManifest
	decode(imagesDir+"/index.json", &index)
	out := map[string]image{}
	for _, d := range index.Manifests {
		var m v1.Manifest
		decode(imagesDir+"/blobs/sha256/"+d.Digest.Hex, &m)
		var c v1.ConfigFile
		decode(imagesDir+"/blobs/sha256/"+m.Config.Digest.Hex, &c)
		i := image{entrypoint: strings.Join(c.Config.Entrypoint, " "), root: tree.New()}
		for _, l := range m.Layers {
			dir := imagesDir + "/" + oci.LayersDir + "/" + l.Digest.Hex + "/"
			_ = tr.Walk(func(p string, e *tree.Entry) error {
				if rest, ok := strings.CutPrefix(p, dir); ok {
					i.root.Set(rest, e)
				}
				return nil
			})
		}
		out[d.Annotations["io.containerd.image.name"]] = i
	}
	return out
}

func digest(t *testing.T, e *tree.Entry) string {
	t.Helper()
	f, err := e.Content.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h, _, err := v1.SHA256(f)
	if err != nil {
		t.Fatal(err)
	}
	return h.Hex
}

// packages is what the images and the node take from Debian's.
func packages() *tree.Tree {
	const lib, interp = "usr/lib/x86_64-linux-gnu/", "/usr/lib64/ld-linux-x86-64.so.2"
	t := tree.New()
	t.AddFile("usr/lib64/ld-linux-x86-64.so.2", 0o755, elftest.File{}.Bytes())
	t.AddFile(lib+"libc.so.6", 0o755, elftest.File{}.Bytes())
	t.AddFile(lib+"xtables/libxt_comment.so", 0o755, elftest.File{Needed: []string{"libc.so.6"}}.Bytes())
	for _, p := range []string{"usr/sbin/xtables-nft-multi", "usr/sbin/nft", "usr/bin/ip", "usr/sbin/conntrack"} {
		t.AddFile(p, 0o755, elftest.File{Interp: interp, Needed: []string{"libc.so.6"}}.Bytes())
	}
	for _, p := range []string{"etc/protocols", "etc/services", "etc/ssl/certs/ca-certificates.crt", "usr/lib/os-release"} {
		t.AddFile(p, 0o644, []byte(p+"\n"))
	}
	return t
}

type quiet struct{ t *testing.T }

func (q quiet) Step(s string)      { q.t.Log(s) }
func (q quiet) Bytes(int64, int64) {}
func (q quiet) Log(s string)       { q.t.Log(s) }
