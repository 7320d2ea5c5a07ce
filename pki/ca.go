package pki

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math"
	"math/big"
	"net"
	"net/netip"
	"sort"
	"time"

	"github.com/kiln-os/kiln/internal/secret"
)

const (
	// CAValidity is the lifetime of a CA: kubeadm's 87600h.
	CAValidity = 87600 * time.Hour
	// LeafValidity is the lifetime of every other certificate: kubeadm's 8760h.
	LeafValidity = 8760 * time.Hour
	// LeafBackdate lets a certificate be used on a machine whose clock is a little behind.
	LeafBackdate = 5 * time.Minute
	// CABackdate is a whole day, not kubeadm's five minutes: a CA that is made on
	// a workstation is first used on boards without a battery-backed clock.
	CABackdate = 24 * time.Hour
)

// CA is a certificate authority.
type CA struct {
	Cert    *x509.Certificate
	CertPEM []byte
	// KeyPEM is empty for a CA whose key is kept elsewhere; such a CA cannot issue.
	KeyPEM secret.Value

	key crypto.Signer
}

// NewCA makes a CA for a CA row of the certificate plan, valid from a day before now.
func NewCA(row Certificate, alg Algorithm, now time.Time) (*CA, error) {
	keyPEM, err := NewKey(alg)
	if err != nil {
		return nil, fmt.Errorf("CA %s: %w", row.File, err)
	}
	return selfSign(row, keyPEM, CAValidity, now)
}

// selfSign makes the certificate of a CA around a key that exists already.
func selfSign(row Certificate, keyPEM secret.Value, validity time.Duration, now time.Time) (*CA, error) {
	if !row.IsCA() {
		return nil, fmt.Errorf("certificate %s is signed by %s: it is no CA", row.File, row.Signer)
	}
	key, err := ParseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("CA %s: %w", row.File, err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now = now.UTC().Truncate(time.Second)
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: row.CN, Organization: row.O},
		DNSNames:              []string{row.CN},
		NotBefore:             now.Add(-CABackdate),
		NotAfter:              now.Add(validity),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("CA %s: %w", row.File, err)
	}
	return LoadCA(encodeCert(der), keyPEM)
}

// LoadCA reads a CA and checks that it is one and that the key is its own.
// Without a key (the zero Value) the CA can verify but not issue.
func LoadCA(certPEM []byte, keyPEM secret.Value) (*CA, error) {
	cert, err := ParseCertificate(certPEM)
	if err != nil {
		return nil, err
	}
	if !cert.IsCA {
		return nil, fmt.Errorf("certificate %q is not a CA", cert.Subject)
	}
	ca := &CA{Cert: cert, CertPEM: bytes.Clone(certPEM), KeyPEM: keyPEM}
	if keyPEM.IsZero() {
		return ca, nil
	}
	if ca.key, err = ParseKey(keyPEM); err != nil {
		return nil, fmt.Errorf("key of CA %q: %w", cert.Subject, err)
	}
	if !samePublicKey(ca.key.Public(), cert.PublicKey) {
		return nil, fmt.Errorf("the key is not the key of CA %q", cert.Subject)
	}
	return ca, nil
}

// Algorithm names the CA's key algorithm.
func (ca *CA) Algorithm() (Algorithm, error) { return algorithmOf(ca.Cert.PublicKey) }

// LeafSpec describes a certificate to issue.
type LeafSpec struct {
	CN     string
	O      []string
	Usages []x509.ExtKeyUsage
	DNS    []string
	IPs    []netip.Addr
	// SinceCA makes the certificate valid from the moment its CA is, instead of
	// five minutes ago: kubeadm's rule for certificates in kubeconfigs.
	SinceCA bool
	// Validity is the certificate's life from now on; 0 means LeafValidity.
	Validity time.Duration
}

// Issue makes a key and a certificate for spec.
func (ca *CA) Issue(spec LeafSpec, alg Algorithm, now time.Time) (certPEM []byte, keyPEM secret.Value, err error) {
	if keyPEM, err = NewKey(alg); err != nil {
		return nil, secret.Value{}, fmt.Errorf("certificate %q: %w", spec.CN, err)
	}
	if certPEM, err = ca.IssueFor(spec, keyPEM, now); err != nil {
		return nil, secret.Value{}, err
	}
	return certPEM, keyPEM, nil
}

// IssueFor makes a certificate for a key that exists already.
func (ca *CA) IssueFor(spec LeafSpec, keyPEM secret.Value, now time.Time) (certPEM []byte, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("issue certificate %q: %w", spec.CN, err)
		}
	}()
	if ca.key == nil {
		return nil, fmt.Errorf("the key of CA %q is not here", ca.Cert.Subject)
	}
	if spec.CN == "" || len(spec.Usages) == 0 {
		return nil, errors.New("a certificate needs a common name and an extended key usage")
	}
	key, err := ParseKey(keyPEM)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now = now.UTC().Truncate(time.Second)
	notBefore := now.Add(-LeafBackdate)
	if spec.SinceCA || notBefore.Before(ca.Cert.NotBefore) {
		notBefore = ca.Cert.NotBefore
	}
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: spec.CN, Organization: spec.O},
		DNSNames:              sortedUnique(spec.DNS),
		IPAddresses:           uniqueIPs(spec.IPs),
		NotBefore:             notBefore,
		NotAfter:              now.Add(cmp.Or(spec.Validity, LeafValidity)),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:           spec.Usages,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.Cert, key.Public(), ca.key)
	if err != nil {
		return nil, err
	}
	return encodeCert(der), nil
}

// ParseCertificate returns the first certificate of a PEM file.
func ParseCertificate(certPEM []byte) (*x509.Certificate, error) {
	for rest := certPEM; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("no PEM block of type CERTIFICATE")
		}
		if block.Type != pemCertificate {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("PEM block CERTIFICATE: %w", err)
		}
		return cert, nil
	}
}

// CAPin is the pin kubeadm calls discovery-token-ca-cert-hash: "sha256:" and the
// hex digest of the SubjectPublicKeyInfo of the first certificate in certPEM.
func CAPin(certPEM []byte) (string, error) {
	cert, err := ParseCertificate(certPEM)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}

// CAPins are the pins of all certificates in certPEM, in their order.
func CAPins(certPEM []byte) ([]string, error) {
	var out []string
	for rest := certPEM; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != pemCertificate {
			continue
		}
		pin, err := CAPin(pem.EncodeToMemory(block))
		if err != nil {
			return nil, err
		}
		out = append(out, pin)
	}
	if len(out) == 0 {
		return nil, errors.New("no PEM block of type CERTIFICATE")
	}
	return out, nil
}

// CheckChain verifies that the first certificate of certPEM was issued by the
// first certificate of caPEM and that both are valid at now.
func CheckChain(certPEM, caPEM []byte, now time.Time) error {
	cert, err := ParseCertificate(certPEM)
	if err != nil {
		return err
	}
	ca, err := ParseCertificate(caPEM)
	if err != nil {
		return fmt.Errorf("CA: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	_, err = cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return fmt.Errorf("certificate %q does not chain to CA %q: %w", cert.Subject, ca.Subject, err)
	}
	return nil
}

// CheckPair verifies that the key belongs to the first certificate of certPEM.
func CheckPair(certPEM []byte, keyPEM secret.Value) error {
	cert, err := ParseCertificate(certPEM)
	if err != nil {
		return err
	}
	key, err := ParseKey(keyPEM)
	if err != nil {
		return err
	}
	if !samePublicKey(key.Public(), cert.PublicKey) {
		return fmt.Errorf("the key is not the key of certificate %q", cert.Subject)
	}
	return nil
}

// newSerial returns a random positive number of at most 63 bits: RFC 5280,
// section 4.1.2.2, wants serials positive.
func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, big.NewInt(math.MaxInt64-1))
	if err != nil {
		return nil, fmt.Errorf("serial number: %w", err)
	}
	return n.Add(n, big.NewInt(1)), nil
}

// EncodeCertificate renders a certificate as PEM.
func EncodeCertificate(cert *x509.Certificate) []byte { return encodeCert(cert.Raw) }

// AlgorithmOf names the algorithm of a certificate's key.
func AlgorithmOf(cert *x509.Certificate) (Algorithm, error) { return algorithmOf(cert.PublicKey) }

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der})
}

func samePublicKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

func sortedUnique(in []string) []string {
	seen := map[string]bool{}
	var out []string
	for _, s := range in {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	sort.Strings(out)
	return out
}

func uniqueIPs(in []netip.Addr) []net.IP {
	seen := map[netip.Addr]bool{}
	var out []net.IP
	for _, a := range in {
		if a = a.Unmap(); !seen[a] {
			seen[a] = true
			out = append(out, net.IP(a.AsSlice()))
		}
	}
	return out
}
