package kubeletauth

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/pki"
)

const pem = "/var/lib/kubelet/pki/kubelet-client-current.pem"

// TestCheck: only a certificate of this cluster, for this node, with its key, valid now,
// makes a kubelet the node.
func TestCheck(t *testing.T) {
	row, err := pki.CertificateFor("ca")
	if err != nil {
		t.Fatal(err)
	}
	newCA := func() *pki.CA {
		ca, err := pki.NewCA(row, pki.ECDSAP256, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return ca
	}
	ca, other := newCA(), newCA()
	kubelet := pki.Kubeconfigs()[2]
	if kubelet.File != "kubelet.conf" {
		t.Fatal(kubelet.File)
	}
	for name, tc := range map[string]struct {
		trusts, signer *pki.CA
		node           string
		at             time.Time
		damage         func(t *testing.T, p host.Paths)
		want           string // "" if it is right
	}{
		"right":              {ca, ca, "n1", time.Now(), nil, ""},
		"of another node":    {ca, ca, "n2", time.Now(), nil, `is that of "system:node:n2", want "system:node:n1"`},
		"of another cluster": {other, other, "n1", time.Now(), nil, "for a cluster with another CA"},
		"of another CA":      {ca, other, "n1", time.Now(), nil, "does not chain to CA"},
		"expired":            {ca, ca, "n1", time.Now().Add(-2 * pki.LeafValidity), nil, "does not chain to CA"},
		"empty, as after a power cut": {ca, ca, "n1", time.Now(), func(t *testing.T, p host.Paths) {
			if err := os.WriteFile(p.At(pem), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "the kubelet's certificate"},
		"gone": {ca, ca, "n1", time.Now(), func(t *testing.T, p host.Paths) {
			if err := os.Remove(p.At(pem)); err != nil {
				t.Fatal(err)
			}
		}, "the kubelet's certificate"},
		"not a kubeconfig": {ca, ca, "n1", time.Now(), func(t *testing.T, p host.Paths) {
			if err := os.WriteFile(p.Kubeconfig("kubelet.conf"), []byte("hunter2: ["), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "kubelet.conf is not a kubeconfig"},
	} {
		t.Run(name, func(t *testing.T) {
			p := host.Paths{Root: t.TempDir()}
			if err := Check(p, "n1", ca.CertPEM, time.Now()); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("without a file: %v", err)
			}
			cert, key, err := tc.signer.Issue(kubelet.Leaf(tc.node), pki.ECDSAP256, tc.at)
			if err != nil {
				t.Fatal(err)
			}
			for _, dir := range []string{filepath.Dir(p.At(pem)), filepath.Dir(p.Kubeconfig("x"))} {
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(p.At(pem), append(cert, key.Reveal()...), 0o600); err != nil {
				t.Fatal(err)
			}
			kc := clientcmdapi.NewConfig()
			kc.Clusters["c"] = &clientcmdapi.Cluster{Server: "https://a:6443", CertificateAuthorityData: tc.trusts.CertPEM}
			kc.AuthInfos["u"] = &clientcmdapi.AuthInfo{ClientCertificate: pem, ClientKey: pem}
			kc.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
			kc.CurrentContext = "x"
			if err := clientcmd.WriteToFile(*kc, p.Kubeconfig("kubelet.conf")); err != nil {
				t.Fatal(err)
			}
			if tc.damage != nil {
				tc.damage(t, p)
			}
			err = Check(p, "n1", ca.CertPEM, time.Now())
			if (err == nil) != (tc.want == "") || err != nil && (!strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "hunter2")) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}
