package pki

import (
	"cmp"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/kiln-os/kiln/internal/secret"
)

// Authority is everything secret that the nodes of a cluster share, and the
// administrator's access to it.
type Authority struct {
	CA           *CA // signs the API server, kubelets and users
	FrontProxyCA *CA // signs the aggregation layer's client
	EtcdCA       *CA
	// ServiceAccountKey and ServiceAccountPub are sa.key and sa.pub.
	ServiceAccountKey secret.Value
	ServiceAccountPub []byte
	Token             Token
	// NodeTokens are the tokens of single nodes, by the node's name.
	NodeTokens map[string]Token
	// AdminConf is the kubeconfig of kubernetes-admin. It is empty if the CA's key is
	// kept elsewhere and there is no admin.crt with its key.
	AdminConf secret.Value
	// Provided are the certificates and kubeconfigs of nodes, by their names, that
	// somebody else has issued. LoadOrCreate leaves it to its caller.
	Provided map[string][]ProvidedFile
}

// ProvidedFile is a file of a node, by its path in a folder that looks like
// /etc/kubernetes: "pki/apiserver.crt", "admin.conf".
type ProvidedFile struct {
	Path    string
	Data    secret.Value
	Private bool // for root alone
}

// CAs are the authorities by their File in the certificate plan.
func (a *Authority) CAs() map[string]*CA {
	return map[string]*CA{"ca": a.CA, "front-proxy-ca": a.FrontProxyCA, "etcd/ca": a.EtcdCA}
}

// Created is the time the cluster's secrets were made; token lifetimes count from it.
func (a *Authority) Created() time.Time { return a.Token.Created }

// Pin is the CA pin that joining nodes check.
func (a *Authority) Pin() (string, error) { return CAPin(a.CA.CertPEM) }

// Options say what LoadOrCreate makes.
type Options struct {
	// Algorithm is used for all keys; "" is DefaultAlgorithm. For secrets that
	// exist it must be the one they have.
	Algorithm   Algorithm
	ClusterName string
	// Endpoint is the host:port that admin.conf names.
	Endpoint string
	// CAValidity and LeafValidity are the lives of certificates; 0 means the constants
	// of these names. CAs that exist must have the one that is given.
	CAValidity, LeafValidity time.Duration
	// TokenTTL is the life of the bootstrap token, from the cluster's creation; 0 means for ever.
	TokenTTL time.Duration
	// Now is the present. It is not a build's fixed date: certificates are judged by it.
	Now time.Time
}

// File names in the secrets folder.
const (
	saKeyFile     = "sa.key"
	saPubFile     = "sa.pub"
	tokenFile     = "bootstrap-token.yaml"
	adminFile     = "admin" // admin.crt, admin.key
	adminConfFile = "admin.conf"
)

// LoadOrCreate reads the secrets of a cluster from the folder dir and makes what
// is missing. It never replaces a CA, a service-account key or a token that
// exists, so it can be called before every build, and it completes a creation
// that was interrupted: every file is written atomically, a key before its
// certificate, and a key without a certificate gets one. A CA that exists without its
// key is one whose key is kept elsewhere, which signs nothing here. A folder or private
// file that others may read, another certificate without its key, a pair that does not
// match, an expired CA and keys of another algorithm are errors.
//
// The administrator's certificate is kept as admin.crt and admin.key and issued
// anew only after it expired; admin.conf is rendered from them on every call.
func LoadOrCreate(dir string, o Options) (_ *Authority, err error) {
	if o.Algorithm, err = ParseAlgorithm(string(o.Algorithm)); err != nil {
		return nil, err
	}
	switch {
	case o.ClusterName == "":
		return nil, errors.New("secrets: no cluster name given")
	case o.Endpoint == "":
		return nil, errors.New("secrets: no endpoint given for admin.conf")
	case o.Now.IsZero():
		return nil, errors.New("secrets: the present time is not given")
	case o.TokenTTL < 0:
		return nil, fmt.Errorf("secrets: token lifetime %s is negative", o.TokenTTL)
	}
	s, err := openStore(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()

	a := &Authority{}
	for _, c := range []struct {
		file string
		to   **CA
	}{{"ca", &a.CA}, {"front-proxy-ca", &a.FrontProxyCA}, {"etcd/ca", &a.EtcdCA}} {
		row, err := CertificateFor(c.file)
		if err != nil {
			return nil, err
		}
		if *c.to, err = s.loadOrCreateCA(row, o); err != nil {
			return nil, err
		}
	}
	if err := s.loadOrCreateServiceAccount(a, o); err != nil {
		return nil, err
	}
	if err := s.loadOrCreateToken(a, o); err != nil {
		return nil, err
	}
	if err := s.renderAdmin(a, o); err != nil {
		return nil, err
	}
	return a, nil
}

func (s *store) loadOrCreateCA(row Certificate, o Options) (*CA, error) {
	crt, key := row.File+".crt", row.File+".key"
	keyPEM, haveKey, err := s.readSecret(key)
	if err != nil {
		return nil, err
	}
	certPEM, haveCert, err := s.readPublic(crt)
	if err != nil {
		return nil, err
	}
	switch {
	case haveCert && !haveKey:
		return s.loadExternalCA(crt, certPEM, o)
	case haveKey:
		if err := s.checkAlgorithm(key, keyPEM, o.Algorithm); err != nil {
			return nil, err
		}
	default:
		if keyPEM, err = NewKey(o.Algorithm); err != nil {
			return nil, fmt.Errorf("CA %s: %w", row.File, err)
		}
		if err := s.write(key, keyPEM.Reveal()); err != nil {
			return nil, err
		}
	}
	if haveCert {
		ca, err := LoadCA(certPEM, keyPEM)
		if err != nil {
			return nil, fmt.Errorf("%s and %s: %w", s.path(crt), s.path(key), err)
		}
		if o.Now.After(ca.Cert.NotAfter) {
			return nil, fmt.Errorf("%s expired on %s: a CA is not renewed; for a new cluster choose another secrets folder", s.path(crt), ca.Cert.NotAfter.Format(time.DateOnly))
		}
		if have := ca.Cert.NotAfter.Sub(ca.Cert.NotBefore) - CABackdate; o.CAValidity != 0 && have != o.CAValidity {
			return nil, fmt.Errorf("%s was made for %s, but %s is asked for: a CA is kept as long as the cluster lives; ask for %s, or choose another secrets folder for a new cluster", s.path(crt), have, o.CAValidity, have)
		}
		return ca, nil
	}
	// The key of an interrupted creation is used, not replaced: its pin may be
	// written down somewhere already.
	ca, err := selfSign(row, keyPEM, cmp.Or(o.CAValidity, CAValidity), o.Now)
	if err != nil {
		return nil, err
	}
	return ca, s.write(crt, ca.CertPEM)
}

// loadExternalCA reads the certificate of a CA whose key is kept elsewhere.
func (s *store) loadExternalCA(crt string, certPEM []byte, o Options) (*CA, error) {
	ca, err := LoadCA(certPEM, secret.Value{})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.path(crt), err)
	}
	switch c := ca.Cert; {
	case o.Now.After(c.NotAfter):
		return nil, fmt.Errorf("%s expired on %s: want the certificate of a CA that is valid", s.path(crt), c.NotAfter.Format(time.DateOnly))
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return nil, fmt.Errorf("%s may not sign certificates: want the key usage certSign", s.path(crt))
	}
	return ca, nil
}

func (s *store) loadOrCreateServiceAccount(a *Authority, o Options) error {
	keyPEM, haveKey, err := s.readSecret(saKeyFile)
	if err != nil {
		return err
	}
	pub, havePub, err := s.readPublic(saPubFile)
	if err != nil {
		return err
	}
	switch {
	case havePub && !haveKey:
		return fmt.Errorf("%s exists but %s does not: put the key back; for a new cluster choose another secrets folder", s.path(saPubFile), s.path(saKeyFile))
	case haveKey:
		if err := s.checkAlgorithm(saKeyFile, keyPEM, o.Algorithm); err != nil {
			return err
		}
	default:
		if keyPEM, err = NewKey(o.Algorithm); err != nil {
			return fmt.Errorf("service-account key: %w", err)
		}
		if err := s.write(saKeyFile, keyPEM.Reveal()); err != nil {
			return err
		}
	}
	want, err := EncodePublicKey(keyPEM)
	if err != nil {
		return fmt.Errorf("%s: %w", s.path(saKeyFile), err)
	}
	if havePub {
		if err := checkPublicKey(pub, keyPEM); err != nil {
			return fmt.Errorf("%s and %s: %w", s.path(saPubFile), s.path(saKeyFile), err)
		}
	} else {
		if err := s.write(saPubFile, want); err != nil {
			return err
		}
		pub = want
	}
	a.ServiceAccountKey, a.ServiceAccountPub = keyPEM, pub
	return nil
}

func (s *store) renderAdmin(a *Authority, o Options) error {
	row := Kubeconfigs()[0]
	crt, key := adminFile+".crt", adminFile+".key"
	keyPEM, haveKey, err := s.readSecret(key)
	if err != nil {
		return err
	}
	certPEM, haveCert, err := s.readPublic(crt)
	if err != nil {
		return err
	}
	external := a.CA.KeyPEM.IsZero()
	switch {
	case external && !haveCert:
		return nil // nobody here can sign one
	case haveCert && !haveKey && external:
		return fmt.Errorf("%s exists but %s does not: put the key back, or remove %s", s.path(crt), s.path(key), s.path(crt))
	case haveCert && !haveKey:
		return fmt.Errorf("%s exists but %s does not: remove %s, and a new pair is made", s.path(crt), s.path(key), s.path(crt))
	}
	if !haveKey {
		if keyPEM, err = NewKey(o.Algorithm); err != nil {
			return fmt.Errorf("admin key: %w", err)
		}
		if err := s.write(key, keyPEM.Reveal()); err != nil {
			return err
		}
	}
	if haveCert {
		if err := CheckPair(certPEM, keyPEM); err != nil {
			return fmt.Errorf("%s and %s: %w: remove both, and a new pair is made", s.path(crt), s.path(key), err)
		}
		cert, err := ParseCertificate(certPEM)
		if err != nil {
			return fmt.Errorf("%s: %w", s.path(crt), err)
		}
		if err := cert.CheckSignatureFrom(a.CA.Cert); err != nil {
			return fmt.Errorf("%s was not issued by %s: remove %s and %s, and a new pair is made", s.path(crt), s.path("ca.crt"), s.path(crt), s.path(key))
		}
		haveCert = o.Now.Before(cert.NotAfter)
		if !haveCert && external {
			return nil // the one in admin.conf of the first control plane counts
		}
	}
	if !haveCert {
		spec := row.Leaf("")
		spec.Validity = o.LeafValidity
		if certPEM, err = a.CA.IssueFor(spec, keyPEM, o.Now); err != nil {
			return err
		}
		if err := s.write(crt, certPEM); err != nil {
			return err
		}
	}
	a.AdminConf, err = Kubeconfig{
		ClusterName: o.ClusterName, Server: "https://" + o.Endpoint,
		CACertPEM: a.CA.CertPEM, CertPEM: certPEM, KeyPEM: keyPEM,
	}.Render()
	if err != nil {
		return err
	}
	old, have, err := s.readSecret(adminConfFile)
	if err != nil {
		return err
	}
	if have && old.Equal(a.AdminConf) {
		return nil
	}
	return s.write(adminConfFile, a.AdminConf.Reveal())
}

// checkAlgorithm refuses to mix algorithms: keys are kept for the life of the
// cluster, so a changed setting could only be ignored.
func (s *store) checkAlgorithm(name string, keyPEM secret.Value, want Algorithm) error {
	key, err := ParseKey(keyPEM)
	if err != nil {
		return fmt.Errorf("%s: %w", s.path(name), err)
	}
	have, err := algorithmOf(key.Public())
	if err != nil {
		return fmt.Errorf("%s: %w", s.path(name), err)
	}
	if have != want {
		return fmt.Errorf("%s is of the kind %s, but %s is asked for: keys are kept as long as the cluster lives; ask for %s, or choose another secrets folder for a new cluster", s.path(name), have, want, have)
	}
	return nil
}

func checkPublicKey(pubPEM []byte, keyPEM secret.Value) error {
	block, _ := pem.Decode(pubPEM)
	if block == nil || block.Type != pemPublicKey {
		return errors.New("no PEM block of type PUBLIC KEY")
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return fmt.Errorf("PEM block PUBLIC KEY: %w", err)
	}
	key, err := ParseKey(keyPEM)
	if err != nil {
		return err
	}
	if !samePublicKey(key.Public(), pub) {
		return errors.New("the public key does not belong to the private key")
	}
	return nil
}
