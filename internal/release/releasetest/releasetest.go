// Package releasetest makes small releases for tests: a Go program whose build
// information and text pass for every program of a payload, archives and images with
// it, and the servers that they come from.
package releasetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kiln-os/kiln/payload"
)

// Versions of components whose version is the user's to choose.
const (
	ContainerdVersion = "v2.9.1"
	CNIVersion        = "v1.8.3"
)

var modules = []string{
	"k8s.io/kubernetes", "go.etcd.io/etcd", "github.com/coredns/coredns", "github.com/flannel-io/flannel",
	"github.com/containerd/containerd", "github.com/containernetworking/plugins",
}

// Program compiles, in dir, the program that passes for all. Its build information
// names every component's module without a version, as builds from a checkout do.
func Program(dir, goarch string) ([]byte, error) {
	gomod := "module example.com/all\n\ngo 1.24\n"
	imports, uses := "", ""
	for i, m := range modules {
		local := filepath.Join(dir, fmt.Sprint("m", i))
		gomod += fmt.Sprintf("require %s v0.0.0\nreplace %s => %s\n", m, m, local)
		imports += fmt.Sprintf("import m%d %q\n", i, m)
		uses += fmt.Sprintf("\tprintln(m%d.Name)\n", i)
		for name, text := range map[string]string{
			"go.mod": "module " + m + "\n\ngo 1.24\n", "m.go": fmt.Sprintf("package m\n\nvar Name = %q\n", m),
		} {
			if err := write(filepath.Join(local, name), text); err != nil {
				return nil, err
			}
		}
	}
	versions := []string{
		payload.KubernetesVersion, payload.EtcdVersion, payload.CoreDNSVersion, payload.FlannelVersion, payload.PauseVersion,
		ContainerdVersion, CNIVersion,
	}
	main := fmt.Sprintf("package main\n\n%s\nvar versions = %q\n\nfunc main() {\n%s\tprintln(versions)\n}\n", imports, " "+strings.Join(versions, " ")+" ", uses)
	for name, text := range map[string]string{"go.mod": gomod, "main.go": main} {
		if err := write(filepath.Join(dir, name), text); err != nil {
			return nil, err
		}
	}
	out := filepath.Join(dir, "program-"+goarch)
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out, ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+goarch, "GOFLAGS=-mod=mod", "GOWORK=off", "GOPROXY=off", "GOTOOLCHAIN=local")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, text)
	}
	return os.ReadFile(out)
}

func write(file, text string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(text), 0o644)
}

// TarGz is an archive of the files, sorted.
func TarGz(files map[string][]byte) []byte {
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed) // the level is one
	_, _ = z.Write(Tar(files))                      // a buffer takes everything
	_ = z.Close()
	return b.Bytes()
}

// Tar is a layer with the files, sorted.
func Tar(files map[string][]byte) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	var names []string
	for n := range files {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		_ = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: n, Mode: 0o755, Size: int64(len(files[n]))})
		_, _ = w.Write(files[n])
	}
	_ = w.Close()
	return b.Bytes()
}

// Image is an image for an architecture with one layer for each map of files.
func Image(goarch, entrypoint string, layers ...map[string][]byte) (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, files := range layers {
		raw := Tar(files)
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil }, tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.BestSpeed))
		if err != nil {
			return nil, err
		}
		if img, err = mutate.AppendLayers(img, l); err != nil {
			return nil, err
		}
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", goarch
	if entrypoint != "" {
		config.Config.Entrypoint = []string{entrypoint}
	}
	config.Config.User = "65532"
	return mutate.ConfigFile(img, config)
}

// Index has the images, each under the architecture of its configuration.
func Index(images ...v1.Image) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, i := range images {
		c, err := i.ConfigFile()
		if err != nil {
			return nil, err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: i, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: c.OS, Architecture: c.Architecture}}})
	}
	return index, nil
}

// Server has a whole release for amd64.
type Server struct {
	// Files are served by path, without a slash at its start.
	Files map[string][]byte
	// Handler, if set, may answer a request for a file; it reports whether it did.
	Handler func(http.ResponseWriter, *http.Request) bool
	// RegistryHandler is the same for the registry.
	RegistryHandler func(http.ResponseWriter, *http.Request) bool
	// URL of the files, Registry's host and port.
	URL, Registry string

	close []func()
}

// Images of a release: where the program is by image name.
var imagePrograms = map[string][]string{
	"kube-apiserver": {"usr/local/bin/kube-apiserver"}, "kube-controller-manager": {"usr/local/bin/kube-controller-manager"},
	"kube-scheduler": {"usr/local/bin/kube-scheduler"}, "kube-proxy": {"usr/local/bin/kube-proxy"},
	"etcd": {"usr/local/bin/etcd", "usr/local/bin/etcdctl"}, "coredns": {"coredns"}, "pause": {"pause"},
	"flannel": {"opt/bin/flanneld", "opt/bin/install-conf"},
}

// NewServer starts the servers of a release whose programs all are program.
func NewServer(program []byte) (*Server, error) {
	s := NewEmptyServer()
	plugins := map[string][]byte{}
	for _, p := range payload.CNIPlugins() {
		plugins["./"+p] = program
	}
	s.Files["kubelet"], s.Files["kubectl"] = program, program
	s.Files["containerd.tar.gz"] = TarGz(map[string][]byte{"bin/containerd": program, "bin/containerd-shim-runc-v2": program, "bin/ctr": program})
	s.Files["cni.tgz"] = TarGz(plugins)
	for n, paths := range imagePrograms {
		files := map[string][]byte{}
		for _, p := range paths {
			files[p] = program
		}
		img, err := Image("amd64", "/"+paths[0], files)
		if err == nil {
			err = s.Push(n, img)
		}
		if err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

// NewEmptyServer starts the servers without a release.
func NewEmptyServer() *Server {
	s := &Server{Files: map[string][]byte{}}
	files := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.Handler != nil && s.Handler(w, r) {
			return
		}
		b, ok := s.Files[strings.TrimPrefix(r.URL.Path, "/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		_, _ = w.Write(b)
	}))
	store := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	reg := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.RegistryHandler != nil && s.RegistryHandler(w, r) {
			return
		}
		store.ServeHTTP(w, r)
	}))
	s.URL, s.Registry, s.close = files.URL, strings.TrimPrefix(reg.URL, "http://"), []func(){files.Close, reg.Close}
	return s
}

// Push gives the registry an image or an index under NAME:v1.
func (s *Server) Push(repo string, img remote.Taggable) error {
	tag, err := name.NewTag(s.Registry + "/" + repo + ":v1")
	if err != nil {
		return err
	}
	if index, ok := img.(v1.ImageIndex); ok {
		return remote.WriteIndex(tag, index)
	}
	return remote.Write(tag, img.(v1.Image))
}

// Close stops the servers.
func (s *Server) Close() {
	for _, f := range s.close {
		f()
	}
}

// Manifest lists the release without digests.
func (s *Server) Manifest() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Of a test.\napiVersion: kiln-os.dev/v1alpha1\nkind: Payload\nbaseURL: %s/\nregistry: %s\nbinaries:\n", s.URL, s.Registry)
	entry := func(name, version, url string) {
		fmt.Fprintf(&b, "  - name: %s\n    version: %s\n    arch: amd64\n    url: %s   # comment\n", name, version, url)
	}
	entry("kubelet", payload.KubernetesVersion, "kubelet")
	entry("kubectl", payload.KubernetesVersion, "kubectl")
	entry("containerd", ContainerdVersion, "containerd.tar.gz")
	b.WriteString("    members: {containerd: bin/containerd, containerd-shim-runc-v2: bin/containerd-shim-runc-v2, ctr: bin/ctr}\n")
	entry("cni", CNIVersion, "cni.tgz")
	b.WriteString("    members:\n")
	for _, p := range payload.CNIPlugins() {
		fmt.Fprintf(&b, "      %s: %s\n", p, p)
	}
	b.WriteString("images:\n")
	versions := map[string]string{"etcd": payload.EtcdVersion, "coredns": payload.CoreDNSVersion, "pause": payload.PauseVersion, "flannel": payload.FlannelVersion}
	var names []string
	for n := range imagePrograms {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		v, ok := versions[n]
		if !ok {
			v = payload.KubernetesVersion
		}
		fmt.Fprintf(&b, "  - name: %s\n    version: %q\n    ref: /%s:v1\n", n, v, n)
	}
	return b.String()
}
