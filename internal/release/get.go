package release

import (
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"mime"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kiln-os/kiln/images/elfdeps"
	"github.com/kiln-os/kiln/images/oci"
	"github.com/kiln-os/kiln/images/registry"
	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/cache"
	"github.com/kiln-os/kiln/internal/diag"
	"github.com/kiln-os/kiln/internal/fetch"
	"github.com/kiln-os/kiln/payload"
)

// Options say what is fetched.
type Options struct {
	Arch  arch.Arch
	Cache *cache.Cache
	// Offline takes everything from the cache.
	Offline bool
	// Progress, if not nil, is told what begins.
	Progress func(step string)
	// Bytes, if not nil, is told how much of a file has come; total is 0 if unknown.
	Bytes func(done, total int64)
	// Wait is the time before a second try; 0 means two seconds.
	Wait time.Duration
}

// Result is a release payload, checked.
type Result struct {
	// Programs are those of the manifest, as if they had been compiled.
	Programs payload.Result
	// Images are the container images that the manifest has, by its name for them,
	// without Ref.
	Images map[string]oci.Image
	// Sources are the manifest's entries for the architecture.
	Sources []payload.Origin
}

var errOffline = errors.New("it is not in the cache, and offline nothing is fetched")

// Get fetches what the manifest has for one architecture. Its error lists all items
// that cannot be had, each with its place in the manifest.
func Get(ctx context.Context, m *Manifest, o Options) (Result, error) {
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	if o.Wait == 0 {
		o.Wait = 2 * time.Second
	}
	if lost := m.Missing(o.Arch.Go); len(lost) > 0 {
		return Result{}, lost
	}
	r := Result{Images: map[string]oci.Image{}}
	var failed []error
	fail := func(p diag.Path, what, from string, err error) {
		failed = append(failed, fmt.Errorf("%s: %s from %s: %w", m.place(p), what, from, err))
	}
	for i, b := range m.Binaries {
		if b.Arch != o.Arch.Go || ctx.Err() != nil {
			continue
		}
		list, err := o.binary(ctx, m, b)
		if err != nil {
			fail(diag.Path{"binaries", i, "url"}, b.Name+" "+b.Version+" for "+b.Arch, m.url(b), err)
			continue
		}
		r.Programs.Binaries = append(r.Programs.Binaries, list...)
		r.Sources = append(r.Sources, payload.Origin{Name: b.Name, Version: b.Version, From: m.url(b), SHA256: b.SHA256})
	}
	client := registry.Client{Cache: o.Cache, Offline: o.Offline, Wait: o.Wait}
	for i, img := range m.Images {
		if ctx.Err() != nil {
			break
		}
		o.Progress("image " + img.Name + " " + img.Version + " for " + o.Arch.Go)
		got, err := client.Pull(ctx, m.ref(img), o.Arch)
		if err == nil {
			err = checkImage(got, img, o.Arch)
		}
		if err != nil {
			fail(diag.Path{"images", i, "ref"}, "image "+img.Name+" "+img.Version, m.ref(img), err)
			continue
		}
		r.Images[img.Name] = got
		_, digest, _ := strings.Cut(m.ref(img), "@sha256:")
		r.Sources = append(r.Sources, payload.Origin{Name: img.Name, Version: img.Version, From: m.ref(img), SHA256: digest})
	}
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	slices.SortFunc(r.Programs.Binaries, func(a, b payload.Binary) int { return strings.Compare(a.Name, b.Name) })
	return r, errors.Join(failed...)
}

// binary fetches one entry and returns its programs.
func (o Options) binary(ctx context.Context, m *Manifest, b Binary) ([]payload.Binary, error) {
	o.Progress(fmt.Sprintf("fetch %s %s for %s", b.Name, b.Version, b.Arch))
	file, err := o.fetch(ctx, m.url(b), b)
	if err != nil {
		return nil, err
	}
	return o.programsOf(ctx, file, b)
}

// programsOf takes the programs out of an entry's file and checks them.
func (o Options) programsOf(ctx context.Context, file string, b Binary) ([]payload.Binary, error) {
	dir := ""
	if len(b.Members) > 0 {
		var err error
		if dir, err = o.unpack(ctx, file, b); err != nil {
			return nil, err
		}
	}
	var list []payload.Binary
	for _, program := range sortedKeys(b.programs()) {
		path := file
		if dir != "" {
			path = filepath.Join(dir, program)
		}
		p, err := o.program(path, program, b.Version)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", program, err)
		}
		list = append(list, p)
	}
	return list, nil
}

// fetch returns the file of an entry in the cache, whose digests and size are right.
func (o Options) fetch(ctx context.Context, url string, b Binary) (string, error) {
	size := b.Size
	if size == 0 {
		size = -1
	}
	var file string
	err := fetch.Retry(ctx, o.Wait, final, func() (err error) {
		file, err = o.Cache.Fetch(ctx, b.SHA256, size, func(ctx context.Context) (io.ReadCloser, error) {
			if o.Offline {
				return nil, errOffline
			}
			f, err := fetch.Resume(ctx, url, o.Wait)
			if err != nil {
				return nil, err
			}
			if err := checkAnswer(f, size); err != nil {
				return nil, errors.Join(err, f.Close())
			}
			return &counted{ReadCloser: f, total: max(f.Size, 0), report: o.Bytes}, nil
		})
		return err
	})
	if m := (*cache.MismatchError)(nil); errors.As(err, &m) {
		return "", fmt.Errorf("%w: the file is another one than when it was pinned", m)
	}
	if err != nil || b.SHA512 == "" {
		return file, err
	}
	return file, checkSHA512(file, b.SHA512)
}

// answerError is an answer that is not the file, whatever its status says.
type answerError struct{ text string }

func (e answerError) Error() string { return e.text }

// checkAnswer recognises what servers send instead of a file. A size below 0 is unknown.
func checkAnswer(f *fetch.File, size int64) error {
	kind, _, _ := mime.ParseMediaType(f.Type)
	if kind == "text/html" || kind == "application/xhtml+xml" {
		return answerError{"the server answers with a web page (" + kind + "), not with a file: it may want a login, or the URL is one for people"}
	}
	if size >= 0 && f.Size >= 0 && size != f.Size {
		return answerError{fmt.Sprintf("the server has %d bytes, the manifest says %d: the file is another one than when it was pinned", f.Size, size)}
	}
	return nil
}

// final tells errors that another try would meet again.
func final(err error) bool {
	return fetch.Final(err) || errors.Is(err, errOffline) || errors.As(err, new(answerError)) ||
		errors.As(err, new(*cache.MismatchError)) || errors.As(err, new(*fs.PathError))
}

// counted tells how much of a file has come.
type counted struct {
	io.ReadCloser
	done, total int64
	report      func(done, total int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if c.done += int64(n); c.report != nil && c.total > 0 {
		c.report(c.done, c.total)
	}
	return n, err
}

func checkSHA512(file, want string) error {
	got, err := sumOf(file, sha512.New())
	if err == nil && got != want {
		err = fmt.Errorf("its SHA-512 is %s, the manifest says %s", got, want)
	}
	return err
}

func sumOf(file string, h hash.Hash) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	_, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), err
}

// unpack returns the folder with the members of an archive.
func (o Options) unpack(ctx context.Context, file string, b Binary) (string, error) {
	parts := []string{"release 1", b.SHA256}
	for _, p := range sortedKeys(b.Members) {
		parts = append(parts, p, b.Members[p])
	}
	return o.Cache.Dir(ctx, "release", cache.Key(parts...), func(tmp string) error { return extract(file, b.Members, tmp) })
}

// program checks one program and describes it.
func (o Options) program(path, name, version string) (payload.Binary, error) {
	content, err := tree.NewHostFile(path)
	if err != nil {
		return payload.Binary{}, err
	}
	g := programs[name]
	if err := verifyContent(content, o.Arch, g, version); err != nil {
		return payload.Binary{}, err
	}
	sum, err := cache.FileDigest(path)
	return payload.Binary{Name: name, Path: path, Size: content.Len, SHA256: sum, Version: version, Component: g.name}, err
}

func verifyContent(c tree.Content, a arch.Arch, g group, version string) error {
	f, err := c.Open()
	if err != nil {
		return err
	}
	defer f.Close()
	r, ok := f.(io.ReaderAt)
	if !ok {
		return errors.New("its content cannot be read at any offset")
	}
	return verify(r, c.Size(), a, g, version)
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// binFolders are where pods' commands are looked for: the PATH of images.
var binFolders = []string{"usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin"}

// checkImage fails if an image cannot be what its name says: its program is there, is
// of the version, and finds its libraries.
func checkImage(img oci.Image, entry Image, a arch.Arch) error {
	n, _ := image(entry.Name)
	root := img.Layers[0]
	paths := n.paths
	switch {
	case len(paths) > 0:
	case n.name == Pause || n.name == CoreDNS:
		// Nobody but the image says what is run.
		if len(img.Entrypoint) == 0 || !strings.HasPrefix(img.Entrypoint[0], "/") {
			return fmt.Errorf("its entrypoint is %q, want the path of %s", img.Entrypoint, n.name)
		}
		paths = img.Entrypoint[:1]
	default:
		for _, dir := range binFolders {
			if _, _, err := root.Lookup(dir + "/" + n.programs[0]); err == nil {
				paths = []string{"/" + dir + "/" + n.programs[0]}
				break
			}
		}
		if len(paths) == 0 {
			return fmt.Errorf("it has no %s in %s", n.programs[0], strings.Join(binFolders, ", "))
		}
	}
	for _, p := range paths {
		_, e, err := root.Lookup(p)
		if err != nil || e.Type != tree.File {
			return fmt.Errorf("it has no program %s, which pods run", p)
		}
		if err := verifyContent(e.Content, a, n.group, entry.Version); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		if _, err := elfdeps.Closure(root, []string{tree.Clean(p)}); err != nil {
			return err
		}
	}
	return nil
}
