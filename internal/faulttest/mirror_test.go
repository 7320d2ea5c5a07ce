//go:build faults

package faulttest

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/kiln-os/kiln/images/deb"
)

// mirror serves on loopback what the warm cache has of Debian's archive: the real
// InRelease with its real signature, index and packages. Tests make it lie.
type mirror struct {
	url  string
	lock *deb.Lock

	mu      sync.Mutex
	change  map[string]func([]byte) []byte // by path; nil instead of bytes is 404
	cut     map[string]bool                // by path: the transfer stops in the middle
	asked   []string                       // paths
	release []byte
	blobs   map[string]string // file by path
}

func newMirror(t *testing.T) *mirror {
	t.Helper()
	lock, err := deb.ReadLock(filepath.Join(golden, "kiln.lock.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	m := &mirror{lock: lock, change: map[string]func([]byte) []byte{}, cut: map[string]bool{}, blobs: map[string]string{}}
	kept, err := filepath.Glob(filepath.Join(warm, "releases", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range kept {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if sum(b) == lock.InRelease {
			m.release = b
		}
	}
	if m.release == nil {
		t.Fatalf("the cache has no InRelease %s", lock.InRelease)
	}
	for _, p := range lock.Packages {
		m.blobs[p.Filename] = p.SHA256
	}
	s := httptest.NewServer(m)
	t.Cleanup(s.Close)
	m.url = s.URL + "/debian"
	return m
}

func (m *mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name := strings.TrimPrefix(r.URL.Path, "/debian/")
	m.asked = append(m.asked, name)
	var b []byte
	switch blob := m.blobs[name]; {
	case name == "dists/trixie/InRelease":
		b = m.release
	case strings.Contains(name, "/by-hash/SHA256/"):
		b, _ = os.ReadFile(filepath.Join(warm, "blobs", filepath.Base(name)))
	case blob != "":
		b, _ = os.ReadFile(filepath.Join(warm, "blobs", blob))
	}
	for part, f := range m.change {
		if strings.Contains(name, part) {
			b = f(bytes.Clone(b))
		}
	}
	if b == nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(b)))
	for part := range m.cut {
		if strings.Contains(name, part) {
			b = b[:len(b)/2]
		}
	}
	_, _ = w.Write(b)
}

// set changes what is served below paths that hold part; nothing resets it.
func (m *mirror) set(part string, change func([]byte) []byte, cut bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.change)
	clear(m.cut)
	if change != nil {
		m.change[part] = change
	}
	if cut {
		m.cut[part] = true
	}
}

// TestMirror: the mirror fails in one way after the other. Each time the build says
// what is wrong and leaves the outputs; once the mirror is well, it succeeds.
func TestMirror(t *testing.T) {
	m := newMirror(t)
	p := m.lock.Packages[len(m.lock.Packages)/2]
	for _, q := range m.lock.Packages {
		if q.Size < p.Size {
			p = q
		}
	}
	gone := func([]byte) []byte { return nil }
	flip := func(b []byte) []byte { b[len(b)/2] ^= 4; return b }
	login := func([]byte) []byte { return []byte("<html>Please log in</html>") }
	for _, c := range []struct {
		name, part string
		change     func([]byte) []byte
		cut        bool
		lose       string // what the cache does not have
		want       []string
	}{
		{"bad signature", "InRelease", flip, false, "", []string{"suite trixie: InRelease:", "signature"}},
		{"login page", "InRelease", login, false, "", []string{"suite trixie: InRelease: not a signed file; a proxy or a login page"}},
		{"InRelease cut off", "InRelease", nil, true, "", []string{"suite trixie: InRelease:", "unexpected EOF"}},
		{"another day's index", "by-hash", flip, false, "resolutions", []string{"Packages.xz is not the one that its signed InRelease names", "trixie"}},
		{"index cut off", "by-hash", nil, true, "resolutions", []string{"suite trixie of ", "unexpected EOF"}},
		{"package with other bytes", p.Filename, flip, false, "blobs/" + p.SHA256, []string{"package " + p.Name + " " + p.Version, "expected " + fmt.Sprint(p.Size) + " bytes with " + p.SHA256}},
		{"package cut off", p.Filename, nil, true, "blobs/" + p.SHA256, []string{"package " + p.Name + " " + p.Version, "unexpected EOF"}},
		{"package gone", p.Filename, gone, false, "blobs/" + p.SHA256, []string{"package " + p.Name + " " + p.Version + " is not on the mirror any more", "resolve anew"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cache, out := newCache(t), newOutput(t)
			if c.lose != "" {
				if err := os.RemoveAll(filepath.Join(cache, c.lose)); err != nil {
					t.Fatal(err)
				}
			}
			if c.lose == "resolutions" {
				// The index itself is what is asked for.
				removeIndex(t, cache)
			}
			m.set(c.part, c.change, c.cut)
			r := build(t, cache, out, "--mirror", m.url)
			wantError(t, r, 1, c.want...)
			wantGolden(t, out)
			wantClean(t, cache, out)
			m.set("", nil, false)
			wantOK(t, build(t, cache, out, "--mirror", m.url), cache, out)
		})
	}
}

// TestLockedAndOfflineAskNobody: --locked takes the packages of the lock file, and
// asks the mirror only for those that the cache does not have; --offline asks for
// nothing. Without a lock file, or with another's, --locked resolves nothing.
func TestLockedAndOfflineAskNobody(t *testing.T) {
	m := newMirror(t)
	cache, out := newCache(t, "releases", "resolutions"), newOutput(t)
	asked := func(want ...string) {
		t.Helper()
		m.mu.Lock()
		defer m.mu.Unlock()
		if !slices.Equal(m.asked, want) {
			t.Errorf("the mirror was asked for %q, want %q", m.asked, want)
		}
		m.asked = nil
	}
	wantOK(t, build(t, cache, out, "--locked", "--mirror", m.url), cache, out)
	asked()
	p := m.lock.Packages[0]
	if err := os.Remove(filepath.Join(cache, "blobs", p.SHA256)); err != nil {
		t.Fatal(err)
	}
	r := build(t, cache, out, "--locked", "--offline", "--mirror", m.url)
	wantError(t, r, 1, "package "+p.Name+" "+p.Version+": it is not in the cache, and offline nothing is fetched")
	asked()
	wantOK(t, build(t, cache, out, "--locked", "--mirror", m.url), cache, out)
	asked(p.Filename)
	wantError(t, build(t, cache, out, "--offline", "--mirror", m.url), 1, "none of this mirror was fetched yet")
	asked()
	lock := filepath.Join(out, "kiln.lock.yaml")
	b, err := os.ReadFile(lock)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		strings.Replace(string(b), "request: ", "request: 0", 1): "lock file " + lock + " is of another list of packages",
		string(b[:len(b)/2]): lock,
	} {
		if err := os.WriteFile(lock, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		wantError(t, build(t, cache, out, "--locked", "--mirror", m.url), 1, want)
		asked()
		if kept, err := os.ReadFile(lock); err != nil || string(kept) != text {
			t.Errorf("the lock file was changed: %v", err)
		}
	}
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	wantError(t, build(t, cache, out, "--locked", "--mirror", m.url), 1, "there is no lock file "+lock+" to build from; build once without --locked")
	asked()
}
