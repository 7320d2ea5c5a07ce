// Package nodecerts knows which certificates and kubeconfigs a control plane has by its
// boot plan, and what each must be. firstboot checks with it what it finds, and imagegen
// what somebody else has issued for a node; both make certificate requests for it.
package nodecerts

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/pki"
)

// etcdCA is the File of etcd's CA in the certificate plan.
const etcdCA = "etcd/ca"

// Node is a control plane.
type Node struct {
	Plan bootplan.Plan
	Name string
	// Address is where its API server and its etcd are reached.
	Address netip.Addr
}

// Certificates are the rows of the certificate plan that the nodes of a cluster have:
// with an external etcd there are none of etcd's.
func Certificates(c bootplan.Cluster) []pki.Certificate {
	return slices.DeleteFunc(pki.Certificates(), func(row pki.Certificate) bool {
		return c.ExternalEtcd() != nil && (row.File == etcdCA || row.Signer == etcdCA)
	})
}

// Kubeconfigs are the kubeconfigs of a control plane. One that joins has fewer: its
// kubelet asks the cluster for a certificate.
func Kubeconfigs(r bootplan.Role) []pki.KubeconfigPlan {
	return slices.DeleteFunc(pki.Kubeconfigs(), func(row pki.KubeconfigPlan) bool { return row.InitOnly && r.Joins() })
}

// SANInput is what the names in the node's certificates are made of.
func (n Node) SANInput() (pki.SANInput, error) {
	service, err := n.Plan.Cluster.ServiceIP(1)
	if err != nil {
		return pki.SANInput{}, fmt.Errorf("certificates: address of the API service: %w", err)
	}
	etcd := n.Plan.Cluster.LocalEtcd()
	in := pki.SANInput{
		NodeName: n.Name, AdvertiseAddress: n.Address, APIServiceIP: service,
		DNSDomain: n.Plan.Cluster.DNSDomain, CertSANs: n.Plan.Cluster.CertSANs,
		EtcdServerSANs: etcd.ServerCertSANs, EtcdPeerSANs: etcd.PeerCertSANs,
	}
	if e := n.Plan.Cluster.ControlPlaneEndpoint; e != "" {
		if in.ControlPlaneHost, _, err = bootplan.SplitEndpoint(e); err != nil {
			return pki.SANInput{}, fmt.Errorf("certificates: control-plane endpoint: %w", err)
		}
	}
	return in, nil
}

// Server is the URL of the API server that a kubeconfig of the node names.
func (n Node) Server(row pki.KubeconfigPlan) string {
	if row.Local {
		return "https://" + n.Plan.LocalAPIEndpoint(n.Address)
	}
	return "https://" + n.Plan.SharedAPIEndpoint(n.Address)
}

// CheckLeaf says why a certificate is not what spec says; nil means that it is: it has
// its key, chains to the CA now, and has the subject, the usages and all names.
func CheckLeaf(certPEM []byte, key secret.Value, spec pki.LeafSpec, ca *pki.CA, now time.Time) error {
	if err := pki.CheckPair(certPEM, key); err != nil {
		return err
	}
	if err := pki.CheckChain(certPEM, ca.CertPEM, now); err != nil {
		return err
	}
	cert, err := pki.ParseCertificate(certPEM)
	if err != nil {
		return err
	}
	if cert.Subject.CommonName != spec.CN {
		return fmt.Errorf("common name %q, want %q", cert.Subject.CommonName, spec.CN)
	}
	for _, o := range spec.O {
		if !slices.Contains(cert.Subject.Organization, o) {
			return fmt.Errorf("organizations %q, want %q", cert.Subject.Organization, spec.O)
		}
	}
	for _, u := range spec.Usages {
		if !allows(cert, u) {
			return fmt.Errorf("no extended key usage %s", usageName(u))
		}
	}
	have := map[string]bool{}
	for _, d := range cert.DNSNames {
		have[strings.ToLower(d)] = true
	}
	for _, ip := range cert.IPAddresses {
		if a, ok := netip.AddrFromSlice(ip); ok {
			have[a.Unmap().String()] = true
		}
	}
	var missing []string
	for _, d := range spec.DNS {
		if !have[strings.ToLower(d)] {
			missing = append(missing, d)
		}
	}
	for _, a := range spec.IPs {
		if !have[a.Unmap().String()] {
			missing = append(missing, a.Unmap().String())
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return fmt.Errorf("no subject alternative name %s", strings.Join(slices.Compact(missing), ", "))
	}
	return nil
}

// allows reports whether a certificate may be used so: without the extension it may be
// used for everything.
func allows(c *x509.Certificate, u x509.ExtKeyUsage) bool {
	none := len(c.ExtKeyUsage) == 0 && len(c.UnknownExtKeyUsage) == 0
	return none || slices.Contains(c.ExtKeyUsage, u) || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny)
}

func usageName(u x509.ExtKeyUsage) string {
	if u == x509.ExtKeyUsageServerAuth {
		return "serverAuth"
	}
	return "clientAuth"
}

// errNotKubeconfig quotes nothing: a kubeconfig holds a private key.
var errNotKubeconfig = errors.New("it is not a kubeconfig")

// parts are the cluster and the user of a kubeconfig's current context.
func parts(data []byte) (*clientcmdapi.Cluster, *clientcmdapi.AuthInfo, error) {
	conf, err := clientcmd.Load(data)
	if err != nil {
		return nil, nil, errNotKubeconfig
	}
	context := conf.Contexts[conf.CurrentContext]
	if context == nil || conf.Clusters[context.Cluster] == nil || conf.AuthInfos[context.AuthInfo] == nil {
		return nil, nil, errors.New("its current context names no cluster and user")
	}
	return conf.Clusters[context.Cluster], conf.AuthInfos[context.AuthInfo], nil
}

// CheckKubeconfig says why a kubeconfig cannot be used by the user of spec; nil means
// that it can. server is the one that it must name, "" for any. A certificate that is
// held by reference is the kubelet's, which renews it.
func CheckKubeconfig(data []byte, server string, spec pki.LeafSpec, ca *pki.CA, now time.Time) error {
	cluster, auth, err := parts(data)
	if err != nil {
		return err
	}
	if server != "" && cluster.Server != server {
		return fmt.Errorf("server %s, want %s", cluster.Server, server)
	}
	got, err := pki.ParseCertificate(cluster.CertificateAuthorityData)
	if err != nil {
		return fmt.Errorf("its CA: %w", err)
	}
	if !bytes.Equal(got.Raw, ca.Cert.Raw) {
		return errors.New("it trusts another CA")
	}
	if auth.ClientCertificate != "" {
		return nil
	}
	if err := CheckLeaf(auth.ClientCertificateData, secret.New(auth.ClientKeyData), spec, ca, now); err != nil {
		return fmt.Errorf("its client certificate: %w", err)
	}
	return nil
}

// wanted says what a certificate would have to be.
func wanted(spec pki.LeafSpec, ca *pki.CA) string {
	subject := "CN=" + spec.CN
	for _, o := range spec.O {
		subject += ", O=" + o
	}
	usages := make([]string, len(spec.Usages))
	for i, u := range spec.Usages {
		usages[i] = usageName(u)
	}
	out := fmt.Sprintf("want one of CA %q with %s, for %s", ca.Cert.Subject, subject, strings.Join(usages, " and "))
	var names []string
	for _, d := range spec.DNS {
		names = append(names, "DNS:"+d)
	}
	for _, a := range spec.IPs {
		names = append(names, "IP:"+a.Unmap().String())
	}
	if len(names) > 0 {
		out += ", with the names " + strings.Join(names, " ")
	}
	return out
}
