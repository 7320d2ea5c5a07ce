package osbase

import (
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/units"
)

// Factory is where the defaults of /etc are: the initramfs copies them to an
// empty state partition.
const Factory = "usr/share/factory/etc"

// Program is a file that Kiln adds to the packages.
type Program struct {
	Path    string // in the tree
	Content tree.Content
	Names   []string // hard links to it: more paths in the tree
	Links   []string // symbolic links to it, as paths in the tree
}

// Configure turns the unpacked packages into a configured system: it does what
// the maintainer scripts would have done, removes what no node needs, and adds
// programs and units. /etc is still at etc: container images and the initramfs
// take their files from this tree. The kernel stays in boot.
func Configure(packages *tree.Tree, programs []Program, vars units.Vars, release string) error {
	if err := runScripts(packages); err != nil {
		return fmt.Errorf("configure the packages: %w", err)
	}
	if err := osRelease(packages, release); err != nil {
		return err
	}
	for _, p := range programs {
		packages.Set(p.Path, &tree.Entry{Type: tree.File, Mode: 0o755, Content: p.Content})
		for _, n := range p.Names {
			packages.Set(n, &tree.Entry{Type: tree.Hardlink, Link: p.Path})
		}
		for _, l := range p.Links {
			packages.AddSymlink(l, relative(l, p.Path))
		}
	}
	return units.System(packages, vars)
}

// relative returns the target of a link at from that leads to the path to.
func relative(from, to string) string {
	rel, err := filepath.Rel(path.Dir("/"+tree.Clean(from)), "/"+tree.Clean(to))
	if err != nil {
		panic(err) // not for two absolute paths
	}
	return filepath.ToSlash(rel)
}

// Seal strips a configured tree, moves /etc to Factory and returns the tree of
// the /usr filesystem (paths relative to /usr).
func Seal(configured *tree.Tree) (*tree.Tree, error) {
	keepKernelConfig(configured)
	strip(configured)
	usr := tree.New()
	return usr, configured.Walk(func(p string, e *tree.Entry) error {
		if e.Type == tree.Hardlink {
			e = &tree.Entry{Type: tree.Hardlink, Link: strings.TrimPrefix(tree.Clean(e.Link), "usr/")}
		}
		switch {
		case p == "usr", p == "etc":
		case strings.HasPrefix(p, "usr/"):
			usr.Set(strings.TrimPrefix(p, "usr/"), e)
		case strings.HasPrefix(p, "etc/"):
			usr.Set(strings.TrimPrefix(Factory, "usr/")+strings.TrimPrefix(p, "etc"), e)
		default:
			return fmt.Errorf("/%s is neither in /usr nor in /etc: a package brings a path that a node has no place for", p)
		}
		return nil
	})
}

// keepKernelConfig moves the kernel's configuration to where kubeadm's preflight and
// other checks of a machine look for it besides /boot, which a node has not mounted.
func keepKernelConfig(t *tree.Tree) {
	const from = "boot/config-"
	for _, p := range t.Paths() {
		if version, ok := strings.CutPrefix(p, from); ok {
			t.Set("usr/lib/modules/"+version+"/config", t.Get(p))
		}
	}
}

// KernelImage returns the kernel of a release, whose file below /boot begins with name:
// Debian has it there, and since version 7 beside its modules, from where its scripts copy it.
func KernelImage(t *tree.Tree, name, version string) ([]byte, error) {
	for _, p := range []string{"boot/" + name + "-" + version, "usr/lib/modules/" + version + "/vmlinuz"} {
		if t.Get(p) != nil {
			return t.ReadFile(p)
		}
	}
	return nil, fmt.Errorf("the packages hold modules of %s and no kernel: neither /boot/%s-%s nor vmlinuz beside the modules", version, name, version)
}

// osRelease names the image in os-release(5), on top of Debian's own lines.
func osRelease(t *tree.Tree, version string) error {
	const p = "usr/lib/os-release"
	b, err := t.ReadFile(p)
	if err != nil {
		return err
	}
	var out strings.Builder
	for _, l := range lines(b) {
		if v, ok := strings.CutPrefix(l, "PRETTY_NAME=\""); ok {
			l = "PRETTY_NAME=\"Kiln on " + v
		}
		fmt.Fprintln(&out, l)
	}
	fmt.Fprintf(&out, "VARIANT=\"Kiln\"\nVARIANT_ID=kiln\nIMAGE_ID=kiln\nIMAGE_VERSION=%s\n", version)
	t.AddFile(p, 0o644, []byte(out.String()))
	t.AddSymlink("etc/os-release", "../usr/lib/os-release")
	return nil
}

// KernelVersion returns the one kernel release that the tree has modules for.
func KernelVersion(t *tree.Tree) (string, error) {
	const dir = "usr/lib/modules/"
	found := map[string]bool{}
	for _, p := range t.Paths() {
		if rest, ok := strings.CutPrefix(p, dir); ok {
			found[strings.SplitN(rest, "/", 2)[0]] = true
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("the packages hold modules of %d kernels, one is right: %v", len(found), found)
	}
	var version string
	for version = range found {
	}
	return version, nil
}
