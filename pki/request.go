package pki

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/kiln-os/kiln/internal/secret"
)

const pemRequest = "CERTIFICATE REQUEST"

// Request makes a certificate request with the subject and the names of spec, as
// kubeadm certs generate-csr does: usages and life are for the CA to say.
func Request(spec LeafSpec, keyPEM secret.Value) ([]byte, error) {
	key, err := ParseKey(keyPEM)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:     pkix.Name{CommonName: spec.CN, Organization: spec.O},
		DNSNames:    sortedUnique(spec.DNS),
		IPAddresses: uniqueIPs(spec.IPs),
	}, key)
	if err != nil {
		return nil, fmt.Errorf("request of certificate %q: %w", spec.CN, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemRequest, Bytes: der}), nil
}

// ParseRequest reads a certificate request and checks its signature.
func ParseRequest(csrPEM []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(csrPEM)
	if block == nil || block.Type != pemRequest {
		return nil, errors.New("no PEM block of type " + pemRequest)
	}
	r, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("PEM block %s: %w", pemRequest, err)
	}
	return r, r.CheckSignature()
}

// SameRequest reports whether two requests ask for the same certificate: signatures
// differ each time.
func SameRequest(a, b []byte) bool {
	ra, err1 := ParseRequest(a)
	rb, err2 := ParseRequest(b)
	if err1 != nil || err2 != nil {
		return false
	}
	return bytes.Equal(ra.RawSubject, rb.RawSubject) && bytes.Equal(ra.RawSubjectPublicKeyInfo, rb.RawSubjectPublicKeyInfo) &&
		slices.Equal(ra.DNSNames, rb.DNSNames) && slices.EqualFunc(ra.IPAddresses, rb.IPAddresses, net.IP.Equal)
}
