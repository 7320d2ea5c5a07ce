package deb

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"

	"github.com/kiln-os/kiln/images/deb/debtest"
)

func TestReleaseIsVerified(t *testing.T) {
	d := debtest.New(t)
	d.Publish("trixie", "amd64", []string{"Valid-Until: " + debtest.Date.AddDate(0, 0, 7).Format(time.RFC1123)}, hello()...)
	good := d.File("dists/trixie/InRelease")
	now := debtest.Date.Add(time.Hour)
	for _, c := range []struct {
		name string
		file []byte
		keys []byte
		now  time.Time
		asOf string // Archive.AsOf
		want string // in the error, or "" for none
	}{
		{name: "good", file: good},
		{name: "a digest changed", file: bytes.Replace(good, []byte("main/binary-amd64"), []byte("main/binary-arm64"), 1), want: "signature"},
		{name: "a line added", file: bytes.Replace(good, []byte("SHA256:\n"), []byte("SHA256:\n "+strings.Repeat("0", 64)+" 1 x\n"), 1), want: "signature"},
		{name: "signature removed", file: good[:bytes.Index(good, []byte("-----BEGIN PGP SIGNATURE"))], want: "not a signed file"},
		{name: "text behind the signature", file: append(bytes.Clone(good), "SHA256:\n"...), want: "behind the signature"},
		{name: "text in front of the signed part", file: append([]byte("Codename: evil\n"), good...)},
		{name: "web page", file: []byte("<html>Please log in</html>"), want: "not a signed file"},
		{name: "empty", want: "not a signed file"},
		{name: "another archive's key", file: good, keys: debtest.New(t).Keyring, want: "archive keys"},
		{name: "Debian's keys", file: good, keys: keyring, want: "archive keys"},
		{name: "no keyring", file: good, keys: []byte("x"), want: "archive keyring"},
		{name: "expired", file: good, now: debtest.Date.AddDate(0, 0, 8), want: "valid until 2026-05-08"},
		{name: "expired, but valid on the day", file: good, now: debtest.Date.AddDate(0, 6, 0), asOf: "2026-05-07"},
		{name: "the day of its own date", file: good, now: debtest.Date.AddDate(0, 6, 0), asOf: "2026-05-01"},
		{name: "today", file: good, asOf: "2026-05-01"},
		{name: "not valid at the end of the day", file: good, now: debtest.Date.AddDate(0, 6, 0), asOf: "2026-05-08", want: "valid until 2026-05-08T12:00:00Z, which is before the end of 2026-05-08, the day as of which it is to be judged"},
		{name: "a day before its own date", file: good, now: debtest.Date.AddDate(0, 6, 0), asOf: "2026-04-30", want: "dated 2026-05-01T12:00:00Z, it is newer than 2026-04-30, the day as of which it is to be judged"},
		{name: "a day in the future", file: good, asOf: "2026-05-02", want: "as of 2026-05-02, which is in the future (it is 2026-05-01)"},
		{name: "a day does not help a wrong clock", file: good, now: debtest.Date.AddDate(0, 0, -1), asOf: "2026-04-29", want: "this machine's clock says"},
		{name: "nor another archive's key", file: good, keys: debtest.New(t).Keyring, asOf: "2026-05-01", want: "archive keys"},
		{name: "a clock before the signature", file: good, now: debtest.Date.AddDate(0, 0, -1), want: "is not valid at 2026-04-30T12:00:00Z, which is what this machine's clock says"},
		{name: "dated in the future", file: d.Sign("Codename: trixie\nDate: " + now.AddDate(0, 0, 1).Format(time.RFC1123) + "\nSHA256:\n " + strings.Repeat("0", 64) + " 1 x\n"), want: "in the future: this machine's clock is wrong"},
		{name: "signed without digests", file: d.Sign("Suite: stable\nCodename: trixie\nDate: " + debtest.Date.Format(time.RFC1123) + "\n"), want: "no SHA256 list"},
		{name: "signed without a date", file: d.Sign("Codename: trixie\nSHA256:\n " + strings.Repeat("0", 64) + " 1 x\n"), want: "no Date"},
		{name: "a bad date", file: d.Sign("Date: yesterday\n"), want: `Date: date "yesterday"`},
		{name: "a short digest", file: d.Sign("SHA256:\n 00 1 x\n"), want: "no SHA-256"},
	} {
		if c.keys == nil {
			c.keys = d.Keyring
		}
		if c.now.IsZero() {
			c.now = now
		}
		var asOf time.Time
		if c.asOf != "" {
			var err error
			if asOf, err = ParseDay(c.asOf); err != nil {
				t.Fatal(err)
			}
		}
		rel, err := verifyRelease(c.file, c.keys, c.now, asOf)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want == "" && (rel.Codename != "trixie" || !rel.Date.Equal(debtest.Date) || len(rel.files) != 1):
			t.Errorf("%s: read %+v", c.name, rel)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
	}
}

func TestParseDay(t *testing.T) {
	for s, want := range map[string]time.Time{"2026-11-01": time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), "2026-11-31": {}, "20261101": {}, "2026-11-01T00:00:00Z": {}, "yesterday": {}} {
		if got, err := ParseDay(s); !got.Equal(want) || (err != nil) != want.IsZero() || err != nil && !strings.Contains(err.Error(), "want one such as 2026-11-01") {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
}

func TestReleaseOfAnotherSuite(t *testing.T) {
	d := debtest.New(t)
	d.Publish("bookworm", "amd64", nil, hello()...)
	d.SetFile("dists/trixie/InRelease", d.File("dists/bookworm/InRelease"))
	if _, err := open(t, d).Release(ctx); err == nil || !strings.Contains(err.Error(), "suite trixie") || !strings.Contains(err.Error(), "bookworm") {
		t.Errorf("error %v", err)
	}
	a := open(t, d)
	a.Suite = "stable" // by its name instead of its codename
	d.SetFile("dists/stable/InRelease", d.File("dists/bookworm/InRelease"))
	if _, err := a.Release(ctx); err != nil {
		t.Error(err)
	}
}

// The built-in keys are those that sign Debian 12 and 13 (debian-archive-keyring's README).
func TestBuiltInKeyring(t *testing.T) {
	ring, err := openpgp.ReadKeyRing(bytes.NewReader(keyring))
	if err != nil {
		t.Fatal(err)
	}
	names := ""
	for _, e := range ring {
		for id := range e.Identities {
			names += id + "\n"
		}
	}
	for _, want := range []string{
		"Debian Archive Automatic Signing Key (12/bookworm)", "Debian Stable Release Key (12/bookworm)",
		"Debian Archive Automatic Signing Key (13/trixie)", "Debian Stable Release Key (13/trixie)",
	} {
		if !strings.Contains(names, want) {
			t.Errorf("no %s", want)
		}
	}
	for _, e := range ring {
		if e.PrivateKey != nil {
			t.Error("a private key")
		}
	}
}

func FuzzParseRelease(f *testing.F) {
	f.Add("Suite: stable\nCodename: trixie\nDate: Fri, 01 May 2026 12:00:00 UTC\nSHA256:\n " + strings.Repeat("a", 64) + " 12 main/binary-amd64/Packages.xz\n")
	f.Add("SHA256:\n 00 -1 x\n")
	f.Add("Date: x\nValid-Until: y\n")
	f.Fuzz(func(t *testing.T, text string) {
		rel, err := parseRelease(text, debtest.Date, time.Time{})
		if (rel == nil) == (err == nil) {
			t.Fatalf("%+v, %v", rel, err)
		}
		if err == nil {
			for name, sum := range rel.files {
				if sum.size < 0 || len(sum.sum) != 64 {
					t.Errorf("%q: %+v", name, sum)
				}
			}
		}
	})
}

func FuzzVerifyRelease(f *testing.F) {
	d := debtest.New(f)
	d.Publish("trixie", "amd64", nil, hello()...)
	good := d.File("dists/trixie/InRelease")
	f.Add(good)
	f.Add([]byte("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n-----BEGIN PGP SIGNATURE-----\n"))
	want, err := verifyRelease(good, d.Keyring, debtest.Date, time.Time{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		rel, err := verifyRelease(b, d.Keyring, debtest.Date, time.Time{})
		if err == nil && (len(rel.files) != len(want.files) || !rel.Date.Equal(want.Date)) {
			t.Errorf("verified, but not what was signed: %+v", rel)
		}
	})
}
