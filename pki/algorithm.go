package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/kiln-os/kiln/internal/secret"
)

// Algorithm is a key algorithm by the name kubeadm's encryptionAlgorithm has for it.
type Algorithm string

// The algorithms kubeadm knows.
const (
	RSA2048   Algorithm = "RSA-2048"
	RSA3072   Algorithm = "RSA-3072"
	RSA4096   Algorithm = "RSA-4096"
	ECDSAP256 Algorithm = "ECDSA-P256"
	ECDSAP384 Algorithm = "ECDSA-P384"
)

// DefaultAlgorithm is kubeadm's default.
const DefaultAlgorithm = RSA2048

// Algorithms lists all algorithms, the default first.
func Algorithms() []Algorithm {
	return []Algorithm{RSA2048, RSA3072, RSA4096, ECDSAP256, ECDSAP384}
}

// ParseAlgorithm accepts the exact names of Algorithms; "" is the default.
func ParseAlgorithm(s string) (Algorithm, error) {
	if s == "" {
		return DefaultAlgorithm, nil
	}
	var names []string
	for _, a := range Algorithms() {
		if string(a) == s {
			return a, nil
		}
		names = append(names, string(a))
	}
	return "", fmt.Errorf("unknown key algorithm %q; want one of %s", s, strings.Join(names, ", "))
}

// generateKey makes a private key of algorithm a from crypto/rand.
func generateKey(a Algorithm) (crypto.Signer, error) {
	switch a {
	case RSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case RSA3072:
		return rsa.GenerateKey(rand.Reader, 3072)
	case RSA4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	case ECDSAP256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ECDSAP384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	}
	_, err := ParseAlgorithm(string(a))
	if err == nil {
		err = errors.New("no key algorithm given")
	}
	return nil, err
}

// algorithmOf names the algorithm of a public key.
func algorithmOf(pub crypto.PublicKey) (Algorithm, error) {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		return Algorithm(fmt.Sprintf("RSA-%d", k.N.BitLen())), nil
	case *ecdsa.PublicKey:
		return Algorithm("ECDSA-" + strings.ReplaceAll(k.Curve.Params().Name, "-", "")), nil
	}
	return "", fmt.Errorf("%T is neither an RSA nor an ECDSA key", pub)
}

// PEM block types as kubeadm writes them.
const (
	pemCertificate = "CERTIFICATE"
	pemRSAKey      = "RSA PRIVATE KEY" // PKCS #1, RFC 8017
	pemECKey       = "EC PRIVATE KEY"  // SEC 1, RFC 5915
	pemPKCS8Key    = "PRIVATE KEY"     // read, never written
	pemPublicKey   = "PUBLIC KEY"      // SubjectPublicKeyInfo, RFC 5280
)

// encodeKey renders a private key as PEM: PKCS #1 for RSA, SEC 1 for ECDSA.
func encodeKey(key crypto.Signer) (secret.Value, error) {
	var block pem.Block
	switch k := key.(type) {
	case *rsa.PrivateKey:
		block = pem.Block{Type: pemRSAKey, Bytes: x509.MarshalPKCS1PrivateKey(k)}
	case *ecdsa.PrivateKey:
		der, err := x509.MarshalECPrivateKey(k)
		if err != nil {
			return secret.Value{}, fmt.Errorf("encode ECDSA key: %w", err)
		}
		block = pem.Block{Type: pemECKey, Bytes: der}
	default:
		return secret.Value{}, fmt.Errorf("cannot encode a %T: neither an RSA nor an ECDSA key", key)
	}
	return secret.New(pem.EncodeToMemory(&block)), nil
}

// ParseKey reads a PEM private key: PKCS #1, SEC 1 or PKCS #8, RSA or ECDSA. Its
// errors never quote the input.
func ParseKey(keyPEM secret.Value) (crypto.Signer, error) {
	rest := keyPEM.Reveal()
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("no PEM block with a private key")
		}
		var key any
		var err error
		switch block.Type {
		case pemRSAKey:
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case pemECKey:
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case pemPKCS8Key:
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		default: // "EC PARAMETERS" stands before the key in files openssl wrote
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("PEM block %s does not hold a valid key", block.Type)
		}
		switch k := key.(type) {
		case *rsa.PrivateKey:
			return k, nil
		case *ecdsa.PrivateKey:
			return k, nil
		}
		return nil, fmt.Errorf("%T is neither an RSA nor an ECDSA key", key)
	}
}

// EncodePublicKey renders the public half of a PEM private key as PKIX PEM, the
// format of sa.pub.
func EncodePublicKey(keyPEM secret.Value) ([]byte, error) {
	key, err := ParseKey(keyPEM)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("encode public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemPublicKey, Bytes: der}), nil
}

// NewKey makes a private key and renders it as PEM.
func NewKey(a Algorithm) (secret.Value, error) {
	key, err := generateKey(a)
	if err != nil {
		return secret.Value{}, fmt.Errorf("generate %s key: %w", a, err)
	}
	return encodeKey(key)
}

// NewServiceAccountKey makes the pair that signs and verifies service-account
// tokens: sa.key and sa.pub.
func NewServiceAccountKey(a Algorithm) (key secret.Value, pub []byte, err error) {
	if key, err = NewKey(a); err != nil {
		return secret.Value{}, nil, err
	}
	pub, err = EncodePublicKey(key)
	return key, pub, err
}
