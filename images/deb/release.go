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
type StaleError struct {
	err error
	// ValidUntil is when the copy was valid for the last time, if that is what is wrong.
	ValidUntil time.Time
}

func (e *StaleError) Error() string { return e.err.Error() }
func (e *StaleError) Unwrap() error { return e.err }

// verifyRelease checks the signature of an InRelease file and reads what is signed. A
// date that is set is the day as of which it must be valid, see Archive.AsOf.
func verifyRelease(b, keys []byte, now, date time.Time) (*Release, error) {
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
	rel, err := parseRelease(string(block.Plaintext), now, date)
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
func parseRelease(text string, now, date time.Time) (*Release, error) {
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
	if !date.IsZero() {
		if err := checkAsOf(rel.Date, until, date, now); err != nil {
			return nil, err
		}
		return rel, nil
	}
	if !until.IsZero() && now.After(until) {
		return nil, &StaleError{fmt.Errorf("dated %s, it was valid until %s: the mirror is out of date, or this machine's clock is wrong (%s)",
			rel.Date.Format(time.RFC3339), until.Format(time.RFC3339), now.UTC().Format(time.RFC3339)), until}
	}
	return rel, nil
}

// checkAsOf judges a Release file as of a day, which is over then.
func checkAsOf(made, until, day, now time.Time) error {
	end := day.AddDate(0, 0, 1).Add(-time.Second)
	switch name := day.Format(time.DateOnly); {
	case day.After(now):
		return fmt.Errorf("it is to be judged as of %s, which is in the future (it is %s): want today or a day before", name, now.UTC().Format(time.DateOnly))
	case made.After(end):
		return fmt.Errorf("dated %s, it is newer than %s, the day as of which it is to be judged: this mirror has not stood still since; want a later day, or a mirror with the archive of that one",
			made.Format(time.RFC3339), name)
	case !until.IsZero() && end.After(until):
		return &StaleError{fmt.Errorf("dated %s, it was valid until %s, which is before the end of %s, the day as of which it is to be judged",
			made.Format(time.RFC3339), until.Format(time.RFC3339), name), until}
	}
	return nil
}

// ParseDay reads a day, such as 2026-11-01, for Archive.AsOf.
func ParseDay(s string) (time.Time, error) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is no day; want one such as 2026-11-01", s)
	}
	return t, nil
}

func parseDate(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC1123, s)
	if err != nil {
		return t, fmt.Errorf("date %q: %w", s, err)
	}
	return t.UTC(), nil
}
