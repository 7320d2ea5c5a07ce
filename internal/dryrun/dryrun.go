// Package dryrun lets phases of a first boot run without any effect on the node: they
// write into a folder that stands for the node's file system, and an API server that
// only listens takes their objects. What they would have done is reported.
package dryrun

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/phase"
)

// linked are the files and folders of the node that phases read. What is in them is
// seen through links, and a file that a phase writes takes the place of its link.
var linked = []string{
	"/etc/kubernetes", "/var/lib/kubelet", // file by file: phases write there
	"/etc/pki/ca-trust", "/etc/pki/tls/certs", "/etc/ca-certificates", "/usr",
}

// Folder is a folder that stands for the node's file system.
type Folder struct {
	Paths host.Paths
	real  host.Paths
	seen  map[string]bool
}

// NewFolder makes the folder dir, which holds links to the node's files: no key is
// copied.
func NewFolder(dir string, real host.Paths) (*Folder, error) {
	paths := real
	paths.Root = dir
	f := &Folder{Paths: paths, real: real, seen: map[string]bool{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	for i, path := range append([]string{real.PKI()}, linked...) {
		if i == 0 {
			path = strings.TrimPrefix(path, strings.TrimSuffix(real.Root, "/"))
		}
		if err := f.link(path, i <= 2); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// link makes path in the folder a link to the node's, or with deep a folder of links
// to its files.
func (f *Folder) link(path string, deep bool) error {
	from, err := filepath.Abs(f.real.At(path))
	if err != nil {
		return err
	}
	to := f.Paths.At(path)
	st, err := os.Stat(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !deep || !st.IsDir() {
		if _, err := os.Lstat(to); err == nil {
			return nil
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		return os.Symlink(from, to)
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	for _, e := range entries {
		// The volumes of pods are nothing that a phase reads.
		if e.Name() == "pods" || e.Name() == "tmp" {
			continue
		}
		if err := f.link(filepath.Join(path, e.Name()), true); err != nil {
			return err
		}
	}
	return nil
}

// Report says which files were written since the last call.
func (f *Folder) Report(r phase.Report) error {
	return filepath.WalkDir(f.Paths.Root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || f.seen[path] || strings.HasPrefix(path, f.Objects()+"/") {
			return err
		}
		f.seen[path] = true
		info, err := d.Info()
		if err != nil {
			return err
		}
		r.Step("would write %s (%04o, %d bytes)", strings.TrimPrefix(path, f.Paths.Root), info.Mode().Perm(), info.Size())
		return nil
	})
}

// Objects is the folder of the API objects.
func (f *Folder) Objects() string { return filepath.Join(f.Paths.Root, "objects") }

// Units is a systemd whose units can be looked at but not changed.
type Units struct {
	host.Units
	Out phase.Report
}

// Reload implements host.Units.
func (u Units) Reload(context.Context) error {
	u.Out.Step("[dryrun] would reload systemd")
	return nil
}

// Restart implements host.Units.
func (u Units) Restart(_ context.Context, unit string) error {
	u.Out.Step("[dryrun] would start %s", unit)
	return nil
}

// Stop implements host.Units.
func (u Units) Stop(_ context.Context, unit string) error {
	u.Out.Step("[dryrun] would stop %s", unit)
	return nil
}

// Rehearse runs those of phases whose names are in safe, and says of the others what
// they are for. It returns the first error: the run would end there.
func Rehearse(ctx context.Context, phases []phase.Phase, safe []string, f *Folder, r phase.Report) error {
	for i, p := range phases {
		if err := ctx.Err(); err != nil {
			return err
		}
		at := prefixed{r, fmt.Sprintf("[dryrun] [%2d/%d] %s: ", i+1, len(phases), p.Name)}
		if !slices.Contains(safe, p.Name) {
			at.Step("would do: %s", p.Summary)
			continue
		}
		at.Step("%s", p.Summary)
		if err := p.Run(ctx, at); err != nil {
			return fmt.Errorf("phase %s: %w", p.Name, err)
		}
		if err := f.Report(at); err != nil {
			return err
		}
	}
	return nil
}

// prefixed names the phase in each line.
type prefixed struct {
	phase.Report
	prefix string
}

func (p prefixed) Step(format string, args ...any) {
	p.Report.Step("%s%s", p.prefix, fmt.Sprintf(format, args...))
}
func (p prefixed) Warn(format string, args ...any) {
	p.Report.Warn("%s%s", p.prefix, fmt.Sprintf(format, args...))
}
