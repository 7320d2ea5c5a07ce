// Package secret holds the one type in which key material and tokens travel
// through Kiln. A Value can be used, but not printed: every formatting verb,
// the JSON and YAML encoders and slog show [redacted]. The bytes leave it only
// through Reveal, which is easy to search for.
package secret

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
)

const redacted = "[redacted]"

// Value is a secret. The zero Value is empty.
//
// fmt cannot call the methods of a Value in an unexported field, and prints what
// it finds there. It follows one pointer (for a verb that does not fit), never
// two: behind two it shows an address.
type Value struct{ p **[]byte }

func (v Value) bytes() []byte {
	if v.p == nil {
		return nil
	}
	return **v.p
}

// New copies b into a Value.
func New(b []byte) Value {
	c := append([]byte(nil), b...)
	p := &c
	return Value{p: &p}
}

// FromString makes a Value of s.
func FromString(s string) Value { return New([]byte(s)) }

// Reveal returns a copy of the secret bytes. Callers write them into a file of
// mode 0600 or hand them to a protocol; they never format them.
func (v Value) Reveal() []byte { return append([]byte(nil), v.bytes()...) }

// RevealString returns the secret as a string.
func (v Value) RevealString() string { return string(v.bytes()) }

// IsZero reports whether the Value holds no bytes.
func (v Value) IsZero() bool { return len(v.bytes()) == 0 }

// Equal compares two secrets in constant time.
func (v Value) Equal(o Value) bool { return subtle.ConstantTimeCompare(v.bytes(), o.bytes()) == 1 }

// String implements fmt.Stringer and never shows the secret.
func (v Value) String() string { return redacted }

// GoString implements fmt.GoStringer and never shows the secret.
func (v Value) GoString() string { return redacted }

// Format implements fmt.Formatter, so that no verb (%x, %d, %q) reaches the bytes.
func (v Value) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// LogValue implements slog.LogValuer.
func (v Value) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText refuses: a secret is written to a file by name, with Reveal, never
// as a by-product of encoding a struct. JSON and YAML encoders fail on it.
func (v Value) MarshalText() ([]byte, error) {
	return nil, errors.New("secret: a secret.Value cannot be encoded; write it with Reveal")
}

// UnmarshalText lets decoders fill a Value from a document.
func (v *Value) UnmarshalText(b []byte) error { *v = New(b); return nil }
