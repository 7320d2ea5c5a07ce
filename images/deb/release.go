package deb

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

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

// StaleError says that a mirror's copy of a suite is out of date, or not of one date. What
// is signed does not vouch for it, so it is not used.
type StaleError struct{ err error }

func (e *StaleError) Error() string { return e.err.Error() }
func (e *StaleError) Unwrap() error { return e.err }

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
	_, err = openpgp.CheckDetachedSignature(ring, bytes.NewReader(block.Bytes), block.ArmoredSignature.Body, cfg)
	if errors.Is(err, pgperrors.ErrSignatureExpired) || errors.Is(err, pgperrors.ErrKeyExpired) {
		return nil, fmt.Errorf("its signature is one of Debian's archive keys, but it or the key is not valid at %s, which is what this machine's clock says: the clock is wrong, or the suite is not maintained any more: %w",
			now.UTC().Format(time.RFC3339), err)
	}
	if err != nil {
		return nil, fmt.Errorf("the signature is not one of Debian's archive keys over this text: %w", err)
	}
	rel, err := parseRelease(string(block.Plaintext), now)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	rel.SHA256 = hex.EncodeToString(sum[:])
	return rel, nil
}

// clockSlack is how much a clock may be behind without harm.
const clockSlack = time.Hour

// parseRelease reads the fields of a Release file that are needed here.
func parseRelease(text string, now time.Time) (*Release, error) {
	rel := &Release{files: map[string]fileSum{}}
	var until time.Time
	var err error
	section := ""
	for _, l := range strings.Split(text, "\n") {
		l = strings.TrimRight(l, "\r")
		if strings.HasPrefix(l, " ") {
			f := strings.Fields(l)
			if section != "SHA256" {
				continue
			}
			if len(f) != 3 || len(f[0]) != 64 {
				return nil, fmt.Errorf("line %q is no SHA-256, size and name", l)
			}
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil || n < 0 {
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
			rel.Date, err = parseDate(v)
		case "Valid-Until":
			until, err = parseDate(v)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k, err)
		}
	}
	if rel.Date.IsZero() || len(rel.files) == 0 {
		return nil, errors.New("no Date or no SHA256 list in it")
	}
	if rel.Date.After(now.Add(clockSlack)) {
		return nil, fmt.Errorf("dated %s, which is in the future: this machine's clock is wrong (%s)", rel.Date.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	if !until.IsZero() && now.After(until) {
		return nil, &StaleError{fmt.Errorf("dated %s, it was valid until %s: the mirror is out of date, or this machine's clock is wrong (%s)",
			rel.Date.Format(time.RFC3339), until.Format(time.RFC3339), now.UTC().Format(time.RFC3339))}
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
