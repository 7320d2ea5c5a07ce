// Package certstest is an external CA for tests: it keeps keys that Kiln never sees,
// and signs certificate requests.
package certstest

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/pki"
)

// WriteCAs makes the CAs of a cluster in the folder dir: ca, front-proxy-ca and etcd/ca,
// with their keys.
func WriteCAs(dir string, now time.Time) error {
	for _, row := range pki.Certificates() {
		if !row.IsCA() {
			continue
		}
		ca, err := pki.NewCA(row, pki.ECDSAP256, now)
		if err != nil {
			return err
		}
		base := filepath.Join(dir, row.File)
		if err := os.MkdirAll(filepath.Dir(base), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(base+".key", ca.KeyPEM.Reveal(), 0o600); err != nil {
			return err
		}
		if err := os.WriteFile(base+".crt", ca.CertPEM, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Sign signs every request below a node's folder with the CAs in cas, for a day: it
// writes NAME.crt beside NAME.csr.
func Sign(cas, node string, now time.Time) error {
	return filepath.WalkDir(node, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".csr") {
			return err
		}
		rel, err := filepath.Rel(node, path)
		if err != nil {
			return err
		}
		signer, usages := "ca", []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		if name, ok := strings.CutPrefix(filepath.ToSlash(rel), "pki/"); ok {
			row, err := pki.CertificateFor(strings.TrimSuffix(name, ".csr"))
			if err != nil {
				return err
			}
			signer, usages = row.Signer, row.Usages
		}
		crt, err := sign(filepath.Join(cas, signer), path, usages, now)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return os.WriteFile(strings.TrimSuffix(path, ".csr")+".crt", crt, 0o644)
	})
}

func sign(ca, csr string, usages []x509.ExtKeyUsage, now time.Time) ([]byte, error) {
	data, err := os.ReadFile(csr)
	if err != nil {
		return nil, err
	}
	req, err := pki.ParseRequest(data)
	if err != nil {
		return nil, err
	}
	caPEM, err := os.ReadFile(ca + ".crt")
	if err != nil {
		return nil, err
	}
	issuer, err := pki.ParseCertificate(caPEM)
	if err != nil {
		return nil, err
	}
	keyPEM, err := os.ReadFile(ca + ".key")
	if err != nil {
		return nil, err
	}
	key, err := pki.ParseKey(secret.New(keyPEM))
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: req.Subject, DNSNames: req.DNSNames, IPAddresses: req.IPAddresses,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, ExtKeyUsage: usages, BasicConstraintsValid: true,
	}, issuer, req.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}
