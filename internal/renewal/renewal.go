// Package renewal knows the certificates of a control-plane node: when they expire,
// and how to put new ones in their place. Names, rules and output are those of
// kubeadm certs (cmd/kubeadm/app/phases/certs/renewal).
//
// A renewed certificate has the subject, names and usages of the one that it
// replaces, and a new key. The CAs are never renewed, and kubelet.conf is the
// kubelet's to renew.
package renewal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/pki"
)

// Node is the node whose certificates are looked at.
type Node struct {
	Paths host.Paths
	// Algorithm is that of new keys; "" keeps the one of the old certificate.
	Algorithm pki.Algorithm
	// Validity is the life of new certificates; 0 means kubeadm's default.
	Validity time.Duration
	// ExternalEtcd says that the node has no certificates of etcd.
	ExternalEtcd bool
}

// Certificate is a certificate that can be renewed.
type Certificate struct {
	// Name is what kubeadm calls it: "etcd-server", "admin.conf".
	Name string
	// LongName says what it is for.
	LongName string
	// file is its path below the certificates' folder, or "" for a kubeconfig, whose
	// path is Name. ca is the path of its CA.
	file, ca string
}

// CA is what kubeadm calls the CA that signs the certificate.
func (c Certificate) CA() string { return kubeadmName(c.ca) }

// etcdCA is the path of etcd's own CA.
const etcdCA = "etcd/ca"

// longNames are kubeadm's, by the path below the certificates' folder.
var longNames = map[string]string{
	"apiserver":                "certificate for serving the Kubernetes API",
	"apiserver-etcd-client":    "certificate the apiserver uses to access etcd",
	"apiserver-kubelet-client": "certificate for the API server to connect to kubelet",
	"etcd/healthcheck-client":  "certificate for liveness probes to healthcheck etcd",
	"etcd/peer":                "certificate for etcd nodes to communicate with each other",
	"etcd/server":              "certificate for serving etcd",
	"front-proxy-client":       "certificate for the front proxy client",
}

// kubeconfigs are those that kubeadm renews.
var kubeconfigs = []Certificate{
	{Name: "admin.conf", LongName: "certificate embedded in the kubeconfig file for the admin to use and for kubeadm itself", ca: "ca"},
	{Name: "controller-manager.conf", LongName: "certificate embedded in the kubeconfig file for the controller manager to use", ca: "ca"},
	{Name: "scheduler.conf", LongName: "certificate embedded in the kubeconfig file for the scheduler manager to use", ca: "ca"},
	{Name: "super-admin.conf", LongName: "certificate embedded in the kubeconfig file for the super-admin", ca: "ca"},
}

// kubeadmName turns a path below the certificates' folder into kubeadm's name.
func kubeadmName(file string) string { return strings.ReplaceAll(file, "/", "-") }

// Certificates lists what can be renewed, by name.
func (n Node) Certificates() []Certificate {
	out := slices.Clone(kubeconfigs)
	for _, row := range pki.Certificates() {
		if row.IsCA() || n.ExternalEtcd && row.Signer == etcdCA {
			continue
		}
		out = append(out, Certificate{Name: kubeadmName(row.File), LongName: longNames[row.File], file: row.File, ca: row.Signer})
	}
	slices.SortFunc(out, func(a, b Certificate) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// authorities lists the paths of the CAs, by name.
func (n Node) authorities() []string {
	var out []string
	for _, row := range pki.Certificates() {
		if row.IsCA() && (!n.ExternalEtcd || row.File != etcdCA) {
			out = append(out, row.File)
		}
	}
	slices.SortFunc(out, func(a, b string) int { return strings.Compare(kubeadmName(a), kubeadmName(b)) })
	return out
}

// Find returns the certificate with that name.
func (n Node) Find(name string) (Certificate, error) {
	var names []string
	for _, c := range n.Certificates() {
		if c.Name == name {
			return c, nil
		}
		names = append(names, c.Name)
	}
	if name == "kubelet.conf" {
		return Certificate{}, errors.New("kubelet.conf is not renewed here: the kubelet renews its certificate itself")
	}
	for _, ca := range n.authorities() {
		if kubeadmName(ca) == name {
			return Certificate{}, fmt.Errorf("%s is a CA, and CAs are not renewed: all that they have signed would have to be replaced at once", name)
		}
	}
	return Certificate{}, fmt.Errorf("unknown certificate %q; there are %s", name, strings.Join(names, ", "))
}

// external reports whether the CA's key is kept elsewhere: its certificate is here
// and its key is not.
func (n Node) external(ca string) (bool, error) {
	if _, err := os.Stat(n.Paths.PKI(ca + ".crt")); err != nil {
		return false, fmt.Errorf("CA %s: %w", kubeadmName(ca), err)
	}
	_, err := os.Stat(n.Paths.PKI(ca + ".key"))
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return false, err
}

func (n Node) loadCA(ca string) (*pki.CA, error) {
	cert, err := os.ReadFile(n.Paths.PKI(ca + ".crt"))
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(n.Paths.PKI(ca + ".key"))
	if err != nil {
		return nil, err
	}
	out, err := pki.LoadCA(cert, secret.New(key))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.Paths.PKI(ca), err)
	}
	return out, nil
}
