package nodecerts

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/pki"
)

// Requests says where certificate requests of a node go: those of certificates and
// their keys to PKI, kubeconfigs with keys and their requests to Kubeconfigs. Names are
// those of kubeadm certs generate-csr: apiserver.key and apiserver.csr, admin.conf and
// admin.conf.csr.
type Requests struct {
	PKI, Kubeconfigs string
	// Algorithm is that of new keys.
	Algorithm pki.Algorithm
	// Keep has a key that is there used again, and a request that is there replaced.
	// Without it both are errors, as in kubeadm.
	Keep bool
	// CA is embedded in the kubeconfigs; nil embeds none.
	CA []byte
	// Skip reports whether the node needs none of what the CA, by its File, signs; nil
	// skips nothing.
	Skip func(ca string) bool
}

// request is one to be made.
type request struct {
	key, csr string // files
	spec     pki.LeafSpec
	conf     *pki.KubeconfigPlan // nil for a certificate
}

// Write makes the keys and the requests. It returns the requests' files. If anything is
// there that must not be, nothing is written.
func (r Requests) Write(n Node) ([]string, error) {
	list, err := r.list(n)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, q := range list {
		for _, f := range []string{q.key, q.csr} {
			if _, err := os.Lstat(f); err == nil && !r.Keep {
				errs = append(errs, fmt.Errorf("%s exists already: nothing was written; remove it, or choose another folder", f))
			} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	var out []string
	for _, q := range list {
		if err := r.write(n, q); err != nil {
			return out, err
		}
		out = append(out, q.csr)
	}
	return out, nil
}

func (r Requests) list(n Node) ([]request, error) {
	skip := func(ca string) bool { return r.Skip != nil && r.Skip(ca) }
	in, err := n.SANInput()
	if err != nil {
		return nil, err
	}
	var out []request
	for _, row := range Certificates(n.Plan.Cluster) {
		if row.IsCA() || skip(row.Signer) {
			continue
		}
		spec, err := row.Leaf(in)
		if err != nil {
			return nil, err
		}
		base := filepath.Join(r.PKI, filepath.FromSlash(row.File))
		out = append(out, request{key: base + ".key", csr: base + ".csr", spec: spec})
	}
	for _, row := range Kubeconfigs(n.Plan.Role) {
		if skip("ca") {
			break
		}
		conf := filepath.Join(r.Kubeconfigs, row.File)
		out = append(out, request{key: conf, csr: conf + ".csr", spec: row.Leaf(n.Name), conf: &row})
	}
	return out, nil
}

// write writes the key before the request.
func (r Requests) write(n Node, q request) error {
	if err := os.MkdirAll(filepath.Dir(q.key), 0o700); err != nil {
		return err
	}
	key, err := r.key(n, q)
	if err != nil {
		return err
	}
	csr, err := pki.Request(q.spec, key)
	if err != nil {
		return fmt.Errorf("%s: %w", q.csr, err)
	}
	if have, err := os.ReadFile(q.csr); err == nil && pki.SameRequest(have, csr) {
		return nil // what somebody may be signing just now stays
	}
	return atomicfile.WriteFile(q.csr, csr, 0o600)
}

// key returns the key that is there, or a new one that it has written.
func (r Requests) key(n Node, q request) (secret.Value, error) {
	data, err := os.ReadFile(q.key)
	switch {
	case err == nil && q.conf == nil:
		return secret.New(data), nil
	case err == nil:
		_, auth, err := parts(data)
		if err != nil {
			return secret.Value{}, fmt.Errorf("%s: %w", q.key, err)
		}
		if len(bytes.TrimSpace(auth.ClientKeyData)) == 0 {
			return secret.Value{}, fmt.Errorf("%s: it holds no client-key-data; remove it, and one with a new key is made", q.key)
		}
		return secret.New(auth.ClientKeyData), nil
	case !errors.Is(err, fs.ErrNotExist):
		return secret.Value{}, err
	}
	key, err := pki.NewKey(r.Algorithm)
	if err != nil {
		return secret.Value{}, err
	}
	file := key
	if q.conf != nil {
		if file, err = r.kubeconfig(n, *q.conf, q.spec.CN, key); err != nil {
			return secret.Value{}, err
		}
	}
	return key, atomicfile.WriteFile(q.key, file.Reveal(), 0o600)
}

// kubeconfig is one that lacks its certificate.
func (r Requests) kubeconfig(n Node, row pki.KubeconfigPlan, user string, key secret.Value) (secret.Value, error) {
	name := n.Plan.Cluster.Name
	context := user + "@" + name
	cfg := clientcmdapi.NewConfig()
	cfg.Clusters[name] = &clientcmdapi.Cluster{Server: n.Server(row), CertificateAuthorityData: r.CA}
	cfg.AuthInfos[user] = &clientcmdapi.AuthInfo{ClientKeyData: key.Reveal()}
	cfg.Contexts[context] = &clientcmdapi.Context{Cluster: name, AuthInfo: user}
	cfg.CurrentContext = context
	out, err := clientcmd.Write(*cfg)
	if err != nil {
		return secret.Value{}, errors.New("the kubeconfig of " + user + " cannot be encoded")
	}
	return secret.New(out), nil
}
