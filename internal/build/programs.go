package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kiln-os/kiln/images/deb"
	"github.com/kiln-os/kiln/images/osbase"
	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/cache"
	"github.com/kiln-os/kiln/internal/procgroup"
	"github.com/kiln-os/kiln/payload"
	"github.com/kiln-os/kiln/profiles"
	"github.com/kiln-os/kiln/units"
)

// Kiln's own programs among the compiled ones, which are commands of these names.
const (
	firstbootProgram = "firstboot"
	installProgram   = "kiln-install"  // for the formats that boot without a disk
	userdataProgram  = "kiln-userdata" // only for clouds
)

// programs are the compiled programs of a node by name.
type programs map[string]program

type program struct{ path, sha256 string }

// buildPrograms gets the payload, compiled or released, and compiles Kiln's own
// programs, as far as the cache does not have them.
func buildPrograms(ctx context.Context, o Options, a arch.Arch, p profiles.Profile) (programs, payloadParts, error) {
	source, err := payload.FindSource(o.Source)
	if err != nil {
		return nil, payloadParts{}, err
	}
	parts, err := getPayload(ctx, o, a, source)
	if err != nil {
		return nil, parts, err
	}
	ps := programs{}
	for _, b := range parts.programs.Binaries {
		ps[b.Name] = program{b.Path, b.SHA256}
	}
	own := []string{firstbootProgram, installProgram}
	if p.Cloud() {
		own = append(own, userdataProgram)
	}
	for _, name := range own {
		if ps[name], err = buildOwn(ctx, o, a, filepath.Dir(source), name); err != nil {
			return nil, parts, err
		}
	}
	return ps, parts, nil
}

// buildOwn compiles a program out of the checkout. The go command knows
// better than any digest of ours what has changed, and has compiled packages in its
// own cache; but it links anew each time, so the program is kept by their IDs.
func buildOwn(ctx context.Context, o Options, a arch.Arch, root, name string) (program, error) {
	// Without gRPC's debug pages, whose templates may call any method by its name: the
	// linker would keep all methods there are, which is a third of the program.
	flags := []string{"-trimpath", "-buildvcs=false", "-mod=readonly", "-tags=grpcnotrace"}
	ldflags := "-s -w -buildid= -X github.com/kiln-os/kiln/internal/version.Version=" + o.Release
	run := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+a.Go, "GOARM="+a.GoARM, "GOTOOLCHAIN=local", "GOFLAGS=")
		if o.Offline {
			cmd.Env = append(cmd.Env, "GOPROXY=off")
		}
		// Its own process group, so that no compiler outlives an interrupted build.
		procgroup.Set(cmd)
		cmd.Cancel = func() error { return procgroup.Interrupt(cmd) }
		cmd.WaitDelay = 10 * time.Second
		var failure bytes.Buffer
		cmd.Stderr = &failure
		out, err := cmd.Output()
		if err != nil {
			err = fmt.Errorf("compile %s: %w\n%s", name, err, strings.TrimSpace(failure.String()))
		}
		return out, err
	}
	// A BuildID holds the digests of a package's inputs and of its compiled form.
	ids, err := run(slices.Concat([]string{"list", "-deps", "-export", "-f", "{{.ImportPath}} {{.BuildID}}"}, flags, []string{"./cmd/" + name})...)
	if err != nil {
		return program{}, err
	}
	dir, err := o.Cache.Dir(ctx, name, cache.Key(a.Go, a.GoARM, ldflags, string(ids)), func(tmp string) error {
		o.Progress.Log(name)
		_, err := run(slices.Concat([]string{"build"}, flags, []string{"-ldflags", ldflags, "-o", filepath.Join(tmp, name), "./cmd/" + name})...)
		return err
	})
	if err != nil {
		return program{}, err
	}
	path := filepath.Join(dir, name)
	sum, err := cache.FileDigest(path)
	return program{path, sum}, err
}

// content returns a program's bytes for a tree.
func (ps programs) content(name string) (tree.Content, error) {
	p, ok := ps[name]
	if !ok {
		return nil, fmt.Errorf("the payload has no program %s", name)
	}
	return tree.NewHostFile(p.path)
}

// userdataContent is the program that a cloud's initramfs asks for user data with; nil
// for other platforms.
func userdataContent(in inputs) (tree.Content, error) {
	if !in.profile.Cloud() {
		return nil, nil
	}
	return in.programs.content(userdataProgram)
}

// osPrograms says where the programs that run outside of containers stand.
func osPrograms(ps programs) ([]osbase.Program, error) {
	type place struct {
		name, path string
		links      []string
	}
	places := []place{
		{payload.Containerd, "usr/bin/containerd", nil},
		{payload.Shim, "usr/bin/containerd-shim-runc-v2", nil},
		{payload.Ctr, "usr/bin/ctr", nil},
		{firstbootProgram, "usr/bin/firstboot", nil},
		{installProgram, "usr/lib/kiln/install", nil}, // units/live starts it
	}
	if _, one := ps[payload.Kubernetes]; one {
		places = append(places, place{payload.Kubernetes, "usr/bin/" + payload.Kubernetes, []string{"usr/bin/kubelet", "usr/bin/kubectl"}})
	} else {
		places = append(places, place{"kubelet", "usr/bin/kubelet", nil}, place{"kubectl", "usr/bin/kubectl", nil})
	}
	for _, n := range payload.CNIPlugins() {
		places = append(places, place{n, "usr/lib/cni/" + n, nil})
	}
	var out []osbase.Program
	at := map[string]int{} // by digest: programs that are merged are one file
	for _, p := range places {
		if i, ok := at[ps[p.name].sha256]; ok {
			out[i].Names = append(out[i].Names, p.path)
			continue
		}
		c, err := ps.content(p.name)
		if err != nil {
			return nil, err
		}
		at[ps[p.name].sha256] = len(out)
		out = append(out, osbase.Program{Path: p.path, Content: c, Links: p.links})
	}
	return out, nil
}

// baseVersion changes when the code that makes a base does in a way that its other
// inputs do not show: tests of golden digests fail then.
const baseVersion = "5"

// baseKey is the digest of everything that decides a base's bytes.
func baseKey(a arch.Arch, p profiles.Profile, l *deb.Lock, ps programs, pl payloadParts, stamp time.Time, release string) (string, error) {
	lock, err := l.Digest()
	if err != nil {
		return "", err
	}
	overlays := tree.New()
	for _, lay := range []func(*tree.Tree, units.Vars) error{units.System, units.Initrd} {
		if err := lay(overlays, varsOf(a, p)); err != nil {
			return "", err
		}
	}
	h := sha256.New()
	if err := overlays.WriteTar(h, stamp); err != nil {
		return "", err
	}
	about, err := json.Marshal(p)
	if err != nil {
		return "", err
	}
	// The program itself stands for all code that assembles images.
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	self, err := cache.FileDigest(exe)
	if err != nil {
		return "", err
	}
	parts := []string{baseVersion, self, a.Go, p.Name, string(about), lock, hex.EncodeToString(h.Sum(nil)), stamp.UTC().Format(time.RFC3339), release}
	for _, n := range slices.Sorted(maps.Keys(ps)) {
		parts = append(parts, n, ps[n].sha256)
	}
	record, err := json.Marshal(pl.record)
	return cache.Key(append(parts, string(record))...), err
}
