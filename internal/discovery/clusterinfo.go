package discovery

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/cluster-bootstrap/token/jws"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/discoveryfile"
)

// parseClusterInfo reads the kubeconfig of a cluster-info ConfigMap: foreign bytes,
// of which nothing is believed yet. It returns its only cluster.
func parseClusterInfo(kubeconfig []byte) (*clientcmdapi.Cluster, error) {
	kc, err := clientcmd.Load(kubeconfig)
	if err != nil {
		return nil, errors.New("the kubeconfig in cluster-info cannot be read")
	}
	cluster, err := discoveryfile.OnlyCluster(kc)
	if err != nil {
		return nil, fmt.Errorf("the kubeconfig in cluster-info: %w", err)
	}
	if len(cluster.CertificateAuthorityData) == 0 {
		return nil, errors.New("the kubeconfig in cluster-info holds no CA certificate")
	}
	return cluster, nil
}

// checkSignature compares the detached JWS of cluster-info with the one that the
// token gives, as whole texts.
func checkSignature(kubeconfig, signature string, token bootplan.Token) error {
	if jws.DetachedTokenIsValid(signature, kubeconfig, token.ID, token.Secret.RevealString()) {
		return nil
	}
	return fmt.Errorf("cluster-info has a wrong signature for bootstrap token %s: somebody changed it on its way, or the cluster has another token of that id", token.ID)
}

// checkPins returns nil if a certificate of the CA has one of the pins, "sha256:" and
// the hexadecimal digest of its SubjectPublicKeyInfo.
func checkPins(caPEM []byte, pins []string) error {
	certs, err := discoveryfile.Certificates(caPEM)
	if err != nil {
		return fmt.Errorf("the CA in cluster-info: %w", err)
	}
	var have []string
	for _, c := range certs {
		sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
		pin := "sha256:" + hex.EncodeToString(sum[:])
		if slices.ContainsFunc(pins, func(p string) bool { return strings.EqualFold(p, pin) }) {
			return nil
		}
		have = append(have, pin)
	}
	return fmt.Errorf("the cluster's CA has the pin %s, this node was made for %s: it is another cluster, or somebody who poses as this one",
		strings.Join(have, " and "), strings.Join(pins, " or "))
}
