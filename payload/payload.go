// Package payload compiles what Kiln's nodes run besides Debian's packages:
// Kubernetes, etcd, containerd, CoreDNS, the CNI plugins, flannel and pause. Each
// is a Go module of its own below this folder, with a go.mod that pins it and a
// go.sum that its sources are checked against. For another version of Kubernetes
// there is a folder with those two files alone: what is compiled is the same source.
//
// The results are kept in the cache, by the digest of everything that decides
// their bytes.
package payload

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sort"

	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/cache"
)

// Options say what is built.
type Options struct {
	Arch arch.Arch
	// CacheDir is Kiln's cache; empty means the default one, see cache.Open.
	CacheDir string
	// SourceDir is this package's folder with the nested modules; empty means that
	// FindSource looks for it.
	SourceDir string
	// Kubernetes is one of KubernetesVersions; empty means KubernetesVersion.
	Kubernetes string
	// Components are the names of those to build; none means all.
	Components []string
	// Offline takes modules from Go's module cache alone.
	Offline bool
	// Go is the go command; empty means the one in PATH.
	Go string
	// Progress, if not nil, is told what begins: compiling takes minutes.
	Progress func(step string)
}

// Binary is one program that was built.
type Binary struct {
	Name      string `json:"name"`
	Path      string `json:"-"` // on the build host
	Size      int64  `json:"size"`
	SHA256    string `json:"sha256"` // hexadecimal
	Version   string `json:"version"`
	Component string `json:"component"`
}

// Result holds the binaries of a build, sorted by name. Their files belong to the
// cache and must not be changed.
type Result struct{ Binaries []Binary }

// Origin is where a part of a payload comes from: a file that was fetched, or a module
// that was compiled.
type Origin struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	// From is a URL, an image reference or a module.
	From string `json:"from,omitempty"`
	// SHA256 of the file, or of the image's manifest; hexadecimal.
	SHA256 string `json:"sha256,omitempty"`
}

// KubernetesVersion is that of the Kubernetes programs.
func (r Result) KubernetesVersion() string {
	for _, name := range []string{Kubernetes, "kubelet"} { // a release has every program by itself
		if b, err := r.Get(name); err == nil {
			return b.Version
		}
	}
	return KubernetesVersion
}

// Origins describes what was compiled: one per program, with its own digest.
func (r Result) Origins() []Origin {
	var out []Origin
	components, _ := Components(KubernetesVersion) // those of other versions are of the same modules
	for _, b := range r.Binaries {
		o := Origin{Name: b.Name, Version: b.Version, SHA256: b.SHA256}
		if c, err := component(components, b.Component); err == nil {
			o.From = c.Pin
		}
		out = append(out, o)
	}
	return out
}

// Get returns the binary with the given name.
func (r Result) Get(name string) (Binary, error) {
	i := sort.Search(len(r.Binaries), func(i int) bool { return r.Binaries[i].Name >= name })
	if i < len(r.Binaries) && r.Binaries[i].Name == name {
		return r.Binaries[i], nil
	}
	return Binary{}, fmt.Errorf("the payload has no program %q", name)
}

// Build returns the programs for one architecture, compiling those that the cache
// does not have. A damaged cache entry is compiled anew.
func Build(ctx context.Context, o Options) (Result, error) {
	if o.Go == "" {
		o.Go = "go"
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	var err error
	if o.SourceDir, err = FindSource(o.SourceDir); err != nil {
		return Result{}, err
	}
	store, err := cache.Open(o.CacheDir)
	if err != nil {
		return Result{}, err
	}
	store.Log = o.Progress
	all, err := Components(cmp.Or(o.Kubernetes, KubernetesVersion))
	if err != nil {
		return Result{}, fmt.Errorf("payload: %w", err)
	}
	todo := all
	if len(o.Components) > 0 {
		todo = nil
		for _, name := range o.Components {
			c, err := component(all, name)
			if err != nil {
				return Result{}, fmt.Errorf("payload: %w", err)
			}
			todo = append(todo, c)
		}
	}
	goVersion, err := toolchain(ctx, o)
	if err != nil {
		return Result{}, fmt.Errorf("payload: %w", err)
	}
	var r Result
	for _, c := range todo {
		b, err := obtain(ctx, o, store, c, goVersion)
		if err != nil {
			return Result{}, fmt.Errorf("payload %s %s for %s: %w", c.Name, c.Version, o.Arch.Go, err)
		}
		r.Binaries = append(r.Binaries, b...)
	}
	sort.Slice(r.Binaries, func(i, j int) bool { return r.Binaries[i].Name < r.Binaries[j].Name })
	return r, nil
}

// SourceEnv names the environment variable that FindSource reads.
const SourceEnv = "KILN_PAYLOAD"

// FindSource returns the folder of the nested modules: explicit if it is given,
// else $KILN_PAYLOAD, else the folder payload of the Kiln checkout that the
// running program or the working directory lies in. The modules cannot be
// embedded in the program: a Go embed ends where another module begins.
func FindSource(explicit string) (string, error) {
	for _, given := range []struct{ dir, by string }{{explicit, "as given"}, {os.Getenv(SourceEnv), "from " + SourceEnv}} {
		if given.dir == "" {
			continue
		}
		if !isSource(given.dir) {
			return "", fmt.Errorf("payload: %s (%s) has no kubernetes/go.mod: the folder payload of a Kiln checkout is right", given.dir, given.by)
		}
		return filepath.Abs(given.dir)
	}
	var starts []string
	if exe, err := os.Executable(); err == nil {
		if exe, err = filepath.EvalSymlinks(exe); err == nil {
			starts = append(starts, filepath.Dir(exe))
		}
	}
	if wd, err := os.Getwd(); err == nil {
		starts = append(starts, wd)
	}
	for _, dir := range starts {
		for {
			if p := filepath.Join(dir, "payload"); isSource(p) {
				return p, nil
			}
			up := filepath.Dir(dir)
			if up == dir {
				break
			}
			dir = up
		}
	}
	return "", fmt.Errorf("payload: the sources of what is compiled for the nodes were not found above %v: "+
		"run imagegen from a Kiln checkout, or name the checkout's folder payload with --payload-dir or %s", starts, SourceEnv)
}

func isSource(dir string) bool {
	st, err := os.Stat(filepath.Join(dir, "kubernetes", "go.mod"))
	return err == nil && st.Mode().IsRegular()
}
