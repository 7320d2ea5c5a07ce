// Package kubeletauth judges the credentials with which a kubelet is a node of its
// cluster: kubelet.conf, as the kubelet makes it when it is given a certificate.
package kubeletauth

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/pki"
)

// Check returns nil if the machine's kubelet.conf makes it the node called nodeName
// in the cluster whose CA is caPEM. A file that does not exist is fs.ErrNotExist.
// Errors quote nothing of the file.
func Check(paths host.Paths, nodeName string, caPEM []byte, now time.Time) error {
	data, err := os.ReadFile(paths.Kubeconfig("kubelet.conf"))
	if err != nil {
		return err
	}
	kc, err := clientcmd.Load(data)
	if err != nil {
		return errors.New("kubelet.conf is not a kubeconfig")
	}
	current := kc.Contexts[kc.CurrentContext]
	if current == nil || kc.Clusters[current.Cluster] == nil || kc.AuthInfos[current.AuthInfo] == nil {
		return errors.New("kubelet.conf: its current context names no cluster and user")
	}
	cluster, user := kc.Clusters[current.Cluster], kc.AuthInfos[current.AuthInfo]
	ca := cluster.CertificateAuthorityData
	if cluster.CertificateAuthority != "" {
		if ca, err = os.ReadFile(paths.At(cluster.CertificateAuthority)); err != nil {
			return fmt.Errorf("kubelet.conf: its CA: %w", err)
		}
	}
	if !sameCA(ca, caPEM) {
		return errors.New("kubelet.conf is for a cluster with another CA")
	}
	cert, key := user.ClientCertificateData, secret.New(user.ClientKeyData)
	if user.ClientCertificate != "" {
		// Certificate and key are in one file, which the kubelet replaces.
		if cert, err = os.ReadFile(paths.At(user.ClientCertificate)); err != nil {
			return fmt.Errorf("the kubelet's certificate: %w", err)
		}
		key = secret.New(cert)
	}
	if err := pki.CheckPair(cert, key); err != nil {
		return fmt.Errorf("the kubelet's certificate: %w", err)
	}
	if err := pki.CheckChain(cert, caPEM, now); err != nil {
		return fmt.Errorf("the kubelet's certificate: %w", err)
	}
	c, err := pki.ParseCertificate(cert)
	if err != nil {
		return fmt.Errorf("the kubelet's certificate: %w", err)
	}
	if want := "system:node:" + nodeName; c.Subject.CommonName != want {
		return fmt.Errorf("the kubelet's certificate is that of %q, want %q", c.Subject.CommonName, want)
	}
	return nil
}

func sameCA(a, b []byte) bool {
	x, err1 := pki.ParseCertificate(a)
	y, err2 := pki.ParseCertificate(b)
	return err1 == nil && err2 == nil && bytes.Equal(x.Raw, y.Raw)
}
