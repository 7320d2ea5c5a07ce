package release

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/kiln-os/kiln/images/registry"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/diag"
	"github.com/kiln-os/kiln/internal/fetch"
)

// Pinned is what became of one entry of a manifest.
type Pinned struct {
	Name string `json:"name"`
	Arch string `json:"arch,omitempty"` // an image's digest is for all of them
	From string `json:"from"`           // URL or reference
	// SHA256 of the file or the image, in hexadecimal; Was is the one before, if any.
	SHA256 string `json:"sha256"`
	Was    string `json:"was,omitempty"`
	// CheckedBy are the digest files of the server that name the same digest.
	CheckedBy []string `json:"checkedBy,omitempty"`
}

// Pin resolves what a manifest has without a digest and writes the digests into its
// file; with update also what has one. Binaries come into the cache. The file is
// written once, and only when all of it can be.
func Pin(ctx context.Context, m *Manifest, update bool, o Options) ([]Pinned, error) {
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	if o.Wait == 0 {
		o.Wait = 2 * time.Second
	}
	var (
		out    []Pinned
		failed []error
		edits  = editor{m: m}
	)
	fail := func(p diag.Path, what, from string, err error) {
		failed = append(failed, fmt.Errorf("%s: %s from %s: %w", m.place(p), what, from, err))
	}
	for i, b := range m.Binaries {
		if b.SHA256 != "" && !update || ctx.Err() != nil {
			continue
		}
		p := diag.Path{"binaries", i}
		o.Progress(fmt.Sprintf("pin %s %s for %s", b.Name, b.Version, b.Arch))
		f, err := o.pinBinary(ctx, m.url(b), b, update)
		if err != nil {
			fail(p.Child("url"), b.Name+" "+b.Version+" for "+b.Arch, m.url(b), err)
			continue
		}
		out = append(out, Pinned{b.Name, b.Arch, m.url(b), f.sha256, was(b.SHA256, f.sha256), f.checkedBy})
		edits.set(p, "url", "sha256", f.sha256)
		edits.set(p, "url", "size", fmt.Sprint(f.size))
		if b.SHA512 != "" {
			edits.set(p, "url", "sha512", f.sha512)
		}
	}
	client := registry.Client{Cache: o.Cache, Wait: o.Wait}
	for i, img := range m.Images {
		p := diag.Path{"images", i, "ref"}
		base, old, _ := strings.Cut(img.Ref, "@")
		if old != "" && !update || ctx.Err() != nil {
			continue
		}
		whole, _, _ := strings.Cut(m.ref(img), "@")
		if _, err := name.NewTag(whole, name.StrictValidation); err != nil {
			continue // a digest alone: there is nothing it could be resolved from
		}
		o.Progress(fmt.Sprintf("pin image %s %s", img.Name, img.Version))
		digest, err := client.Resolve(ctx, whole)
		if err != nil {
			fail(p, "image "+img.Name+" "+img.Version, whole, err)
			continue
		}
		out = append(out, Pinned{img.Name, "", whole, strings.TrimPrefix(digest, "sha256:"), was(strings.TrimPrefix(old, "sha256:"), strings.TrimPrefix(digest, "sha256:")), nil})
		edits.replace(p, base+"@"+digest)
	}
	if err := errors.Join(append(failed, ctx.Err())...); err != nil {
		return nil, err
	}
	if len(out) == 0 {
		return nil, nil
	}
	return out, edits.write()
}

func was(old, now string) string {
	if old == now {
		return ""
	}
	return old
}

// fetched is a file whose digests nobody has promised.
type fetched struct {
	sha256, sha512 string
	size           int64
	checkedBy      []string
}

// pinBinary fetches a file into the cache and compares it with what the server says
// about it.
func (o Options) pinBinary(ctx context.Context, url string, b Binary, update bool) (fetched, error) {
	var f fetched
	tmp, err := os.CreateTemp(o.Cache.Path(), "pin-")
	if err != nil {
		return f, err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	// From the start at every try: without a digest two halves need not be of one file.
	err = fetch.Retry(ctx, o.Wait, final, func() error {
		if _, err := tmp.Seek(0, io.SeekStart); err != nil {
			return err
		}
		if err := tmp.Truncate(0); err != nil {
			return err
		}
		r, err := fetch.Open(ctx, url)
		if err != nil {
			return err
		}
		defer r.Close()
		if err := checkAnswer(r, -1); err != nil {
			return err
		}
		h256, h512 := sha256.New(), sha512.New()
		src := &counted{ReadCloser: r, total: max(r.Size, 0), report: o.Bytes}
		f.size, err = io.Copy(io.MultiWriter(tmp, h256, h512), src)
		f.sha256, f.sha512 = hex.EncodeToString(h256.Sum(nil)), hex.EncodeToString(h512.Sum(nil))
		return err
	})
	if err != nil {
		return f, err
	}
	if f.size == 0 {
		return f, errors.New("the file is empty")
	}
	if b.SHA512 != "" && !update && b.SHA512 != f.sha512 {
		return f, fmt.Errorf("its SHA-512 is %s, the manifest says %s", f.sha512, b.SHA512)
	}
	if err := o.checkDigestFiles(ctx, url, &f); err != nil {
		return f, err
	}
	file, err := o.Cache.Fetch(ctx, f.sha256, f.size, func(context.Context) (io.ReadCloser, error) { return os.Open(tmp.Name()) })
	if err != nil {
		return f, err
	}
	// What is not the program that the entry says is not worth a digest.
	b.SHA256 = f.sha256
	o.Arch, err = arch.Get(b.Arch)
	if err == nil {
		_, err = o.programsOf(ctx, file, b)
	}
	return f, err
}

// digestFiles are what servers call the file with the digest of another, by the
// length of its digest in hexadecimal.
var digestFiles = []struct {
	suffix string
	length int
}{{".sha256", 64}, {".sha256sum", 64}, {".sha512", 128}, {".sha512sum", 128}}

// maxDigestFile is the largest digest file that is read, in bytes: some are of a whole release.
const maxDigestFile = 1 << 20

// checkDigestFiles compares f with the digest files that the server has beside it.
func (o Options) checkDigestFiles(ctx context.Context, url string, f *fetched) error {
	for _, d := range digestFiles {
		at := url + d.suffix
		var text []byte
		err := fetch.Retry(ctx, o.Wait, final, func() error {
			r, err := fetch.Open(ctx, at)
			if err != nil {
				return err
			}
			defer r.Close()
			if err := checkAnswer(r, -1); err != nil {
				return err
			}
			text, err = io.ReadAll(io.LimitReader(r, maxDigestFile))
			return err
		})
		if errors.As(err, new(*fetch.NotFoundError)) {
			continue
		}
		if err != nil {
			return fmt.Errorf("digest file %s: %w", at, err)
		}
		want, err := parseDigest(string(text), path.Base(url), d.length)
		if err != nil {
			return fmt.Errorf("digest file %s: %w", at, err)
		}
		got := f.sha256
		if d.length == 128 {
			got = f.sha512
		}
		if got != want {
			return fmt.Errorf("its digest is %s, but %s says %s: the file or its digest file is damaged or forged", got, at, want)
		}
		f.checkedBy = append(f.checkedBy, at)
	}
	return nil
}

// parseDigest finds the digest of a file in the output of sha256sum(1) and the like:
// the digest alone, "digest  name" or "SHA256 (name) = digest", one a line.
func parseDigest(text, name string, length int) (string, error) {
	var alone []string
	for _, l := range strings.Split(text, "\n") {
		words := strings.Fields(strings.NewReplacer("(", " ", ")", " ", "=", " ").Replace(l))
		digest, named, others := "", false, 0
		for i, w := range words {
			switch w := strings.ToLower(w); {
			case len(w) == length && hexForm.MatchString(w):
				digest = w
			case path.Base(strings.TrimPrefix(words[i], "*")) == name:
				named = true
			case w == "sha256" || w == "sha512":
			default:
				others++
			}
		}
		switch {
		case digest != "" && named:
			return digest, nil
		case digest != "" && others == 0:
			alone = append(alone, digest)
		}
	}
	if len(alone) == 1 {
		return alone[0], nil
	}
	return "", fmt.Errorf("it has no digest of %d digits for %s", length, name)
}
