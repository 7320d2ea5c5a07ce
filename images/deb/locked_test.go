package deb

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/images/deb/debtest"
)

// TestLocked: the packages of a lock file are taken again, without asking the
// mirror for an index, even when it has newer ones; and only for the same request.
func TestLocked(t *testing.T) {
	d := debtest.New(t)
	d.Publish("trixie", "amd64", nil, hello()...)
	a := open(t, d)
	req := Request{Roots: []string{"hello"}}
	l, err := a.Resolve(ctx, "amd64", req)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kiln.lock.yaml")
	if _, err := a.Locked(path, "amd64", req); err == nil || !strings.Contains(err.Error(), "no lock file "+path) || !strings.Contains(err.Error(), "build once without --locked") {
		t.Errorf("without a lock file: %v", err)
	}
	if err := l.Write(path); err != nil {
		t.Fatal(err)
	}
	newer := hello()
	newer[0].Version = "3.0-1"
	d.Publish("trixie", "amd64", nil, newer...)
	d.Requests() // forgets them
	locked, err := a.Locked(path, "amd64", req)
	if err != nil {
		t.Fatal(err)
	}
	if got := locked.Packages[0].Version; got != "2.10-3" {
		t.Errorf("locked version %s", got)
	}
	if r := d.Requests(); len(r) != 0 {
		t.Errorf("reading a lock asked for %q", r)
	}
	for name, c := range map[string]struct {
		arch string
		req  Request
	}{
		"other packages":     {"amd64", Request{Roots: []string{"hello", "libhello"}}},
		"other architecture": {"arm64", req},
	} {
		if _, err := a.Locked(path, c.arch, c.req); err == nil || !strings.Contains(err.Error(), "another list of packages") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestArchiveOfADay: a lock says as of which day its archive was judged, also when what
// it resolves to was in the cache, and the packages are those of any other day.
func TestArchiveOfADay(t *testing.T) {
	d := debtest.New(t)
	d.Publish("trixie", "amd64", []string{"Valid-Until: " + debtest.Date.AddDate(0, 0, 7).Format(time.RFC1123)}, hello()...)
	a := open(t, d)
	req := Request{Roots: []string{"hello"}}
	now, err := a.Resolve(ctx, "amd64", req)
	if err != nil || now.AsOf != "" {
		t.Fatalf("%+v, %v", now, err)
	}
	a.Now = a.Now.AddDate(1, 0, 0)
	var stale *StaleError
	if _, err := a.Resolve(ctx, "amd64", req); !errors.As(err, &stale) || !stale.ValidUntil.Equal(debtest.Date.AddDate(0, 0, 7)) {
		t.Fatalf("a year later: %v", err)
	}
	a.AsOf = debtest.Date.Truncate(24 * time.Hour)
	for _, offline := range []bool{false, true} {
		a.Offline = offline
		l, err := a.Resolve(ctx, "amd64", req)
		if err != nil {
			t.Fatal(err)
		}
		if l.AsOf != "2026-05-01" || l.InRelease != now.InRelease || !slices.Equal(l.Packages, now.Packages) {
			t.Errorf("offline %t: lock %+v", offline, l)
		}
		b, err := l.Marshal()
		if err != nil || !strings.Contains(string(b), "\nasOf: \"2026-05-01\"\n") {
			t.Errorf("%s, %v", b, err)
		}
	}
}

// TestLocksOfSeveral: the lock file of a cluster with machines of several kinds has one
// for each.
func TestLocksOfSeveral(t *testing.T) {
	d := debtest.New(t)
	d.Publish("trixie", "amd64", nil, hello()...)
	a := open(t, d)
	path := filepath.Join(t.TempDir(), "kiln.lock.yaml")
	requests := []Request{{Roots: []string{"hello"}}, {Roots: []string{"libhello"}}}
	var locks []*Lock
	for _, r := range requests {
		l, err := a.Resolve(ctx, "amd64", r)
		if err != nil {
			t.Fatal(err)
		}
		locks = append(locks, l)
	}
	if err := WriteLocks(path, locks); err != nil {
		t.Fatal(err)
	}
	for i, r := range requests {
		l, err := a.Locked(path, "amd64", r)
		if err != nil || len(l.Packages) != len(locks[i].Packages) || l.Request != locks[i].Request {
			t.Errorf("%v: %+v, %v", r.Roots, l, err)
		}
	}
	if _, err := a.Locked(path, "armhf", requests[0]); err == nil || !strings.Contains(err.Error(), "(trixie, amd64; trixie, amd64)") || !strings.Contains(err.Error(), "(trixie, armhf)") {
		t.Errorf("another architecture: %v", err)
	}
}

// FuzzParseLock reads lock files of unknown origin, such as those in images.
func FuzzParseLock(f *testing.F) {
	l := &Lock{Suite: "trixie", Arch: "amd64", Components: []string{"main"}, Packages: []LockedPackage{{"hello", "1", "amd64", "pool/h.deb", 5, strings.Repeat("0", 64)}}}
	b, err := l.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseLock(b)
		if err != nil {
			return
		}
		again, err := l.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseLock(again); err != nil {
			t.Errorf("what was read cannot be read again: %v", err)
		}
	})
}
