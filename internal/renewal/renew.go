package renewal

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/pki"
)

// Errors of Renew that are no failure of this node.
var (
	// ErrMissing says that the node does not have the certificate.
	ErrMissing = errors.New("the node does not have it")
	// ErrExternal says that the key of the CA is not on the node.
	ErrExternal = errors.New("the key of its CA is not on this node: who keeps the key issues it")
)

// held is a certificate where it is now.
type held struct {
	cert   *x509.Certificate
	config *clientcmdapi.Config // the kubeconfig that it is in, or nil
}

// read reads a certificate; fs.ErrNotExist means that it is not there. Its errors
// quote nothing of a kubeconfig, which holds a private key.
func (n Node) read(c Certificate) (held, error) {
	if c.file != "" {
		data, err := os.ReadFile(n.Paths.PKI(c.file + ".crt"))
		if err != nil {
			return held{}, err
		}
		cert, err := pki.ParseCertificate(data)
		if err != nil {
			return held{}, fmt.Errorf("%s: %w", n.Paths.PKI(c.file+".crt"), err)
		}
		return held{cert: cert}, nil
	}
	path := n.Paths.Kubeconfig(c.Name)
	data, err := os.ReadFile(path)
	if err != nil {
		return held{}, err
	}
	kc, err := clientcmd.Load(data)
	if err != nil {
		return held{}, fmt.Errorf("%s is not a kubeconfig", path)
	}
	cluster, user, err := current(kc)
	if err != nil {
		return held{}, fmt.Errorf("%s: %w", path, err)
	}
	if len(cluster.CertificateAuthorityData) == 0 || len(user.ClientCertificateData) == 0 {
		return held{}, fmt.Errorf("%s names files instead of holding its CA and client certificate: that is not renewed here", path)
	}
	cert, err := pki.ParseCertificate(user.ClientCertificateData)
	if err != nil {
		return held{}, fmt.Errorf("%s: client certificate: %w", path, err)
	}
	return held{cert: cert, config: kc}, nil
}

func current(kc *clientcmdapi.Config) (*clientcmdapi.Cluster, *clientcmdapi.AuthInfo, error) {
	context := kc.Contexts[kc.CurrentContext]
	if context == nil || kc.Clusters[context.Cluster] == nil || kc.AuthInfos[context.AuthInfo] == nil {
		return nil, nil, errors.New("its current context names no cluster and user")
	}
	return kc.Clusters[context.Cluster], kc.AuthInfos[context.AuthInfo], nil
}

// Renew puts a new certificate, with a new key, in the place of c. It can be
// repeated after a crash at any instant.
func (n Node) Renew(c Certificate, now time.Time) error {
	old, err := n.read(c)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrMissing
	}
	if err != nil {
		return err
	}
	external, err := n.external(c.ca)
	if err != nil {
		return err
	}
	if external {
		return ErrExternal
	}
	ca, err := n.loadCA(c.ca)
	if err != nil {
		return err
	}
	alg := n.Algorithm
	if alg == "" {
		if alg, err = pki.AlgorithmOf(old.cert); err != nil {
			return fmt.Errorf("%s: %w", c.Name, err)
		}
	}
	cert, key, err := ca.Issue(n.sameAs(old.cert), alg, now)
	if err != nil {
		return fmt.Errorf("%s: %w", c.Name, err)
	}
	if old.config == nil {
		return writePair(n.Paths.PKI(c.file), cert, key)
	}
	return writeKubeconfig(n.Paths.Kubeconfig(c.Name), old.config, ca, cert, key)
}

// sameAs describes a certificate like an existing one, but valid from now.
func (n Node) sameAs(old *x509.Certificate) pki.LeafSpec {
	spec := pki.LeafSpec{
		CN: old.Subject.CommonName, O: old.Subject.Organization,
		Usages: old.ExtKeyUsage, DNS: old.DNSNames, Validity: n.Validity,
	}
	for _, ip := range old.IPAddresses {
		if a, ok := netip.AddrFromSlice(ip); ok {
			spec.IPs = append(spec.IPs, a)
		}
	}
	return spec
}

// writePair replaces a key and its certificate. Both new files are on the disk
// before the first is renamed, so that the two change as good as at once: programs
// that read one in between find a pair that does not match, keep what they have and
// read again.
func writePair(base string, cert []byte, key secret.Value) error {
	dir, name := filepath.Split(base)
	staged := filepath.Join(dir, "."+name+".new")
	if err := atomicfile.WriteFile(staged+".key", key.Reveal(), 0o600); err != nil {
		return err
	}
	if err := atomicfile.WriteFile(staged+".crt", cert, 0o644); err != nil {
		return err
	}
	for _, ext := range []string{".key", ".crt"} {
		if err := os.Rename(staged+ext, base+ext); err != nil {
			return err
		}
	}
	return atomicfile.SyncDir(dir)
}

func writeKubeconfig(path string, kc *clientcmdapi.Config, ca *pki.CA, cert []byte, key secret.Value) error {
	cluster, user, err := current(kc)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	cluster.CertificateAuthorityData = pki.EncodeCertificate(ca.Cert)
	user.ClientCertificateData, user.ClientKeyData = cert, key.Reveal()
	out, err := clientcmd.Write(*kc)
	if err != nil {
		return fmt.Errorf("%s: the new kubeconfig cannot be encoded", path)
	}
	return atomicfile.WriteFile(path, out, 0o600)
}
