package release

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kiln-os/kiln/images/elfdeps/elftest"
	"github.com/kiln-os/kiln/images/oci"
	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/cache"
	"github.com/kiln-os/kiln/internal/release/releasetest"
	"github.com/kiln-os/kiln/payload"
)

// program is the one that passes for every program of amd64.
var program = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "kiln-release-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	return releasetest.Program(dir, "amd64")
})

// fixture is a release with its servers, and a manifest of it without digests.
type fixture struct {
	*releasetest.Server
	t    *testing.T
	file string
	opts Options
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	b, err := program()
	if err != nil {
		t.Fatal(err)
	}
	s, err := releasetest.NewServer(b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	f := &fixture{Server: s, t: t, file: filepath.Join(t.TempDir(), "payload.yaml")}
	f.write(s.Manifest())
	f.opts = Options{Arch: amd64(t), Cache: newCache(t), Wait: time.Millisecond}
	return f
}

func amd64(t *testing.T) arch.Arch {
	a, err := arch.Get("amd64")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newCache(t *testing.T) *cache.Cache {
	c, err := cache.Open(filepath.Join(t.TempDir(), "cache"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (f *fixture) write(text string) {
	f.t.Helper()
	if err := os.WriteFile(f.file, []byte(text), 0o640); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) text() string {
	f.t.Helper()
	b, err := os.ReadFile(f.file)
	if err != nil {
		f.t.Fatal(err)
	}
	return string(b)
}

func (f *fixture) load(unpinned bool) *Manifest {
	f.t.Helper()
	m, mistakes := Load(f.file, unpinned)
	if len(mistakes) > 0 {
		f.t.Fatal(mistakes)
	}
	return m
}

// pinned is the manifest with digests.
func (f *fixture) pinned() *Manifest {
	f.t.Helper()
	if _, err := Pin(f.t.Context(), f.load(true), false, f.opts); err != nil {
		f.t.Fatal(err)
	}
	return f.load(false)
}

// fresh forgets what was fetched.
func (f *fixture) fresh() { f.opts.Cache = newCache(f.t) }

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func sum512(b []byte) string {
	s := sha512.Sum512(b)
	return hex.EncodeToString(s[:])
}

func TestPinAndGet(t *testing.T) {
	f := newFixture(t)
	f.Files["kubelet.sha256"] = []byte(sum(f.Files["kubelet"]) + "\n")
	f.Files["cni.tgz.sha512"] = []byte(sum512(f.Files["cni.tgz"]) + "  cni.tgz\n")
	list, err := Pin(t.Context(), f.load(true), false, f.opts)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 4+8 || list[0].Name != "kubelet" || list[0].SHA256 != sum(f.Files["kubelet"]) || len(list[0].CheckedBy) != 1 || len(list[3].CheckedBy) != 1 || len(list[1].CheckedBy) != 0 {
		t.Errorf("%+v", list)
	}
	text := f.text()
	for _, want := range []string{
		"# Of a test.\n",
		"    url: kubelet   # comment\n    sha256: " + sum(f.Files["kubelet"]) + "\n    size: " + fmt.Sprint(len(f.Files["kubelet"])) + "\n  - name: kubectl\n",
		"    ref: /pause:v1@sha256:",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the manifest has no %q:\n%s", want, text)
		}
	}
	if st, err := os.Stat(f.file); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	m := f.load(false)
	if again, err := Pin(t.Context(), m, false, f.opts); err != nil || len(again) != 0 || f.text() != text {
		t.Errorf("pinning again: %v, %v", again, err)
	}
	f.fresh()
	for _, offline := range []bool{false, true} {
		if f.opts.Offline = offline; offline {
			f.Close()
		}
		r, err := Get(t.Context(), m, f.opts)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Programs.Binaries) != 2+3+10 || len(r.Images) != 8 || len(r.Sources) != 12 || r.Programs.KubernetesVersion() != payload.KubernetesVersion {
			t.Errorf("%d programs, %d images, %d sources", len(r.Programs.Binaries), len(r.Images), len(r.Sources))
		}
		for _, n := range append(hostPrograms, "flannel") {
			b, err := r.Programs.Get(n)
			if err != nil || b.SHA256 != sum(f.Files["kubelet"]) || b.Version == "" {
				t.Errorf("%s: %+v, %v", n, b, err)
			}
		}
		if i := r.Images["coredns"]; i.Entrypoint[0] != "/coredns" || i.User != "65532" || len(i.Layers) != 1 || i.Layers[0].Get("coredns") == nil {
			t.Errorf("image: %+v", i)
		}
	}
}

func TestUpdateFollowsWhatMoved(t *testing.T) {
	f := newFixture(t)
	f.pinned()
	before := f.text()
	other := append([]byte(nil), f.Files["kubelet"]...)
	other = append(other, 0)
	f.Files["kubelet"] = other
	img, err := releasetest.Image("amd64", "/pause", map[string][]byte{"pause": other})
	if err == nil {
		err = f.Push("pause", img)
	}
	if err != nil {
		t.Fatal(err)
	}
	list, err := Pin(t.Context(), f.load(false), true, f.opts)
	if err != nil {
		t.Fatal(err)
	}
	var moved []string
	for _, p := range list {
		if p.Was != "" {
			moved = append(moved, p.Name)
		}
	}
	if fmt.Sprint(moved) != "[kubelet pause]" {
		t.Errorf("moved: %v", moved)
	}
	after := f.text()
	if len(after) != len(before) || after == before || !strings.Contains(after, sum(other)) || !strings.Contains(after, fmt.Sprint("size: ", len(other))) {
		t.Errorf("manifest:\n%s", after)
	}
}

func TestPinRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(f *fixture)
		words  []string
	}{
		"another digest in the digest file": {
			func(f *fixture) { f.Files["kubelet.sha256"] = []byte(strings.Repeat("0", 64)) },
			[]string{"payload.yaml:10:10:", "kubelet v", "kubelet.sha256 says 000", "forged"},
		},
		"digest file of other files": {
			func(f *fixture) { f.Files["kubelet.sha256sum"] = []byte(sum(nil) + "  kubectl\n") },
			[]string{"kubelet.sha256sum", "no digest of 64 digits for kubelet"},
		},
		"another SHA-512 in the manifest": {
			func(f *fixture) {
				f.write(strings.Replace(f.text(), "url: kubelet ", "sha512: "+strings.Repeat("0a", 64)+"\n    url: kubelet ", 1))
			},
			[]string{"its SHA-512 is", "the manifest says 0a0a"},
		},
		"web page":  {func(f *fixture) { f.Handler = html }, []string{"web page (text/html)", "payload.yaml:10:10:", "payload.yaml:14:10:"}},
		"not there": {func(f *fixture) { delete(f.Files, "kubectl") }, []string{"kubectl v", "no such file (404)", "payload.yaml:14:10:"}},
		"not there for one architecture": {
			func(f *fixture) {
				f.write(strings.Replace(f.text(), "binaries:\n", "binaries:\n  - name: kubelet\n    version: "+payload.KubernetesVersion+"\n    arch: arm64\n    url: arm64/kubelet\n", 1))
			},
			[]string{"payload.yaml:10:10: kubelet " + payload.KubernetesVersion + " for arm64 from ", "/arm64/kubelet: the server has no such file (404)"},
		},
		"other architecture": {
			func(f *fixture) { f.write(strings.Replace(f.text(), "arch: amd64", "arch: arm64", 1)) },
			[]string{"for arm64", "EM_X86_64"},
		},
		"empty":      {func(f *fixture) { f.Files["kubectl"] = nil }, []string{"the file is empty"}},
		"no program": {func(f *fixture) { f.Files["kubectl"] = []byte("#!/bin/sh\n") }, []string{"no ELF program"}},
		"no tag":     {func(f *fixture) { f.write(strings.Replace(f.text(), "/pause:v1", "/pause:v2", 1)) }, []string{"image pause", "the registry has no such image"}},
		"one line": {
			func(f *fixture) {
				text := f.text()
				i, j := strings.Index(text, "  - name: kubelet"), strings.Index(text, "  - name: kubectl")
				f.write(text[:i] + "  - {name: kubelet, version: " + payload.KubernetesVersion + ", arch: amd64, url: kubelet}\n" + text[j:])
			},
			[]string{"payload.yaml:7:", "one key a line"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			c.change(f)
			before := f.text()
			_, err := Pin(t.Context(), f.load(true), false, f.opts)
			expect(t, err, c.words...)
			if f.text() != before {
				t.Error("the manifest was changed")
			}
		})
	}
}

func html(w http.ResponseWriter, _ *http.Request) bool {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprint(w, "<html>please log in")
	return true
}

func expect(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; expected %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %v\nhas no %q", err, w)
		}
	}
}

// on answers requests for one path.
func on(path string, h http.HandlerFunc) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != path {
			return false
		}
		h(w, r)
		return true
	}
}

func TestGetRefuses(t *testing.T) {
	f := newFixture(t)
	f.Files["kubelet"] = append(slices.Clone(f.Files["kubelet"]), 0) // another file than kubectl's
	kubelet, files, m := sum(f.Files["kubelet"]), f.Files, f.pinned()
	for name, c := range map[string]struct {
		change func(f *fixture)
		words  []string
	}{
		"other bytes": {func(f *fixture) { f.Files["kubelet"][len(f.Files["kubelet"])-1] ^= 1 }, []string{"SHA-256", "another one than when it was pinned"}},
		"other size":  {func(f *fixture) { f.Files["kubelet"] = f.Files["kubelet"][1:] }, []string{"the server has", "the manifest says"}},
		"web page": {func(f *fixture) {
			f.Handler = on("/kubelet", func(w http.ResponseWriter, r *http.Request) { html(w, r) })
		}, []string{"web page"}},
		"not there":       {func(f *fixture) { delete(f.Files, "kubelet") }, []string{"no such file (404)"}},
		"forbidden":       {func(f *fixture) { f.Handler = on("/kubelet", status(http.StatusForbidden)) }, []string{"403 Forbidden"}},
		"always failing":  {func(f *fixture) { f.Handler = on("/kubelet", status(http.StatusBadGateway)) }, []string{"502"}},
		"always breaking": {func(f *fixture) { f.Handler = on("/kubelet", breaking(f, 1000)) }, []string{"the transfer broke after 1000 bytes"}},
		"redirected round": {func(f *fixture) {
			f.Handler = on("/kubelet", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/kubelet", http.StatusFound) })
		}, []string{"redirects more than 10 times"}},
	} {
		t.Run(name, func(t *testing.T) {
			f.t, f.Handler, f.Files = t, nil, maps.Clone(files)
			f.Files["kubelet"] = slices.Clone(files["kubelet"])
			f.fresh()
			c.change(f)
			_, err := Get(t.Context(), m, f.opts)
			expect(t, err, append(c.words, f.file+":10:10: kubelet "+payload.KubernetesVersion+" for amd64 from "+f.URL+"/kubelet: ")...)
			if strings.Contains(err.Error(), "kubectl") {
				t.Errorf("the others are at fault too: %v", err)
			}
			left, _ := filepath.Glob(filepath.Join(f.opts.Cache.Path(), "blobs", ".*"))
			if whole, _ := filepath.Glob(filepath.Join(f.opts.Cache.Path(), "blobs", kubelet)); len(left)+len(whole) != 0 {
				t.Errorf("left %v %v", left, whole)
			}
		})
	}
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// breaking sends n bytes of a file whose length it announces, whatever it is asked for.
func breaking(f *fixture, n int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		b := f.Files[strings.TrimPrefix(r.URL.Path, "/")]
		if r.Header.Get("Range") != "" {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		_, _ = w.Write(b[:n])
	}
}

func TestOfflineNamesWhatIsMissing(t *testing.T) {
	f := newFixture(t)
	m := f.pinned()
	f.fresh()
	f.opts.Offline = true
	_, err := Get(t.Context(), m, f.opts)
	expect(t, err, "kubelet", "kubectl", "containerd v", "cni v", "image pause", "image kube-proxy", "offline nothing is fetched")
	if n := strings.Count(err.Error(), "payload.yaml:"); n != 12 {
		t.Errorf("%d items: %v", n, err)
	}
}

func TestInterrupted(t *testing.T) {
	f := newFixture(t)
	m := f.pinned()
	f.fresh()
	ctx, cancel := context.WithCancel(t.Context())
	f.Handler = func(http.ResponseWriter, *http.Request) bool { cancel(); return false }
	if _, err := Get(ctx, m, f.opts); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestArchives(t *testing.T) {
	f := newFixture(t)
	b, err := program()
	if err != nil {
		t.Fatal(err)
	}
	f.Files["containerd.tar.gz"] = releasetest.TarGz(map[string][]byte{"bin/containerd": b, "bin/ctr": b})
	_, err = Pin(t.Context(), f.load(true), false, f.opts)
	expect(t, err, "the archive has no bin/containerd-shim-runc-v2; it has bin/containerd, bin/ctr")
	f.Files["containerd.tar.gz"] = releasetest.TarGz(map[string][]byte{"bin/containerd": b})[:5000]
	_, err = Pin(t.Context(), f.load(true), false, f.opts)
	expect(t, err, "bin/containerd: unexpected EOF")
	f.Files["containerd.tar.gz"] = []byte("PK\x03\x04xxxx")
	_, err = Pin(t.Context(), f.load(true), false, f.opts)
	expect(t, err, "zip archive")
}

// An image with a name that its content does not deserve.
func TestImageRefuses(t *testing.T) {
	b, err := program()
	if err != nil {
		t.Fatal(err)
	}
	dynamic := append(elftest.File{Interp: "/lib64/ld-linux-x86-64.so.2", Needed: []string{"libc.so.6"}}.Bytes(), payload.PauseVersion...)
	other := append(elftest.File{}.Bytes(), "3.10.1"...)
	for name, c := range map[string]struct {
		image, version, entrypoint string
		files                      map[string][]byte
		words                      string
	}{
		"right":                {"kube-proxy", payload.KubernetesVersion, "", map[string][]byte{"usr/local/bin/kube-proxy": b}, ""},
		"elsewhere in PATH":    {"etcd", payload.EtcdVersion, "/x", map[string][]byte{"usr/bin/etcd": b}, ""},
		"not where pods look":  {"kube-proxy", payload.KubernetesVersion, "/kube-proxy", map[string][]byte{"kube-proxy": b}, "no program /usr/local/bin/kube-proxy"},
		"none":                 {"kube-apiserver", payload.KubernetesVersion, "/x", map[string][]byte{"x": b}, "no kube-apiserver in usr/local/sbin"},
		"no entrypoint":        {"pause", payload.PauseVersion, "", map[string][]byte{"pause": b}, "its entrypoint is []"},
		"half of flannel":      {"flannel", payload.FlannelVersion, "", map[string][]byte{"opt/bin/flanneld": b}, "/opt/bin/install-conf"},
		"another version":      {"pause", payload.PauseVersion, "/pause", map[string][]byte{"pause": other}, "/pause: it does not have the text " + payload.PauseVersion},
		"library not there":    {"pause", payload.PauseVersion, "/pause", map[string][]byte{"pause": dynamic}, "ld-linux-x86-64.so.2"},
		"a text is no program": {"coredns", payload.CoreDNSVersion, "/coredns", map[string][]byte{"coredns": []byte("#!/bin/sh")}, "no ELF program"},
	} {
		root := tree.New()
		for p, bytes := range c.files {
			file := filepath.Join(t.TempDir(), "content")
			if err := os.WriteFile(file, bytes, 0o600); err != nil {
				t.Fatal(err)
			}
			root.Set(p, &tree.Entry{Type: tree.File, Mode: 0o755, Content: tree.HostFile{Path: file, Len: int64(len(bytes))}})
		}
		img := oci.Image{Layers: []*tree.Tree{root}}
		if c.entrypoint != "" {
			img.Entrypoint = []string{c.entrypoint}
		}
		err := checkImage(img, Image{Name: c.image, Version: c.version}, amd64(t))
		if c.words == "" && err != nil || c.words != "" && (err == nil || !strings.Contains(err.Error(), c.words)) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// The manifests in the guide and in the help text are read, as far as they go.
func TestExamples(t *testing.T) {
	for file, want := range map[string]int{"../../docs/guide.md": 1, "../../cmd/imagegen/payload.go": 1} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var found int
		lines := strings.Split(string(b), "\n")
		for i, l := range lines {
			if strings.TrimSpace(l) != "kind: Payload" {
				continue
			}
			found++
			indent := l[:len(l)-len(strings.TrimLeft(l, " "))]
			var text strings.Builder
			for _, l := range lines[i-1:] {
				if !strings.HasPrefix(l, indent) || strings.HasPrefix(l, "```") {
					break
				}
				text.WriteString(strings.TrimSuffix(strings.TrimPrefix(l, indent), "`,") + "\n")
			}
			m, mistakes := parse("example", []byte(text.String()), true)
			if len(mistakes) > 0 || len(m.Binaries) < 2 || len(m.Images) != 1 {
				t.Errorf("%s: %v\n%s", file, mistakes, text.String())
			}
		}
		if found != want {
			t.Errorf("%s has %d manifests", file, found)
		}
	}
}
