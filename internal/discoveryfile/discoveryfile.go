// Package discoveryfile reads the kubeconfig with which a joining node finds its
// cluster, kubeadm's discovery.file: imagegen, which bakes it in, and firstboot, which
// uses it, take the same ones. No error quotes anything of it but its server.
package discoveryfile

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"slices"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/pki"
)

// File is a kubeconfig that holds everything itself.
type File struct {
	Config *clientcmdapi.Config
	// Cluster is the one that is meant.
	Cluster *clientcmdapi.Cluster
	// Credentials reports whether it holds some.
	Credentials bool
}

// Parse reads one. A kubeconfig that refers to other files, or to programs, is refused:
// the node has neither.
func Parse(v secret.Value) (*File, error) {
	kc, err := clientcmd.Load(v.Reveal())
	if err != nil {
		return nil, errors.New("it is not a kubeconfig")
	}
	for _, c := range kc.Clusters {
		switch {
		case c == nil:
			return nil, errors.New("it has an empty cluster")
		case c.CertificateAuthority != "":
			return nil, errors.New("its CA is in a file; want certificate-authority-data")
		case c.InsecureSkipTLSVerify:
			return nil, errors.New("it does not verify the server (insecure-skip-tls-verify)")
		}
	}
	out := &File{Config: kc}
	if current := kc.Contexts[kc.CurrentContext]; current != nil && kc.AuthInfos[current.AuthInfo] != nil {
		switch a := kc.AuthInfos[current.AuthInfo]; {
		case a.ClientCertificate != "" || a.ClientKey != "" || a.TokenFile != "":
			return nil, errors.New("its credentials are in files; want client-certificate-data and client-key-data, or a token")
		case a.Exec != nil || a.AuthProvider != nil:
			return nil, errors.New("its credentials come from a program, which the node does not have")
		default:
			out.Credentials = a.Token != "" || len(a.ClientCertificateData) > 0
		}
	}
	out.Cluster, err = OnlyCluster(kc)
	return out, err
}

// OnlyCluster returns the cluster of the current context, or the one without a
// name, as kubeadm does.
func OnlyCluster(kc *clientcmdapi.Config) (*clientcmdapi.Cluster, error) {
	cluster := kc.Clusters[""]
	if c := kc.Contexts[kc.CurrentContext]; c != nil {
		cluster = kc.Clusters[c.Cluster]
	}
	if cluster == nil {
		return nil, errors.New("it has neither a current context with a cluster nor a cluster without a name")
	}
	if u, err := url.Parse(cluster.Server); err != nil || u.Scheme != "https" || u.Hostname() == "" {
		return nil, fmt.Errorf("its server %q is not https://host:port", cluster.Server)
	}
	return cluster, nil
}

// Read reads and checks the file that is to be baked into images: one cluster, whose
// CA it holds; credentials, if any, that are good for joining and for nothing more.
func Read(path string, now time.Time) (secret.Value, error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return secret.Value{}, fmt.Errorf("%s: there is no such file", path)
	}
	if err != nil {
		return secret.Value{}, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return secret.Value{}, err
	}
	v := secret.New(data)
	f, err := Parse(v)
	if err == nil {
		err = f.check(now)
	}
	if err == nil && f.Credentials && st.Mode().Perm()&0o077 != 0 {
		err = fmt.Errorf("it holds credentials but has mode %04o: others may read it; run: chmod 600 %s", st.Mode().Perm(), path)
	}
	if err != nil {
		return secret.Value{}, fmt.Errorf("%s: %w", path, err)
	}
	return v, nil
}

// check judges what imagegen is to bake in.
func (f *File) check(now time.Time) error {
	if n := len(f.Config.Clusters); n != 1 {
		return fmt.Errorf("it has %d clusters; want the one to join alone", n)
	}
	if len(f.Cluster.CertificateAuthorityData) == 0 {
		return errors.New("it holds no CA certificate; want certificate-authority-data")
	}
	cas, err := f.CAs()
	if err != nil {
		return fmt.Errorf("its CA: %w", err)
	}
	for _, c := range cas {
		switch {
		case !c.IsCA:
			return fmt.Errorf("its certificate %q is not a CA's", c.Subject)
		case now.After(c.NotAfter):
			return fmt.Errorf("its CA %q expired on %s", c.Subject, c.NotAfter.UTC().Format(time.DateOnly))
		}
	}
	if !f.Credentials {
		return nil
	}
	a := f.Config.AuthInfos[f.Config.Contexts[f.Config.CurrentContext].AuthInfo]
	if len(a.ClientCertificateData) == 0 {
		return nil // a token says nothing of itself
	}
	if err := pki.CheckPair(a.ClientCertificateData, secret.New(a.ClientKeyData)); err != nil {
		return fmt.Errorf("its client certificate: %w", err)
	}
	cert, err := pki.ParseCertificate(a.ClientCertificateData)
	if err != nil {
		return fmt.Errorf("its client certificate: %w", err)
	}
	if now.After(cert.NotAfter) {
		return fmt.Errorf("its client certificate expired on %s", cert.NotAfter.UTC().Format(time.DateOnly))
	}
	for _, admin := range []string{"system:masters", "kubeadm:cluster-admins"} {
		if slices.Contains(cert.Subject.Organization, admin) {
			return fmt.Errorf("its credentials are an administrator's (%s), and would be in the image of every node that joins; remove its users: nodes join with the bootstrap token", admin)
		}
	}
	return nil
}

// CAs are the certificates of its CA.
func (f *File) CAs() ([]*x509.Certificate, error) {
	return Certificates(f.Cluster.CertificateAuthorityData)
}

// Certificates reads all certificates of a PEM text.
func Certificates(text []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for rest := bytes.TrimSpace(text); len(rest) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("a certificate in it cannot be read: %w", err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errors.New("it holds no certificate")
	}
	return out, nil
}
