package deb

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/xi2/xz"

	"github.com/kiln-os/kiln/internal/cache"
)

// keyring holds the archive keys of the package debian-archive-keyring.
//
//go:embed debian-archive-keyring.gpg
var keyring []byte

// Archive is where packages come from.
type Archive struct {
	Mirror     string // base URL, see FindMirror
	Suite      string // such as trixie
	Components []string
	Cache      *cache.Cache
	// Keyring replaces the built-in archive keys; a binary OpenPGP keyring.
	Keyring []byte
	// Now judges signatures and Valid-Until.
	Now time.Time
}

// Release is a verified InRelease file.
type Release struct {
	Suite, Codename string
	Date            time.Time
	SHA256          string // of the file itself
	files           map[string]fileSum
}

type fileSum struct {
	sum  string
	size int64
}

const maxInRelease = 4 << 20

// Release fetches and verifies the suite's InRelease.
func (a *Archive) Release(ctx context.Context) (*Release, error) {
	r, err := get(ctx, a.Mirror, "dists/"+a.Suite+"/InRelease")
	if err != nil {
		return nil, fmt.Errorf("suite %s: %w", a.Suite, err)
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxInRelease))
	if err != nil {
		return nil, fmt.Errorf("suite %s: InRelease: %w", a.Suite, err)
	}
	keys := a.Keyring
	if keys == nil {
		keys = keyring
	}
	rel, err := verifyRelease(b, keys, a.Now)
	if err != nil {
		return nil, fmt.Errorf("suite %s: InRelease: %w", a.Suite, err)
	}
	if rel.Suite != a.Suite && rel.Codename != a.Suite {
		return nil, fmt.Errorf("suite %s: the mirror serves the InRelease of %s (%s)", a.Suite, rel.Codename, rel.Suite)
	}
	return rel, nil
}

// verifyRelease checks the signature of an InRelease file and reads what is signed.
func verifyRelease(b, keys []byte, now time.Time) (*Release, error) {
	ring, err := openpgp.ReadKeyRing(bytes.NewReader(keys))
	if err != nil {
		return nil, fmt.Errorf("archive keyring: %w", err)
	}
	block, rest := clearsign.Decode(b)
	if block == nil {
		return nil, errors.New("not a signed file; a proxy or a login page may have answered instead of the mirror")
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("text behind the signature")
	}
	cfg := &packet.Config{Time: func() time.Time { return now }}
	if _, err := openpgp.CheckDetachedSignature(ring, bytes.NewReader(block.Bytes), block.ArmoredSignature.Body, cfg); err != nil {
		return nil, fmt.Errorf("the signature is not one of Debian's archive keys over this text: %w", err)
	}
	sum := sha256.Sum256(b)
	rel := &Release{SHA256: hex.EncodeToString(sum[:]), files: map[string]fileSum{}}
	var until time.Time
	section := ""
	for _, l := range strings.Split(string(block.Plaintext), "\n") {
		l = strings.TrimRight(l, "\r")
		if strings.HasPrefix(l, " ") {
			f := strings.Fields(l)
			if section != "SHA256" || len(f) != 3 {
				continue
			}
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil || n < 0 || len(f[0]) != 64 {
				return nil, fmt.Errorf("line %q is no SHA-256, size and name", l)
			}
			rel.files[f[2]] = fileSum{f[0], n}
			continue
		}
		k, v, _ := strings.Cut(l, ":")
		section, v = k, strings.TrimSpace(v)
		switch k {
		case "Suite":
			rel.Suite = v
		case "Codename":
			rel.Codename = v
		case "Date":
			if rel.Date, err = parseDate(v); err != nil {
				return nil, err
			}
		case "Valid-Until":
			if until, err = parseDate(v); err != nil {
				return nil, err
			}
		}
	}
	if rel.Date.IsZero() || len(rel.files) == 0 {
		return nil, errors.New("no Date or no SHA256 list in it")
	}
	if !until.IsZero() && now.After(until) {
		return nil, fmt.Errorf("it was valid until %s: the mirror is out of date, or this machine's clock is wrong (%s)", until.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return rel, nil
}

func parseDate(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC1123, s)
	if err != nil {
		return t, fmt.Errorf("date %q: %w", s, err)
	}
	return t.UTC(), nil
}

// Packages fetches, verifies and reads the indexes of one architecture.
func (a *Archive) Packages(ctx context.Context, rel *Release, arch string) (*Index, error) {
	ix := &Index{byName: map[string][]*Package{}, providers: map[string][]*Package{}}
	for _, c := range a.Components {
		name := c + "/binary-" + arch + "/Packages.xz"
		want, ok := rel.files[name]
		if !ok {
			return nil, fmt.Errorf("suite %s has no %s: is %s one of its architectures and %s one of its components?", a.Suite, name, arch, c)
		}
		path, err := a.Cache.Fetch(ctx, want.sum, want.size, func(ctx context.Context) (io.ReadCloser, error) {
			dir := name[:strings.LastIndex(name, "/")]
			r, err := get(ctx, a.Mirror, "dists/"+a.Suite+"/"+dir+"/by-hash/SHA256/"+want.sum)
			if errors.As(err, new(*NotFoundError)) {
				r, err = get(ctx, a.Mirror, "dists/"+a.Suite+"/"+name)
			}
			return r, err
		})
		if err != nil {
			return nil, fmt.Errorf("suite %s of %s, architecture %s: the mirror's %s is not the one that its signed InRelease names: %w", a.Suite, rel.Date.Format(time.RFC3339), arch, name, err)
		}
		if err := ix.readFile(path); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return ix, nil
}

func (ix *Index) readFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := xz.NewReader(bufio.NewReaderSize(f, 1<<20), 0)
	if err != nil {
		return err
	}
	return ix.read(z)
}
