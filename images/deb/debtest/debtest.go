// Package debtest makes small Debian archives for tests: packages, indexes and an
// InRelease signed by a key of its own, served over HTTP.
package debtest

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Package is a binary package of a test archive.
type Package struct {
	Name, Version string
	// Fields are further lines of its stanza, such as "Depends: a, b".
	Fields []string
	Files  []tar.Header
	// Content of the regular files by name.
	Content map[string]string
	// Compression of data.tar: "" for none, or gz, xz, zst.
	Compression string
}

// File is a regular file for Package.Files.
func File(name string, mode int64) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}
}

// Archive is a test archive with one component, main. Its files may be replaced
// at any time.
type Archive struct {
	URL string
	// Keyring verifies its InRelease.
	Keyring []byte

	t        testing.TB
	signer   *openpgp.Entity
	mu       sync.Mutex
	files    map[string][]byte
	requests []string
	fail     map[string]int
}

// New serves an archive until the test ends.
func New(t testing.TB) *Archive {
	t.Helper()
	cfg := &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return Date.AddDate(-1, 0, 0) }}
	e, err := openpgp.NewEntity("Test archive", "", "archive@example.org", cfg)
	if err != nil {
		t.Fatal(err)
	}
	var ring bytes.Buffer
	if err := e.Serialize(&ring); err != nil {
		t.Fatal(err)
	}
	a := &Archive{t: t, signer: e, Keyring: ring.Bytes(), files: map[string][]byte{}, fail: map[string]int{}}
	s := httptest.NewServer(a)
	t.Cleanup(s.Close)
	a.URL = s.URL + "/debian"
	return a
}

// Date is when the archives of this package are published.
var Date = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// ServeHTTP implements http.Handler.
func (a *Archive) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/debian/")
	a.mu.Lock()
	a.requests = append(a.requests, name)
	b, ok := a.files[name]
	broken := a.fail[name] > 0
	if broken {
		a.fail[name]--
	}
	a.mu.Unlock()
	switch {
	case !ok:
		http.NotFound(w, r)
	case broken:
		// The transfer breaks in the middle.
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		_, _ = w.Write(b[:len(b)/2])
	default:
		_, _ = w.Write(b)
	}
}

// Requests returns the paths that were asked for since the last call, sorted.
func (a *Archive) Requests() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.requests
	a.requests = nil
	slices.Sort(r)
	return r
}

// Break lets the next n transfers of a file end in its middle.
func (a *Archive) Break(name string, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fail[name] = n
}

// File returns a served file, or nil.
func (a *Archive) File(name string) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.files[name]
}

// SetFile replaces a served file; nil removes it.
func (a *Archive) SetFile(name string, b []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if b == nil {
		delete(a.files, name)
		return
	}
	a.files[name] = b
}

// Publish puts a suite with these packages for one architecture into the archive.
// extra are further lines of its Release file, such as "Valid-Until: …".
func (a *Archive) Publish(suite, arch string, extra []string, packages ...Package) {
	a.t.Helper()
	var index strings.Builder
	for _, p := range packages {
		deb := a.Build(p)
		name := "pool/main/" + p.Name + "_" + p.Version + "_" + arch + ".deb"
		a.SetFile(name, deb)
		fmt.Fprintf(&index, "Package: %s\nVersion: %s\nArchitecture: %s\nFilename: %s\nSize: %d\nSHA256: %s\n", p.Name, p.Version, arch, name, len(deb), Sum(deb))
		for _, f := range p.Fields {
			index.WriteString(f + "\n")
		}
		index.WriteString("\n")
	}
	packed := a.compress("xz", []byte(index.String()))
	name := "main/binary-" + arch + "/Packages.xz"
	a.SetFile("dists/"+suite+"/"+path.Dir(name)+"/by-hash/SHA256/"+Sum(packed), packed)
	a.SetFile("dists/"+suite+"/"+name, packed)
	lines := []string{"Origin: Test", "Suite: stable", "Codename: " + suite, "Date: " + Date.Format(time.RFC1123)}
	lines = append(append(lines, extra...), "MD5Sum:", " d41d8cd98f00b204e9800998ecf8427e 0 main/none", "SHA256:", fmt.Sprintf(" %s %d %s", Sum(packed), len(packed), name))
	a.SetFile("dists/"+suite+"/InRelease", a.Sign(strings.Join(lines, "\n")+"\n"))
}

// Sign returns the text with the archive's signature, made at Date.
func (a *Archive) Sign(text string) []byte {
	a.t.Helper()
	var out bytes.Buffer
	w, err := clearsign.Encode(&out, a.signer.PrivateKey, &packet.Config{Time: func() time.Time { return Date }})
	if err != nil {
		a.t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		a.t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		a.t.Fatal(err)
	}
	return out.Bytes()
}

// Sum is the SHA-256 of b in hexadecimal.
func Sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// Build returns the .deb of a package (deb(5)).
func (a *Archive) Build(p Package) []byte {
	a.t.Helper()
	var data bytes.Buffer
	tw := tar.NewWriter(&data)
	for _, h := range p.Files {
		content := p.Content[h.Name]
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(content))
		}
		h.ModTime = Date
		if err := tw.WriteHeader(&h); err != nil {
			a.t.Fatal(err)
		}
		if _, err := tw.Write([]byte(content)[:h.Size]); err != nil {
			a.t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		a.t.Fatal(err)
	}
	suffix := ""
	if p.Compression != "" {
		suffix = "." + p.Compression
	}
	var out bytes.Buffer
	out.WriteString("!<arch>\n")
	member := func(name string, b []byte) {
		fmt.Fprintf(&out, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", name, Date.Unix(), 0, 0, "100644", len(b))
		out.Write(b)
		if len(b)%2 == 1 {
			out.WriteByte('\n')
		}
	}
	member("debian-binary", []byte("2.0\n"))
	// An odd length, so that readers meet the padding.
	member("control.tar.xz", []byte("not read!"))
	member("data.tar"+suffix, a.compress(p.Compression, data.Bytes()))
	return out.Bytes()
}

func (a *Archive) compress(how string, b []byte) []byte {
	a.t.Helper()
	var out bytes.Buffer
	write := func(w interface {
		Write([]byte) (int, error)
		Close() error
	}, err error) []byte {
		if err == nil {
			_, err = w.Write(b)
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			a.t.Fatal(err)
		}
		return out.Bytes()
	}
	switch how {
	case "":
		return b
	case "gz":
		return write(gzip.NewWriter(&out), nil)
	case "xz":
		return write(xz.NewWriter(&out))
	case "zst":
		return write(zstd.NewWriter(&out))
	}
	a.t.Fatalf("no compression %q", how)
	return nil
}
