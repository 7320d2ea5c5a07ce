package pki

import (
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"time"

	"github.com/kiln-os/kiln/internal/secret"
)

const tokenAlphabet = "0123456789abcdefghijklmnopqrstuvwxyz"

var tokenPattern = regexp.MustCompile(`^([a-z0-9]{6})\.([a-z0-9]{16})$`)

// Token is a bootstrap token, <id>.<secret>. The ID is public: it names the
// Secret bootstrap-token-<id>.
type Token struct {
	ID      string
	Secret  secret.Value
	Created time.Time
	// Expires is absolute and counts from the creation of the cluster; the zero time means never.
	Expires time.Time
}

// NewToken makes a token, uniformly distributed over a-z0-9. A ttl of 0 means it never expires.
func NewToken(now time.Time, ttl time.Duration) (Token, error) {
	id, err := randomString(6)
	if err != nil {
		return Token{}, err
	}
	sec, err := randomString(16)
	if err != nil {
		return Token{}, err
	}
	return Token{ID: id, Secret: secret.FromString(sec)}.withLife(now, ttl), nil
}

// ParseToken reads <id>.<secret>. Its error never quotes the input.
func ParseToken(v secret.Value) (Token, error) {
	m := tokenPattern.FindStringSubmatch(v.RevealString())
	if m == nil {
		return Token{}, errors.New("bootstrap token: want 6 characters, a dot and 16 characters, all of a-z and 0-9")
	}
	return Token{ID: m[1], Secret: secret.FromString(m[2])}, nil
}

// Value is the whole token, <id>.<secret>.
func (t Token) Value() secret.Value { return secret.FromString(t.ID + "." + t.Secret.RevealString()) }

func (t Token) withLife(created time.Time, ttl time.Duration) Token {
	t.Created = created.UTC().Truncate(time.Second)
	t.Expires = time.Time{}
	if ttl > 0 {
		t.Expires = t.Created.Add(ttl)
	}
	return t
}

func randomString(n int) (string, error) {
	out := make([]byte, n)
	for i := range out {
		// rand.Int is uniform below its bound: no character is likelier than another.
		k, err := rand.Int(rand.Reader, big.NewInt(int64(len(tokenAlphabet))))
		if err != nil {
			return "", fmt.Errorf("bootstrap token: %w", err)
		}
		out[i] = tokenAlphabet[k.Int64()]
	}
	return string(out), nil
}
