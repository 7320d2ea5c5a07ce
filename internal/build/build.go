// Package build is the pipeline of `imagegen build` and `imagegen stamp`: from a
// checked cluster file to one bootable disk image per node.
package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/kiln-os/kiln/images/deb"
	"github.com/kiln-os/kiln/images/osbase"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/cache"
	"github.com/kiln-os/kiln/internal/hosttools"
	"github.com/kiln-os/kiln/internal/nodeimage"
	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/pki"
	"github.com/kiln-os/kiln/profiles"
)

// Names of what a build leaves in its output folder.
const (
	SecretsDir = "secrets"          // CAs, keys, tokens; mode 0700
	AdminConf  = "admin.conf"       // in SecretsDir
	LockFile   = "kiln.lock.yaml"   // the Debian packages, as resolved
	TimesFile  = "build-times.json" // how long each step took
	BasesFile  = "kiln.bases.json"  // which base images the nodes have, by profile
)

// ImageName is the file of a node's disk image in the output folder.
func ImageName(node string) string { return node + ".img" }

// BasesKind is the cache's folder of base images.
const BasesKind = "bases"

// Options of a build.
type Options struct {
	Cluster *spec.Cluster
	Out     string // output folder; made if absent
	Mirror  string // see deb.FindMirror
	Source  string // Kiln's source tree, see payload.FindSource
	Cache   *cache.Cache
	Release string // Kiln's version, for os-release
	Locked  bool   // take the packages of Out's LockFile, and resolve nothing
	Offline bool   // take everything from the caches, and fetch nothing
	Now     time.Time
	// Progress is told of steps and of bytes; it may not be nil.
	Progress Progress
}

// Progress shows a person or a program how far a build is.
type Progress interface {
	// Step starts a step, which ends the one before it.
	Step(name string)
	// Bytes reports how much of the step's bytes are done.
	Bytes(done, total int64)
	// Log shows a line that belongs to the step.
	Log(line string)
}

// StepTime is how long a step took.
type StepTime struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
}

// Result says what was made.
type Result struct {
	Images  map[string]string // file by node
	Admin   string            // admin.conf
	Lock    string
	Times   []StepTime
	Release string
}

// timer measures steps on their way to a Progress.
type timer struct {
	Progress
	now   func() time.Time
	start time.Time
	times []StepTime
}

func (t *timer) Step(name string) {
	t.end()
	t.times = append(t.times, StepTime{Name: name})
	t.start = t.now()
	t.Progress.Step(name)
}

func (t *timer) end() {
	if n := len(t.times); n > 0 {
		t.times[n-1].Seconds = t.now().Sub(t.start).Seconds()
	}
}

// Run builds everything that the cluster file asks for.
func Run(ctx context.Context, o Options) (*Result, error) {
	steps := &timer{Progress: o.Progress, now: time.Now}
	o.Progress = steps
	if err := os.MkdirAll(o.Out, 0o755); err != nil {
		return nil, err
	}
	unlock, err := lockOutput(o.Out)
	if err != nil {
		return nil, err
	}
	defer unlock()

	steps.Step("keys and tokens")
	authority, err := secrets(o)
	if err != nil {
		return nil, err
	}

	result := &Result{Images: map[string]string{}, Admin: filepath.Join(o.Out, SecretsDir, AdminConf), Lock: filepath.Join(o.Out, LockFile)}
	bases := baseRecord{}
	images := map[string]*nodeimage.Base{}
	for _, n := range o.Cluster.Nodes {
		if images[n.Profile] != nil {
			continue
		}
		key, dir, err := baseFor(ctx, o, n.Profile)
		if err != nil {
			return nil, fmt.Errorf("base image for profile %s: %w", n.Profile, err)
		}
		if images[n.Profile], err = nodeimage.LoadBase(dir); err != nil {
			return nil, fmt.Errorf("base image for profile %s: %w", n.Profile, err)
		}
		bases[n.Profile] = key
	}
	// Before any image is there: what stamps another node later finds its base.
	if err := bases.write(o.Out); err != nil {
		return nil, err
	}
	if _, err := stampNodes(ctx, o, authority, images, o.Cluster.Nodes); err != nil {
		return nil, err
	}
	for _, n := range o.Cluster.Nodes {
		result.Images[n.Name] = filepath.Join(o.Out, ImageName(n.Name))
	}
	steps.end()
	result.Times = steps.times
	times, err := json.MarshalIndent(result.Times, "", "  ")
	if err != nil {
		return nil, err
	}
	return result, atomicfile.WriteFile(filepath.Join(o.Out, TimesFile), append(times, '\n'), 0o644)
}

func secrets(o Options) (*pki.Authority, error) {
	endpoint, err := o.Cluster.Endpoint()
	if err != nil {
		return nil, err
	}
	return pki.LoadOrCreate(filepath.Join(o.Out, SecretsDir), pki.Options{
		Algorithm: o.Cluster.EncryptionAlgorithm, ClusterName: o.Cluster.Name, Endpoint: endpoint,
		TokenTTL: o.Cluster.TokenTTL(), Now: o.Now,
	})
}

// baseFor returns the base image of a profile as a key and folder of the cache,
// which has it already if its inputs are those of one that was made before.
func baseFor(ctx context.Context, o Options, profile string) (key, dir string, err error) {
	p, err := profiles.Load(profile)
	if err != nil {
		return "", "", err
	}
	a, err := arch.Get(p.Arch)
	if err != nil {
		return "", "", err
	}
	o.Progress.Step("compile the payload for " + a.Go)
	programs, compiled, err := buildPrograms(ctx, o, a)
	if err != nil {
		return "", "", err
	}
	o.Progress.Step("resolve and fetch Debian packages")
	archive, lock, files, err := fetchPackages(ctx, o, a, p)
	if err != nil {
		return "", "", err
	}
	if err := lock.Write(filepath.Join(o.Out, LockFile)); err != nil {
		return "", "", err
	}
	o.Progress.Step("tools")
	tools, err := hosttools.Ensure(ctx, hosttools.Image, hosttools.Options{Cache: o.Cache, Mirror: archive.Mirror, Now: o.Now, Log: o.Progress.Log})
	if err != nil {
		return "", "", err
	}
	stamp, err := sourceDate(lock)
	if err != nil {
		return "", "", err
	}
	key, err = baseKey(a, p, lock, programs, tools, stamp, o.Release)
	if err != nil {
		return "", "", err
	}
	step := func(name string) { o.Progress.Step(name) }
	dir, err = o.Cache.Dir(BasesKind, key, func(tmp string) error {
		step("unpack Debian packages")
		packages, err := deb.Unpack(ctx, o.Cache, lock, files)
		if err != nil {
			return err
		}
		return makeBase(ctx, inputs{arch: a, profile: p, packages: packages, programs: programs, payload: compiled, time: stamp, release: o.Release}, tools, tmp, step)
	})
	return key, dir, err
}

// fetchPackages resolves what a node needs and fetches it.
func fetchPackages(ctx context.Context, o Options, a arch.Arch, p profiles.Profile) (*deb.Archive, *deb.Lock, []string, error) {
	mirror, err := deb.FindMirror(o.Mirror, "/etc/apt")
	if err != nil {
		return nil, nil, nil, err
	}
	archive := &deb.Archive{Mirror: mirror, Suite: hosttools.Suite, Components: []string{"main"}, Cache: o.Cache, Now: o.Now, Offline: o.Offline}
	roots := append(append([]string{p.Kernel}, osbase.Packages...), p.Packages...)
	if a.Boot == arch.BootEFI {
		roots = append(roots, "systemd-boot-efi")
	}
	req := deb.Request{Roots: roots, Exclude: osbase.Excluded, Prefer: osbase.Preferred}
	var lock *deb.Lock
	if o.Locked {
		lock, err = archive.Locked(filepath.Join(o.Out, LockFile), a.Debian, req)
	} else {
		lock, err = archive.Resolve(ctx, a.Debian, req)
	}
	if err != nil {
		return nil, nil, nil, err
	}
	files, err := archive.Fetch(ctx, lock, o.Progress.Bytes)
	return archive, lock, files, err
}

// sourceDate is the time on everything in an image: $SOURCE_DATE_EPOCH (see
// reproducible-builds.org/specs/source-date-epoch), else the lock's date.
func sourceDate(l *deb.Lock) (time.Time, error) {
	s := os.Getenv("SOURCE_DATE_EPOCH")
	if s == "" {
		return l.Date, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 315532800 {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH=%q: it is a number of seconds since 1970, and after 1980, where FAT's time begins", s)
	}
	return time.Unix(n, 0).UTC(), nil
}

// lockOutput keeps two builds from writing one output folder at once.
func lockOutput(dir string) (func(), error) {
	unlock, err := cache.TryLock(filepath.Join(dir, ".kiln.lock"))
	if errors.Is(err, cache.ErrLocked) {
		return nil, fmt.Errorf("another build is writing to %s; wait for it, or give another folder with -o", dir)
	}
	return unlock, err
}
