package build

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/images/deb"
	"github.com/kiln-os/kiln/images/deb/debtest"
	"github.com/kiln-os/kiln/images/osbase"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/cache"
	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/profiles"
)

func TestSuiteOf(t *testing.T) {
	for name, c := range map[string]struct{ build, cluster, profile, want string }{
		"nothing is said":     {"", "", "", osbase.DefaultSuite},
		"the profile":         {"", "", "forky", "forky"},
		"the cluster file":    {"", "trixie", "forky", "trixie"},
		"this build":          {"forky", "trixie", "", "forky"},
		"one that is unknown": {"buzz", "", "", ""},
	} {
		o := Options{Suite: c.build, Cluster: &spec.Cluster{Debian: spec.Debian{Suite: c.cluster}}}
		s, err := suiteOf(o, profiles.Profile{Suite: c.profile})
		if s.Name != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%s: %q, %v", name, s.Name, err)
		}
	}
	for _, n := range profiles.Names() {
		p, err := profiles.Load(n)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := suiteOf(Options{Cluster: &spec.Cluster{}}, p); err != nil {
			t.Errorf("profile %s: %v", n, err)
		}
	}
}

func TestArchiveDate(t *testing.T) {
	for name, c := range map[string]struct{ build, cluster, want string }{
		"nothing is said":  {"", "", "0001-01-01"},
		"the cluster file": {"", "2026-11-01", "2026-11-01"},
		"this build":       {"2026-10-30", "2026-11-01", "2026-10-30"},
		"no day":           {"now", "", ""},
	} {
		day, err := archiveDate(Options{ArchiveDate: c.build, Cluster: &spec.Cluster{Debian: spec.Debian{Date: c.cluster}}})
		if (err != nil) != (c.want == "") || err == nil && day.Format(time.DateOnly) != c.want {
			t.Errorf("%s: %v, %v", name, day, err)
		}
	}
}

// TestLockIsOfTheSuite: what two suites resolve to has different digests, which are part
// of the base's key, even if the packages are the same.
func TestLockIsOfTheSuite(t *testing.T) {
	d := debtest.New(t)
	store, err := cache.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, suite := range osbase.Suites() {
		d.Publish(suite, "amd64", nil, debtest.Package{Name: "hello", Version: "1"})
		a := &deb.Archive{Mirror: d.URL, Suite: suite, Components: []string{"main"}, Cache: store, Keyring: d.Keyring, Now: debtest.Date.Add(time.Hour)}
		lock, err := a.Resolve(context.Background(), "amd64", deb.Request{Roots: []string{"hello"}})
		if err != nil {
			t.Fatal(err)
		}
		digest, err := lock.Digest()
		if err != nil {
			t.Fatal(err)
		}
		if seen[digest] || lock.Suite != suite {
			t.Errorf("suite %s: lock of %s with digest %s", suite, lock.Suite, digest)
		}
		seen[digest] = true
	}
}

// TestStaleSuiteNamesOthers: who has a mirror that is out of date learns that there are
// other suites; verification stays as strict as it is.
func TestStaleSuiteNamesOthers(t *testing.T) {
	d := debtest.New(t)
	store, err := cache.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	// Signed by a stranger: not stale, but not Debian's.
	d.Publish(osbase.DefaultSuite, "armhf", nil, debtest.Package{Name: "hello", Version: "1"})
	a, err := arch.Get("arm")
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Cluster: &spec.Cluster{}, Mirror: d.URL, Cache: store, Now: debtest.Date.Add(time.Hour)}
	if _, _, err := fetchPackages(context.Background(), o, a, profiles.Profile{Kernel: "hello"}); err == nil || strings.Contains(err.Error(), "--suite") {
		t.Errorf("another signature: %v", err)
	}
	d.Publish("trixie", "armhf", []string{"Valid-Until: " + debtest.Date.AddDate(0, 0, 7).Format(time.RFC1123)}, debtest.Package{Name: "hello", Version: "1"})
	archive := &deb.Archive{Mirror: d.URL, Suite: "trixie", Components: []string{"main"}, Cache: store, Keyring: d.Keyring, Now: debtest.Date.AddDate(0, 1, 0)}
	_, stale := archive.Resolve(context.Background(), "armhf", deb.Request{Roots: []string{"hello"}})
	if stale == nil {
		t.Fatal("an index that is not valid any more is used")
	}
	err = staleHint(stale, osbase.Suite{Name: "trixie"})
	for _, want := range []string{"suite trixie", "valid until 2026-05-08", "--mirror", "--suite", "debian.suite", "forky", "name one before 2026-05-08 with --archive-date or debian.date"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}
