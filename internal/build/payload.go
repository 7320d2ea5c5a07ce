package build

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/kiln-os/kiln/images/deb"
	"github.com/kiln-os/kiln/images/elfdeps"
	"github.com/kiln-os/kiln/images/oci"
	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/release"
	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/payload"
)

// Payload records where what the nodes run besides Debian's packages comes from.
type Payload struct {
	Source     spec.PayloadSource `json:"source"`
	Arch       string             `json:"arch"`
	Kubernetes string             `json:"kubernetes"` // version
	Parts      []payload.Origin   `json:"parts"`
}

// payloadParts are programs, and the container images that are not composed of them.
type payloadParts struct {
	programs payload.Result
	images   map[string]oci.Image
	record   Payload
}

func payloadStep(o Options, a arch.Arch) string {
	if o.Payload != nil {
		return "fetch the payload for " + a.Go
	}
	return "compile the payload for " + a.Go
}

// getPayload compiles the payload from source, or fetches what its manifest names.
func getPayload(ctx context.Context, o Options, a arch.Arch, source string) (payloadParts, error) {
	p := payloadParts{record: Payload{Source: spec.PayloadCompile, Arch: a.Go}}
	if o.Payload == nil {
		r, err := payload.Build(ctx, payload.Options{Arch: a, CacheDir: o.Cache.Path(), SourceDir: source, Kubernetes: o.Cluster.KubernetesVersion, Offline: o.Offline, Progress: o.Progress.Log})
		if err != nil {
			return p, err
		}
		p.programs, p.record.Parts = r, r.Origins()
	} else {
		r, err := release.Get(ctx, o.Payload, release.Options{Arch: a, Cache: o.Cache, Offline: o.Offline, Progress: o.Progress.Log, Bytes: o.Progress.Bytes})
		if err != nil {
			return p, err
		}
		p.programs, p.images, p.record.Parts, p.record.Source = r.Programs, r.Images, r.Sources, spec.PayloadRelease
	}
	p.record.Kubernetes = p.programs.KubernetesVersion()
	return p, nil
}

func (p Payload) marshal() ([]byte, error) {
	b, err := json.MarshalIndent(p, "", "  ")
	return append(b, '\n'), err
}

func (p Payload) write(file string) error {
	b, err := p.marshal()
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(file, b, 0o644)
}

// What an image says of itself; paths in /usr.
const (
	PayloadRecord  = "share/kiln/payload.json"  // a Payload
	PackagesRecord = "share/kiln/packages.yaml" // a deb.Lock
)

// describePackages puts the list of Debian's packages on the node, which has no
// database of dpkg.
func describePackages(t *tree.Tree, l *deb.Lock) error {
	b, err := l.Marshal()
	if err != nil {
		return err
	}
	t.AddFile("usr/"+PackagesRecord, 0o644, b)
	return nil
}

// describePayload puts the record on the node, names its source in os-release(5), and
// fails if a program needs a library that the node does not have.
func describePayload(t *tree.Tree, in inputs) error {
	b, err := in.payload.record.marshal()
	if err != nil {
		return err
	}
	t.AddFile("usr/"+PayloadRecord, 0o644, b)
	const p = "usr/lib/os-release"
	old, err := t.ReadFile(p)
	if err != nil {
		return err
	}
	lines := fmt.Sprintf("KILN_PAYLOAD=%s\nKILN_KUBERNETES=%s\n", in.payload.record.Source, in.payload.record.Kubernetes)
	t.AddFile(p, 0o644, append(old, lines...))
	if in.payload.record.Source == spec.PayloadCompile {
		return nil // without cgo there are no libraries to need
	}
	installed, err := osPrograms(in.programs)
	if err != nil {
		return err
	}
	var paths []string
	for _, p := range installed {
		paths = append(paths, p.Path)
	}
	if _, err := elfdeps.Closure(t, paths); err != nil {
		return fmt.Errorf("payload: %w", err)
	}
	return nil
}
