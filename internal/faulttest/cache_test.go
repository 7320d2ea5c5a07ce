//go:build faults

package faulttest

import (
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// damageFile replaces a file by one that is cut off or has one bit flipped. The
// file itself, which other caches link to, stays.
func damageFile(t *testing.T, name string, rnd *rand.Rand) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if rnd.IntN(2) == 0 && len(b) > 0 {
		b = b[:rnd.IntN(len(b))]
	} else if len(b) > 0 {
		b[rnd.IntN(len(b))] ^= 1 << rnd.IntN(8)
	} else {
		b = []byte("x")
	}
	st, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b, st.Mode()); err != nil {
		t.Fatal(err)
	}
}

// damageKind damages one file of each entry of a kind, and returns how many.
func damageKind(t *testing.T, cache, kind string, rnd *rand.Rand) int {
	t.Helper()
	entries := map[string][]string{} // files by entry
	root := filepath.Join(cache, kind)
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.HasSuffix(p, ".lock") {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		entry, _, _ := strings.Cut(rel, "/")
		entries[entry] = append(entries[entry], p)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, files := range entries {
		damageFile(t, files[rnd.IntN(len(files))], rnd)
	}
	return len(entries)
}

// TestDamagedCache damages every entry of each kind. The build notices, says so,
// makes them again and gives the same bytes.
func TestDamagedCache(t *testing.T) {
	rnd := seeded(t)
	for _, c := range []struct {
		kind    string
		without string // what would hide the damage
	}{
		{kind: "bases"}, {kind: "resolutions"},
		{kind: "unpacked", without: "bases"},
		{kind: "payload/pause-amd64"}, // the others take minutes to compile, and are kept the same way
	} {
		t.Run(strings.ReplaceAll(c.kind, "/", "-"), func(t *testing.T) {
			cache, out := newCache(t, c.without), newOutput(t)
			if n := damageKind(t, cache, c.kind, rnd); n == 0 {
				t.Fatal("nothing there to damage")
			}
			r := build(t, cache, out, "--offline")
			wantOK(t, r, cache, out)
			wantError(t, r, 0, "damaged in the cache, made again: "+filepath.Join(cache, c.kind))
			if r = build(t, cache, out, "--offline"); strings.Contains(r.stderr, "damaged") || r.code != 0 {
				t.Errorf("the next build: exit code %d\n%s", r.code, r.stderr)
			}
		})
	}
}

// TestDamagedBlobs: blobs that are damaged cannot be made again offline, which is
// said; from the mirror they can.
func TestDamagedBlobs(t *testing.T) {
	rnd := seeded(t)
	m := newMirror(t)
	cache, out := newCache(t), newOutput(t)
	damageKind(t, cache, "blobs", rnd)
	r := build(t, cache, out, "--offline")
	wantError(t, r, 1, "damaged in the cache, got again: "+filepath.Join(cache, "blobs"), "package ", "not in the cache, and offline nothing is fetched; build once without --offline")
	wantGolden(t, out)
	wantClean(t, cache, out)
	r = build(t, cache, out, "--mirror", m.url)
	wantOK(t, r, cache, out)
}

// TestDamagedRelease: the InRelease that was kept is verified again.
func TestDamagedRelease(t *testing.T) {
	rnd := seeded(t)
	m := newMirror(t)
	cache, out := newCache(t), newOutput(t)
	damageKind(t, cache, "releases", rnd)
	r := build(t, cache, out, "--offline")
	wantError(t, r, 1, "suite trixie: InRelease: the copy in the cache, "+filepath.Join(cache, "releases"), "build once without --offline")
	wantGolden(t, out)
	wantOK(t, build(t, cache, out, "--mirror", m.url), cache, out)
}
