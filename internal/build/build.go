// Package build is the pipeline of `imagegen build` and `imagegen stamp`: from a
// checked cluster file to one bootable disk image per node.
package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kiln-os/kiln/images/deb"
	"github.com/kiln-os/kiln/images/grub"
	"github.com/kiln-os/kiln/images/osbase"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/cache"
	"github.com/kiln-os/kiln/internal/nodeimage"
	"github.com/kiln-os/kiln/internal/release"
	"github.com/kiln-os/kiln/internal/render"
	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/profiles"
)

// Names of what a build leaves in its output folder.
const (
	SecretsDir = "secrets"          // CAs, keys, tokens; mode 0700
	AdminConf  = "admin.conf"       // in SecretsDir
	LockFile   = "kiln.lock.yaml"   // the Debian packages, as resolved
	TimesFile  = "build-times.json" // how long each step took
	BasesFile  = "kiln.bases.json"  // which base images the nodes have, by profile
	// PayloadFile says where each program and image of the payload is from; see payloadFile.
	PayloadFile = "kiln.payload.json"
)

// ImageName is the file of a node's raw disk image in the output folder.
func ImageName(node string) string { return node + ".img" }

// BasesKind is the cache's folder of base images.
const BasesKind = "bases"

// Options of a build.
type Options struct {
	Cluster *spec.Cluster
	Out     string // output folder; made if absent
	Mirror  string // see deb.FindMirror
	Suite   string // of Debian; "" leaves it to the cluster file and the profile, see suiteOf
	// ArchiveDate is the day as of which the archive is judged, see deb.ParseDay; "" leaves
	// it to the cluster file, and is now if that says nothing.
	ArchiveDate string
	Source      string // Kiln's source tree, see payload.FindSource
	// Payload is where the nodes' programs come from; nil means that they are compiled.
	Payload *release.Manifest
	Cache   *cache.Cache
	Release string // Kiln's version, for os-release
	// Formats are those of the images, by name; none means those of each node.
	Formats []string
	Locked  bool // take the packages of Out's LockFile, and resolve nothing
	Offline bool // take everything from the caches, and fetch nothing
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
	Images  []Image
	Admin   string // admin.conf
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
	if err := checkClock(o.Now); err != nil {
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

	// Before anything takes time: what cannot be made or written is said at once.
	for _, n := range o.Cluster.Nodes {
		if _, err := render.BootPlan(o.Cluster, authority, n); err != nil {
			return nil, fmt.Errorf("node %s: %w", n.Name, err)
		}
	}
	images, err := o.imagesOf(o.Cluster.Nodes)
	if err != nil {
		return nil, err
	}
	result := &Result{Images: images, Lock: filepath.Join(o.Out, LockFile)}
	if !o.Cluster.Existing() {
		result.Admin = filepath.Join(o.Out, SecretsDir, AdminConf)
	}
	bases := baseRecord{}
	loaded := map[string]*nodeimage.Base{}
	var found []*foundBase // in the order of the nodes
	for _, n := range o.Cluster.Nodes {
		if loaded[n.Profile] != nil {
			continue
		}
		b, err := baseFor(ctx, o, n.Profile)
		if err == nil {
			loaded[n.Profile], err = nodeimage.LoadBase(b.dir)
		}
		if err != nil {
			return nil, fmt.Errorf("base image for profile %s: %w", n.Profile, err)
		}
		bases[n.Profile], found = b.key, append(found, b)
	}
	// Before any image is there: what stamps another node later finds its base.
	if err := bases.write(o.Out); err != nil {
		return nil, err
	}
	if _, err := stampNodes(ctx, o, authority, loaded, o.Cluster.Nodes); err != nil {
		return nil, err
	}
	steps.end()
	// Last, so that a build that fails leaves those of the images that are there.
	if err := recordAll(o.Out, found); err != nil {
		return nil, err
	}
	result.Times = steps.times
	times, err := json.MarshalIndent(result.Times, "", "  ")
	if err != nil {
		return nil, err
	}
	return result, atomicfile.WriteFile(filepath.Join(o.Out, TimesFile), append(times, '\n'), 0o644)
}

// validity is a life of certificates, 0 if none is set.
func validity(d *metav1.Duration) time.Duration {
	if d == nil {
		return 0
	}
	return d.Duration
}

// foundBase is a base image in the cache.
type foundBase struct {
	key, dir string
	lock     *deb.Lock
	payload  Payload
}

// recordAll writes down in the output folder what the bases of a cluster are made of.
func recordAll(out string, bases []*foundBase) error {
	var locks []*deb.Lock
	var errs []error
	seen := map[string]bool{}
	for _, b := range bases {
		locks = append(locks, b.lock)
		if !seen[b.payload.Arch] {
			errs = append(errs, b.payload.write(filepath.Join(out, payloadFile(b.payload.Arch, len(seen) == 0))))
			seen[b.payload.Arch] = true
		}
	}
	return errors.Join(append(errs, deb.WriteLocks(filepath.Join(out, LockFile), locks))...)
}

// recordOne writes down what a base is made of that was made anew, besides what there is.
func recordOne(o Options, b *foundBase) error {
	file := filepath.Join(o.Out, LockFile)
	locks, err := deb.ReadLocks(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	locks = slices.DeleteFunc(locks, func(l *deb.Lock) bool { return l.Arch == b.lock.Arch && l.Request == b.lock.Request })
	p, err := profiles.Load(o.Cluster.Nodes[0].Profile)
	if err != nil {
		return err
	}
	return errors.Join(deb.WriteLocks(file, append(locks, b.lock)), b.payload.write(filepath.Join(o.Out, payloadFile(b.payload.Arch, b.payload.Arch == p.Arch))))
}

// payloadFile is PayloadFile for the first architecture of a cluster; those of others have
// its name: kiln.payload.ARCH.json.
func payloadFile(goarch string, first bool) string {
	if first {
		return PayloadFile
	}
	return strings.TrimSuffix(PayloadFile, "json") + goarch + ".json"
}

// baseFor returns the base image of a profile, from the cache if its inputs are
// the same as those of one that was made before.
func baseFor(ctx context.Context, o Options, profile string) (*foundBase, error) {
	p, err := profiles.Load(profile)
	if err != nil {
		return nil, err
	}
	a, err := arch.Get(p.Arch)
	if err != nil {
		return nil, err
	}
	o.Progress.Step(payloadStep(o, a))
	programs, parts, err := buildPrograms(ctx, o, a, p)
	if err != nil {
		return nil, err
	}
	o.Progress.Step("resolve and fetch Debian packages")
	lock, files, err := fetchPackages(ctx, o, a, p)
	if err != nil {
		return nil, err
	}
	stamp, err := SourceDate(lock.Date)
	if err != nil {
		return nil, err
	}
	key, err := baseKey(a, p, lock, programs, parts, stamp, o.Release)
	if err != nil {
		return nil, err
	}
	step := func(name string) { o.Progress.Step(name) }
	dir, err := o.Cache.Dir(ctx, BasesKind, key, func(tmp string) error {
		step("unpack Debian packages")
		packages, err := deb.Unpack(ctx, o.Cache, lock, files)
		if err != nil {
			return err
		}
		return makeBase(ctx, inputs{arch: a, profile: p, packages: packages, lock: lock, programs: programs, payload: parts, time: stamp, release: o.Release}, tmp, step)
	})
	return &foundBase{key: key, dir: dir, lock: lock, payload: parts.record}, err
}

// request asks for the packages of a node.
func request(a arch.Arch, p profiles.Profile, suite osbase.Suite) deb.Request {
	r := deb.Request{
		Roots:   append(append([]string{p.Kernel}, suite.Roots()...), p.Packages...),
		Exclude: suite.Exclude(), Prefer: osbase.Preferred,
	}
	if p.Zram != "" {
		r.Roots = append(r.Roots, osbase.ZramPackage)
	}
	switch a.Boot {
	case arch.BootEFI:
		r.Roots = append(r.Roots, "systemd-boot-efi")
	case arch.BootPReP:
		r.Roots, r.Exclude = append(r.Roots, grub.Package), append(r.Exclude, grub.Unneeded...)
	}
	return r
}

// fetchPackages resolves what a node needs and fetches it.
func fetchPackages(ctx context.Context, o Options, a arch.Arch, p profiles.Profile) (*deb.Lock, []string, error) {
	mirror, err := deb.FindMirror(o.Mirror, "/etc/apt")
	if err != nil {
		return nil, nil, err
	}
	suite, err := suiteOf(o, p)
	if err != nil {
		return nil, nil, err
	}
	asOf, err := archiveDate(o)
	if err != nil {
		return nil, nil, err
	}
	archive := &deb.Archive{Mirror: mirror, Suite: suite.Name, Components: p.Components, Cache: o.Cache, Now: o.Now, AsOf: asOf, Offline: o.Offline}
	req := request(a, p, suite)
	var lock *deb.Lock
	if o.Locked {
		lock, err = archive.Locked(filepath.Join(o.Out, LockFile), a.Debian, req)
	} else {
		lock, err = archive.Resolve(ctx, a.Debian, req)
	}
	if err != nil {
		return nil, nil, staleHint(err, suite)
	}
	files, err := archive.Fetch(ctx, lock, o.Progress.Bytes)
	return lock, files, err
}
