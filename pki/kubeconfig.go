package pki

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"k8s.io/apimachinery/pkg/runtime"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	clientcmdlatest "k8s.io/client-go/tools/clientcmd/api/latest"

	"github.com/kiln-os/kiln/internal/secret"
)

// Kubeconfig is what a kubeconfig is made of, with an embedded client certificate
// or a token.
type Kubeconfig struct {
	ClusterName string
	Server      string // "https://host:port"
	CACertPEM   []byte // the first certificate is embedded
	CertPEM     []byte // client certificate; its common name is the user
	KeyPEM      secret.Value
	// Token is sent instead of a certificate, if there is none, for the user User.
	Token secret.Value
	User  string
}

// Render writes the kubeconfig with kubeadm's names: the context is
// <user>@<cluster>. Same input, same bytes.
func (k Kubeconfig) Render() (secret.Value, error) {
	auth, user := &clientcmdapi.AuthInfo{}, k.User
	if k.CertPEM != nil {
		cert, err := ParseCertificate(k.CertPEM)
		if err != nil {
			return secret.Value{}, fmt.Errorf("kubeconfig: client certificate: %w", err)
		}
		user = cert.Subject.CommonName
		auth.ClientCertificateData, auth.ClientKeyData = k.CertPEM, k.KeyPEM.Reveal()
	} else {
		auth.Token = k.Token.RevealString()
	}
	ca, err := ParseCertificate(k.CACertPEM)
	if err != nil {
		return secret.Value{}, fmt.Errorf("kubeconfig: CA: %w", err)
	}
	context := user + "@" + k.ClusterName
	cfg := clientcmdapi.NewConfig()
	cfg.Clusters[k.ClusterName] = &clientcmdapi.Cluster{
		Server:                   k.Server,
		CertificateAuthorityData: EncodeCertificate(ca),
	}
	cfg.AuthInfos[user] = auth
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

// User is somebody who gets a kubeconfig besides those of the plan.
type User struct {
	Name          string   // CN
	Organizations []string // O: the groups
	// Validity is the life of the certificate; 0 means LeafValidity.
	Validity time.Duration
	// Token, if not empty, is what the user shows instead of a certificate.
	Token secret.Value
}

// Validate reports every mistake.
func (u User) Validate() error {
	var errs []error
	if strings.TrimSpace(u.Name) == "" {
		errs = append(errs, errors.New("the user needs a name"))
	}
	for _, o := range u.Organizations {
		if strings.TrimSpace(o) == "" {
			errs = append(errs, errors.New("an organization of the user is empty"))
		}
	}
	if u.Validity < 0 {
		errs = append(errs, fmt.Errorf("a certificate cannot be valid for %s: give a duration such as 720h", u.Validity))
	}
	if strings.ContainsFunc(u.Token.RevealString(), func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		errs = append(errs, errors.New("the user's token has spaces or control characters in it: a token is one word"))
	}
	if !u.Token.IsZero() && len(u.Organizations) > 0 {
		errs = append(errs, errors.New("a token has the groups that the cluster knows it with: organizations are for certificates"))
	}
	return errors.Join(errs...)
}

// IssueUser makes the kubeconfig of a user of the cluster whose API servers are at
// server, "https://host:port". For a user with a token no CA key is needed.
func (ca *CA) IssueUser(u User, clusterName, server string, alg Algorithm, now time.Time) (secret.Value, error) {
	if err := u.Validate(); err != nil {
		return secret.Value{}, err
	}
	out := Kubeconfig{ClusterName: clusterName, Server: server, CACertPEM: ca.CertPEM, Token: u.Token, User: u.Name}
	if u.Token.IsZero() {
		spec := LeafSpec{CN: u.Name, O: u.Organizations, Usages: clientAuth, SinceCA: true, Validity: u.Validity}
		var err error
		if out.CertPEM, out.KeyPEM, err = ca.Issue(spec, alg, now); err != nil {
			return secret.Value{}, err
		}
	}
	return out.Render()
}
