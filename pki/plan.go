package pki

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"strings"
)

// Certificate is one row of the certificate plan.
type Certificate struct {
	// File is the path below kubeadm's certificatesDir without .crt or .key: "etcd/server".
	File string
	// Signer is the File of the CA that signs it; empty for a CA, which signs itself.
	Signer string
	// CN is the subject's common name; empty means the node's name.
	CN string
	O  []string
	// Usages are the extended key usages.
	Usages []x509.ExtKeyUsage
	// sans yields the subject alternative names; nil means none.
	sans func(SANInput) ([]string, []netip.Addr)
}

// IsCA reports whether the row is a certificate authority.
func (c Certificate) IsCA() bool { return c.Signer == "" }

var (
	serverAuth       = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	clientAuth       = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	serverClientAuth = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
)

// Certificates is the certificate plan of a control-plane node, as kubeadm 1.37
// makes it (cmd/kubeadm/app/phases/certs/certlist.go); every CA stands before
// what it signs. apiserver-kubelet-client has no organisation: its rights come
// from the ClusterRoleBinding kubeadm:apiserver-kubelet-client.
func Certificates() []Certificate {
	return []Certificate{
		{File: "ca", CN: "kubernetes"},
		{File: "apiserver", Signer: "ca", CN: "kube-apiserver", Usages: serverAuth, sans: apiserverSANs},
		{File: "apiserver-kubelet-client", Signer: "ca", CN: "kube-apiserver-kubelet-client", Usages: clientAuth},
		{File: "front-proxy-ca", CN: "front-proxy-ca"},
		{File: "front-proxy-client", Signer: "front-proxy-ca", CN: "front-proxy-client", Usages: clientAuth},
		{File: "etcd/ca", CN: "etcd-ca"},
		{File: "etcd/server", Signer: "etcd/ca", Usages: serverClientAuth, sans: etcdServerSANs},
		{File: "etcd/peer", Signer: "etcd/ca", Usages: serverClientAuth, sans: etcdPeerSANs},
		{File: "etcd/healthcheck-client", Signer: "etcd/ca", CN: "kube-etcd-healthcheck-client", Usages: clientAuth},
		{File: "apiserver-etcd-client", Signer: "etcd/ca", CN: "kube-apiserver-etcd-client", Usages: clientAuth},
	}
}

// CertificateFor returns the row of the plan with the given File.
func CertificateFor(file string) (Certificate, error) {
	for _, c := range Certificates() {
		if c.File == file {
			return c, nil
		}
	}
	return Certificate{}, fmt.Errorf("the certificate plan has no %q", file)
}

// SANInput is what the subject alternative names of a node's certificates are made of.
type SANInput struct {
	NodeName         string
	AdvertiseAddress netip.Addr
	// APIServiceIP is the first address of the first service subnet.
	APIServiceIP netip.Addr
	DNSDomain    string
	// ControlPlaneHost is the host of the shared endpoint: a name, an IP or "".
	ControlPlaneHost string
	// CertSANs are further names and IPs of the API server, EtcdServerSANs and
	// EtcdPeerSANs of etcd.
	CertSANs, EtcdServerSANs, EtcdPeerSANs []string
}

func apiserverSANs(in SANInput) ([]string, []netip.Addr) {
	dns := []string{in.NodeName, "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + in.DNSDomain}
	ips := []netip.Addr{in.APIServiceIP, in.AdvertiseAddress}
	return addSANs(dns, ips, append([]string{in.ControlPlaneHost}, in.CertSANs...))
}

func etcdServerSANs(in SANInput) ([]string, []netip.Addr) { return etcdSANs(in, in.EtcdServerSANs) }

func etcdPeerSANs(in SANInput) ([]string, []netip.Addr) { return etcdSANs(in, in.EtcdPeerSANs) }

func etcdSANs(in SANInput, extra []string) ([]string, []netip.Addr) {
	dns := []string{in.NodeName, "localhost"}
	ips := []netip.Addr{in.AdvertiseAddress, netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	return addSANs(dns, ips, extra)
}

// addSANs sorts names from addresses; an empty text is neither.
func addSANs(dns []string, ips []netip.Addr, extra []string) ([]string, []netip.Addr) {
	for _, s := range extra {
		if a, err := netip.ParseAddr(s); err == nil {
			ips = append(ips, a)
		} else if s != "" {
			dns = append(dns, strings.ToLower(s))
		}
	}
	return dns, ips
}

// Leaf completes the row for a node. It refuses CA rows and inputs that miss
// what the row's names need.
func (c Certificate) Leaf(in SANInput) (LeafSpec, error) {
	if c.IsCA() {
		return LeafSpec{}, fmt.Errorf("certificate %s is a CA, not a leaf", c.File)
	}
	spec := LeafSpec{CN: c.CN, O: c.O, Usages: c.Usages}
	if spec.CN == "" {
		spec.CN = in.NodeName
	}
	if spec.CN == "" {
		return LeafSpec{}, fmt.Errorf("certificate %s: the node name is empty", c.File)
	}
	if c.sans == nil {
		return spec, nil
	}
	spec.DNS, spec.IPs = c.sans(in)
	for _, a := range spec.IPs {
		if !a.IsValid() || a.IsUnspecified() {
			return LeafSpec{}, fmt.Errorf("certificate %s: advertise address %q and service address %q must both be IP addresses", c.File, in.AdvertiseAddress, in.APIServiceIP)
		}
	}
	for _, d := range spec.DNS {
		if d == "" || strings.HasSuffix(d, ".") {
			return LeafSpec{}, fmt.Errorf("certificate %s: node name %q and DNS domain %q must not be empty or end in a dot", c.File, in.NodeName, in.DNSDomain)
		}
	}
	return spec, nil
}

// KubeconfigPlan is one row of the kubeconfigs of a control-plane node.
type KubeconfigPlan struct {
	File string // below /etc/kubernetes
	CN   string // user; "" means system:node:<node name>
	O    []string
	// Local means the file names the node's own API server instead of the shared endpoint.
	Local bool
	// InitOnly means only the node that creates the cluster has it.
	InitOnly bool
}

// Kubeconfigs lists the kubeconfigs of kubeadm 1.37
// (cmd/kubeadm/app/phases/kubeconfig). kubelet.conf of a joining node comes from
// TLS bootstrap instead.
func Kubeconfigs() []KubeconfigPlan {
	return []KubeconfigPlan{
		{File: "admin.conf", CN: "kubernetes-admin", O: []string{"kubeadm:cluster-admins"}},
		{File: "super-admin.conf", CN: "kubernetes-super-admin", O: []string{"system:masters"}, InitOnly: true},
		{File: "kubelet.conf", O: []string{"system:nodes"}, Local: true, InitOnly: true},
		{File: "controller-manager.conf", CN: "system:kube-controller-manager", Local: true},
		{File: "scheduler.conf", CN: "system:kube-scheduler", Local: true},
	}
}

// Leaf completes the row for a node. The certificate starts with its CA, as
// kubeadm's kubeconfig certificates do.
func (k KubeconfigPlan) Leaf(nodeName string) LeafSpec {
	cn := k.CN
	if cn == "" {
		cn = "system:node:" + nodeName
	}
	return LeafSpec{CN: cn, O: k.O, Usages: clientAuth, SinceCA: true}
}
