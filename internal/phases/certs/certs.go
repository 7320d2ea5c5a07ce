// Package certs is the phase that issues the node's certificates.
//
// INPUTS: the three CAs with their keys, sa.key and sa.pub in
// /etc/kubernetes/pki, delivered with the node's configuration; the node's name
// and advertise address; the cluster's endpoint, DNS domain, service subnet, further
// names and the life of certificates.
//
// OUTPUTS: in /etc/kubernetes/pki every other certificate of the certificate plan
// (.crt 0644, .key 0600).
//
// A certificate that exists is kept if it chains to its CA now, has its key, its
// subject and usages, and all names this node needs; otherwise it is issued anew. kubeadm would keep a
// certificate with missing names and leave the API server unreachable under them.
//
// A CA whose key is not there is an external one: then what it signs must be provided,
// and fit. With an external etcd there are none of etcd's certificates.
package certs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/nodecerts"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/pki"
)

// Run issues what is missing or does not fit.
func Run(ctx context.Context, cfg nodeconfig.Config, paths host.Paths, r phase.Report) error {
	node := nodecerts.Node{Plan: cfg.Plan, Name: cfg.NodeName, Address: cfg.AdvertiseAddress}
	in, err := node.SANInput()
	if err != nil {
		return phase.Permanent(err)
	}
	alg, err := pki.ParseAlgorithm(cfg.Plan.Cluster.EncryptionAlgorithm)
	if err != nil {
		return phase.Permanent(err)
	}
	if err := checkServiceAccount(paths); err != nil {
		return phase.Permanent(err)
	}
	now := time.Now()
	cas := map[string]*pki.CA{}
	var missing []string
	var issues []func() error
	for _, row := range nodecerts.Certificates(cfg.Plan.Cluster) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if row.IsCA() {
			ca, err := loadCA(paths, row.File)
			if err != nil {
				return phase.Permanent(err)
			}
			if now.After(ca.Cert.NotAfter) {
				r.Warn("CA %s expired on %s", row.File, ca.Cert.NotAfter.Format(time.DateOnly))
			}
			if ca.KeyPEM.IsZero() {
				r.Step("the key of CA %s is kept elsewhere", row.File)
			}
			cas[row.File] = ca
			continue
		}
		spec, err := row.Leaf(in)
		if err != nil {
			return phase.Permanent(err)
		}
		spec.Validity = cfg.Plan.Cluster.CertificateValidity()
		why := unfit(paths, row.File, spec, cas[row.Signer], now)
		if why == nil {
			continue
		}
		if cas[row.Signer].KeyPEM.IsZero() {
			missing = append(missing, fmt.Sprintf("%s.crt and .key: %s; %s is not here to sign them with", paths.PKI(row.File), reason(why), paths.PKI(row.Signer+".key")))
			continue
		}
		if !errors.Is(why, fs.ErrNotExist) {
			r.Warn("%s.crt does not fit this node: %v", row.File, why)
		}
		ca := cas[row.Signer]
		issues = append(issues, func() error {
			r.Step("issuing %s", row.File)
			return issue(paths, row.File, spec, ca, alg, now)
		})
	}
	if err := phase.Parallel(ctx, issues); err != nil {
		return err
	}
	if len(missing) > 0 {
		return phase.Permanent(fmt.Errorf("certificates of external CAs must come with the node's configuration; %d do not fit:\n\t%s", len(missing), strings.Join(missing, "\n\t")))
	}
	return nil
}

func reason(err error) string {
	if errors.Is(err, fs.ErrNotExist) {
		return "missing"
	}
	return err.Error()
}

func loadCA(paths host.Paths, file string) (*pki.CA, error) {
	cert, err := os.ReadFile(paths.PKI(file + ".crt"))
	if err != nil {
		return nil, fmt.Errorf("CA %s: %w; it comes with the node's configuration", file, err)
	}
	key, err := os.ReadFile(paths.PKI(file + ".key"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("key of CA %s: %w", file, err)
	}
	ca, err := pki.LoadCA(cert, secret.New(key))
	if err != nil {
		return nil, fmt.Errorf("CA %s: %w", paths.PKI(file), err)
	}
	return ca, nil
}

// checkServiceAccount makes sure of the pair that signs service-account tokens:
// the API server would only say so in a log that nobody can read yet.
func checkServiceAccount(paths host.Paths) error {
	key, err := os.ReadFile(paths.PKI("sa.key"))
	if err != nil {
		return fmt.Errorf("service-account key: %w; it comes with the node's configuration", err)
	}
	pub, err := os.ReadFile(paths.PKI("sa.pub"))
	if err != nil {
		return fmt.Errorf("service-account public key: %w; it comes with the node's configuration", err)
	}
	want, err := pki.EncodePublicKey(secret.New(key))
	if err != nil {
		return fmt.Errorf("%s: %w", paths.PKI("sa.key"), err)
	}
	if string(want) != string(pub) {
		return fmt.Errorf("%s is not the public half of %s", paths.PKI("sa.pub"), paths.PKI("sa.key"))
	}
	return nil
}

// unfit says why an existing certificate cannot be kept; nil means it can. A file
// that does not exist is fs.ErrNotExist.
func unfit(paths host.Paths, file string, spec pki.LeafSpec, ca *pki.CA, now time.Time) error {
	certPEM, err := os.ReadFile(paths.PKI(file + ".crt"))
	if err != nil {
		return err
	}
	key, err := os.ReadFile(paths.PKI(file + ".key"))
	if err != nil {
		return err
	}
	return nodecerts.CheckLeaf(certPEM, secret.New(key), spec, ca, now)
}

// issue writes the key before the certificate: a certificate that exists has its key.
func issue(paths host.Paths, file string, spec pki.LeafSpec, ca *pki.CA, alg pki.Algorithm, now time.Time) error {
	cert, key, err := ca.Issue(spec, alg, now)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if err := os.MkdirAll(filepath.Dir(paths.PKI(file)), 0o755); err != nil {
		return err
	}
	if err := atomicfile.WriteFile(paths.PKI(file+".key"), key.Reveal(), 0o600); err != nil {
		return err
	}
	return atomicfile.WriteFile(paths.PKI(file+".crt"), cert, 0o644)
}
