package release

import (
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/diag"
	"github.com/kiln-os/kiln/internal/strict"
	"github.com/kiln-os/kiln/payload"
)

// validator checks what the values mean.
type validator struct {
	*strict.Decoder
	m        *Manifest
	unpinned bool
}

func (v *validator) bad(p diag.Path, want, format string, a ...any) {
	if !v.Bad(p) {
		v.List.Add(v.Doc.At(p, fmt.Sprintf(format, a...), want))
	}
}

func (v *validator) required(p diag.Path, want string) bool {
	if v.Doc.Has(p) {
		return !v.Bad(p)
	}
	v.bad(p, want, "is missing")
	return false
}

var (
	versionForm = regexp.MustCompile(`^v?[0-9]+(\.[0-9]+){1,3}([-+][0-9A-Za-z.+-]+)?$`)
	// registryForm is a host with a dot or a port, perhaps with a path.
	registryForm = regexp.MustCompile(`^[a-z0-9-]+((\.[a-z0-9-]+)+(:[0-9]+)?|:[0-9]+)(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$`)
	hexForm      = regexp.MustCompile(`^[0-9a-f]+$`)
)

func (v *validator) validate() {
	if v.required(diag.Path{"apiVersion"}, "want "+APIVersion) && v.m.APIVersion != APIVersion {
		v.bad(diag.Path{"apiVersion"}, "want "+APIVersion, "%q is not a version this program reads", v.m.APIVersion)
	}
	if v.required(diag.Path{"kind"}, "want "+Kind) && v.m.Kind != Kind {
		v.bad(diag.Path{"kind"}, "want "+Kind, "%q is not a payload manifest", v.m.Kind)
	}
	if v.m.BaseURL != "" {
		v.url(diag.Path{"baseURL"}, v.m.BaseURL)
	}
	if v.m.Registry != "" {
		if !registryForm.MatchString(v.m.Registry) {
			v.bad(diag.Path{"registry"}, "such as registry.example.com/mirror", "%q is not a registry", v.m.Registry)
		}
	}
	v.required(diag.Path{"binaries"}, "want a list of programs and archives")
	seen := map[string]diag.Path{}
	versions := map[string]version{}
	for i, b := range v.m.Binaries {
		v.binary(diag.Path{"binaries", i}, b, seen, versions)
	}
	for i, img := range v.m.Images {
		v.image(diag.Path{"images", i}, img, seen, versions)
	}
}

// version is one that a group has, and where it stands.
type version struct {
	text string
	path diag.Path
}

func (v *validator) binary(p diag.Path, b Binary, seen map[string]diag.Path, versions map[string]version) {
	v.required(p.Child("name"), "want the name of the program, or of the archive")
	if v.required(p.Child("arch"), "want one of "+strings.Join(arch.Names(), ", ")) && !slices.Contains(arch.Names(), b.Arch) {
		v.bad(p.Child("arch"), "want one of "+strings.Join(arch.Names(), ", "), "%q is not a known architecture", b.Arch)
	}
	if v.required(p.Child("url"), "such as https://downloads.example.com/v1.37.2/kubelet") {
		if u, err := url.Parse(b.URL); err == nil && !u.IsAbs() && v.m.BaseURL == "" {
			v.bad(p.Child("url"), "write the whole URL, or set baseURL", "%q is no whole URL", b.URL)
		} else {
			v.url(p.Child("url"), v.m.url(b))
		}
	}
	if !v.unpinned || v.Doc.Has(p.Child("sha256")) {
		v.digest(p.Child("sha256"), b.SHA256, 64)
	}
	if v.Doc.Has(p.Child("sha512")) {
		v.digest(p.Child("sha512"), b.SHA512, 128)
	}
	if v.Doc.Has(p.Child("size")) && b.Size <= 0 {
		v.bad(p.Child("size"), "want the number of bytes, or remove the key", "%d is no size", b.Size)
	}
	if v.Doc.Has(p.Child("members")) && len(b.Members) == 0 {
		v.bad(p.Child("members"), "want PROGRAM: PATH, or remove the key for a file that is no archive", "is empty")
	}
	ok := v.required(p.Child("version"), "such as v1.37.2")
	for prog, member := range b.programs() {
		q := p.Child("name")
		if len(b.Members) > 0 {
			q = p.Child("members", prog)
			if c := path.Clean(member); member == "" || path.IsAbs(member) || c == ".." || strings.HasPrefix(c, "../") {
				v.bad(q, "want the path as it is in the archive, such as bin/containerd", "%q is not the path of a file in an archive", member)
			}
		}
		g, known := programs[prog]
		if !known {
			if prog != "" {
				v.bad(q, want(prog, programNames()), "%q is not a program that nodes have", prog)
			}
			continue
		}
		if first, dup := seen[prog+" "+b.Arch]; dup {
			v.bad(q, "remove one", "%s for %s is in %s already", prog, b.Arch, first)
		}
		seen[prog+" "+b.Arch] = q
		if ok {
			v.version(p.Child("version"), g, b.Version, versions)
		}
	}
}

func (v *validator) image(p diag.Path, img Image, seen map[string]diag.Path, versions map[string]version) {
	ok := v.required(p.Child("version"), "such as v1.37.2")
	if v.required(p.Child("name"), "want one of "+strings.Join(imageNames(), ", ")) {
		if n, known := image(img.Name); !known {
			v.bad(p.Child("name"), want(img.Name, imageNames()), "%q is not an image that nodes have", img.Name)
		} else if ok {
			v.version(p.Child("version"), n.group, img.Version, versions)
		}
		if first, dup := seen["image "+img.Name]; dup {
			v.bad(p.Child("name"), "remove one", "image %s is in %s already", img.Name, first)
		}
		seen["image "+img.Name] = p
	}
	const form = "such as registry.example.com/kube-proxy:v1.37.2@sha256:…"
	if !v.required(p.Child("ref"), form) {
		return
	}
	ref := v.m.ref(img)
	if strings.HasPrefix(ref, "/") {
		v.bad(p.Child("ref"), "write the registry too, or set registry", "%q has no registry", img.Ref)
		return
	}
	r, err := name.ParseReference(ref, name.StrictValidation)
	if err != nil {
		v.bad(p.Child("ref"), form, "%q is not a reference with a registry and a tag or digest", img.Ref)
		return
	}
	if d, pinned := r.(name.Digest); pinned {
		if !strings.HasPrefix(d.DigestStr(), "sha256:") {
			v.bad(p.Child("ref"), form, "the digest of %q is no SHA-256", img.Ref)
		}
	} else if !v.unpinned {
		v.bad(p.Child("ref"), "run imagegen payload pin "+v.m.File, "%q has no digest", img.Ref)
	}
}

// version checks that a group has one version, and the one that nodes ask for.
func (v *validator) version(p diag.Path, g group, text string, versions map[string]version) {
	if !versionForm.MatchString(text) {
		v.bad(p, "such as v1.37.2", "%q is not a version", text)
		return
	}
	first, seen := versions[g.name]
	if !seen {
		versions[g.name] = version{text, p}
	}
	switch {
	case g.version != "" && !sameVersion(g.version, text):
		v.bad(p, "want "+g.version, "nodes of this Kiln ask for %s %s, not %s", g.name, g.version, text)
	case g.name == kubernetes.name && minor(text) != minor(payload.KubernetesVersion):
		v.bad(p, "want a "+minor(payload.KubernetesVersion)+" version", "%s is not of the Kubernetes minor version that this Kiln's firstboot sets up", text)
	case seen && !sameVersion(first.text, text):
		v.bad(p, "want one version", "%s is %s here and %s in %s", g.name, text, first.text, first.path)
	}
}

// minor cuts a version after its second number.
func minor(s string) string {
	parts := strings.SplitN(s, ".", 3)
	return strings.Join(parts[:min(2, len(parts))], ".")
}

func (v *validator) url(p diag.Path, s string) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		v.bad(p, "such as https://downloads.example.com/v1.37.2/kubelet", "this is no http or https URL")
	case u.User != nil:
		v.bad(p, "serve the files without a password, which every error would show", "the URL has a user or password in it")
	}
}

func (v *validator) digest(p diag.Path, s string, length int) {
	if !v.Doc.Has(p) {
		v.bad(p, "run imagegen payload pin "+v.m.File, "is missing")
	} else if len(s) != length || !hexForm.MatchString(s) {
		v.bad(p, fmt.Sprintf("want %d of 0-9 and a-f", length), "%q is no digest", s)
	}
}

// url is the whole URL of a binary.
func (m *Manifest) url(b Binary) string {
	u, err := url.Parse(b.URL)
	if err != nil || u.IsAbs() || m.BaseURL == "" {
		return b.URL
	}
	return strings.TrimRight(m.BaseURL, "/") + "/" + strings.TrimLeft(b.URL, "/")
}

// ref is the whole reference of an image.
func (m *Manifest) ref(i Image) string {
	if strings.HasPrefix(i.Ref, "/") && m.Registry != "" {
		return strings.TrimRight(m.Registry, "/") + i.Ref
	}
	return i.Ref
}

// want says which of the names was probably meant.
func want(s string, names []string) string {
	if near := strict.Nearest(s, names); near != "" {
		return "did you mean " + near + "?"
	}
	return "want one of " + strings.Join(names, ", ")
}

func programNames() []string {
	var out []string
	for p := range programs {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}
