package pki

import (
	"encoding/pem"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	clientcmdlatest "k8s.io/client-go/tools/clientcmd/api/latest"

	"github.com/kiln-os/kiln/internal/secret"
)

// Kubeconfig is what a kubeconfig with an embedded client certificate is made of.
type Kubeconfig struct {
	ClusterName string
	Server      string // "https://host:port"
	CACertPEM   []byte // the first certificate is embedded
	CertPEM     []byte // client certificate; its common name is the user
	KeyPEM      secret.Value
}

// Render writes the kubeconfig with kubeadm's names: the context is
// <user>@<cluster>. Same input, same bytes.
func (k Kubeconfig) Render() (secret.Value, error) {
	cert, err := ParseCertificate(k.CertPEM)
	if err != nil {
		return secret.Value{}, fmt.Errorf("kubeconfig: client certificate: %w", err)
	}
	ca, err := ParseCertificate(k.CACertPEM)
	if err != nil {
		return secret.Value{}, fmt.Errorf("kubeconfig: CA: %w", err)
	}
	user := cert.Subject.CommonName
	context := user + "@" + k.ClusterName
	cfg := clientcmdapi.NewConfig()
	cfg.Clusters[k.ClusterName] = &clientcmdapi.Cluster{
		Server:                   k.Server,
		CertificateAuthorityData: pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: ca.Raw}),
	}
	cfg.AuthInfos[user] = &clientcmdapi.AuthInfo{ClientCertificateData: k.CertPEM, ClientKeyData: k.KeyPEM.Reveal()}
	cfg.Contexts[context] = &clientcmdapi.Context{Cluster: k.ClusterName, AuthInfo: user}
	cfg.CurrentContext = context
	out, err := runtime.Encode(clientcmdlatest.Codec, cfg)
	if err != nil {
		return secret.Value{}, fmt.Errorf("kubeconfig of %s: %w", user, err)
	}
	return secret.New(out), nil
}

// IssueKubeconfig makes a key, a client certificate and the kubeconfig around
// them for a row of the plan. server is "https://host:port", validity the life of
// the certificate; 0 means LeafValidity.
func (ca *CA) IssueKubeconfig(row KubeconfigPlan, nodeName, clusterName, server string, alg Algorithm, validity time.Duration, now time.Time) (secret.Value, error) {
	spec := row.Leaf(nodeName)
	spec.Validity = validity
	cert, key, err := ca.Issue(spec, alg, now)
	if err != nil {
		return secret.Value{}, fmt.Errorf("%s: %w", row.File, err)
	}
	out, err := Kubeconfig{ClusterName: clusterName, Server: server, CACertPEM: ca.CertPEM, CertPEM: cert, KeyPEM: key}.Render()
	if err != nil {
		return secret.Value{}, fmt.Errorf("%s: %w", row.File, err)
	}
	return out, nil
}
