package renewal_test

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/nodetest"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/internal/renewal"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/pki"
)

// kubeadmNames are what kubeadm certs check-expiration of 1.37 lists.
var kubeadmNames = []string{
	"admin.conf", "apiserver", "apiserver-etcd-client", "apiserver-kubelet-client", "controller-manager.conf", "etcd-healthcheck-client",
	"etcd-peer", "etcd-server", "front-proxy-client", "scheduler.conf", "super-admin.conf",
}

func node(t *testing.T) renewal.Node {
	t.Helper()
	paths := host.Paths{Root: t.TempDir()}
	if err := nodetest.ControlPlane(t.Context(), nodetest.Config(), paths, phase.NewPrinter(t.Output())); err != nil {
		t.Fatal(err)
	}
	return renewal.Node{Paths: paths, Algorithm: pki.ECDSAP256}
}

// load returns the certificate, its key and its CA as they are on the disk.
func load(t *testing.T, n renewal.Node, name string) (certPEM []byte, key secret.Value, caPEM []byte) {
	t.Helper()
	read := func(path string) []byte {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if strings.HasSuffix(name, ".conf") {
		kc, err := clientcmd.LoadFromFile(n.Paths.Kubeconfig(name))
		if err != nil {
			t.Fatal(err)
		}
		c := kc.Contexts[kc.CurrentContext]
		return kc.AuthInfos[c.AuthInfo].ClientCertificateData, secret.New(kc.AuthInfos[c.AuthInfo].ClientKeyData), kc.Clusters[c.Cluster].CertificateAuthorityData
	}
	file := strings.Replace(name, "etcd-", "etcd/", 1)
	ca := "ca.crt"
	switch {
	case name == "front-proxy-client":
		ca = "front-proxy-ca.crt"
	case name == "apiserver-etcd-client":
		file, ca = name, "etcd/ca.crt"
	case strings.HasPrefix(name, "etcd-"):
		ca = "etcd/ca.crt"
	}
	return read(n.Paths.PKI(file + ".crt")), secret.New(read(n.Paths.PKI(file + ".key"))), read(n.Paths.PKI(ca))
}

func parse(t *testing.T, certPEM []byte) *x509.Certificate {
	t.Helper()
	cert, err := pki.ParseCertificate(certPEM)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// TestRenew renews each certificate, later, with another algorithm and life.
func TestRenew(t *testing.T) {
	n := node(t)
	n.Algorithm, n.Validity = pki.ECDSAP384, 100*time.Hour
	now := time.Now().Add(48 * time.Hour)
	var names []string
	for _, c := range n.Certificates() {
		names = append(names, c.Name)
		if c.LongName == "" {
			t.Errorf("%s has no long name", c.Name)
		}
		oldPEM, oldKey, _ := load(t, n, c.Name)
		if err := n.Renew(c, now); err != nil {
			t.Fatalf("%s: %v", c.Name, err)
		}
		newPEM, newKey, ca := load(t, n, c.Name)
		was, is := parse(t, oldPEM), parse(t, newPEM)
		if err := pki.CheckPair(newPEM, newKey); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
		if err := pki.CheckChain(newPEM, ca, now); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
		if newKey.Equal(oldKey) || is.SerialNumber.Cmp(was.SerialNumber) == 0 {
			t.Errorf("%s: the key or the serial number is the old one", c.Name)
		}
		if alg, err := pki.AlgorithmOf(is); err != nil || alg != pki.ECDSAP384 {
			t.Errorf("%s: key of kind %s, %v", c.Name, alg, err)
		}
		if is.Subject.String() != was.Subject.String() || !slices.Equal(is.DNSNames, was.DNSNames) ||
			fmt.Sprint(is.IPAddresses, is.ExtKeyUsage, is.KeyUsage) != fmt.Sprint(was.IPAddresses, was.ExtKeyUsage, was.KeyUsage) {
			t.Errorf("%s: %v %v %v, was %v %v %v", c.Name, is.Subject, is.DNSNames, is.IPAddresses, was.Subject, was.DNSNames, was.IPAddresses)
		}
		second := now.UTC().Truncate(time.Second)
		if !is.NotBefore.Equal(second.Add(-pki.LeafBackdate)) || !is.NotAfter.Equal(second.Add(n.Validity)) {
			t.Errorf("%s: valid from %s to %s", c.Name, is.NotBefore, is.NotAfter)
		}
	}
	if !slices.Equal(names, kubeadmNames) {
		t.Errorf("names %v, want %v", names, kubeadmNames)
	}
	for _, path := range []string{n.Paths.PKI("apiserver.key"), n.Paths.PKI("etcd/peer.key"), n.Paths.Kubeconfig("admin.conf")} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, st.Mode(), err)
		}
	}
	for _, dir := range []string{n.Paths.PKI(), n.Paths.PKI("etcd"), n.Paths.Kubeconfig("")} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".") {
				t.Errorf("%s is left in %s", e.Name(), dir)
			}
		}
	}
}

// TestRenewKeepsTheAlgorithm without one asked for.
func TestRenewKeepsTheAlgorithm(t *testing.T) {
	n := node(t)
	n.Algorithm = ""
	c, err := n.Find("apiserver")
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Renew(c, time.Now()); err != nil {
		t.Fatal(err)
	}
	certPEM, _, _ := load(t, n, "apiserver")
	if alg, err := pki.AlgorithmOf(parse(t, certPEM)); err != nil || alg != pki.ECDSAP256 {
		t.Errorf("%s, %v", alg, err)
	}
}

// TestRenewAfterCrash: a pair of which the key alone was replaced is made whole.
func TestRenewAfterCrash(t *testing.T) {
	n := node(t)
	other, err := pki.NewKey(pki.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.Paths.PKI("etcd/peer.key"), other.Reveal(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.Paths.PKI("etcd/.peer.new.crt"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := n.Find("etcd-peer")
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Renew(c, time.Now()); err != nil {
		t.Fatal(err)
	}
	certPEM, key, _ := load(t, n, "etcd-peer")
	if err := pki.CheckPair(certPEM, key); err != nil {
		t.Error(err)
	}
}

func TestFind(t *testing.T) {
	var n renewal.Node
	for name, want := range map[string]string{
		"api-server": `unknown certificate "api-server"; there are admin.conf, apiserver, `, "kubelet.conf": "the kubelet renews its certificate itself",
		"ca": "CAs are not renewed", "etcd-ca": "CAs are not renewed", "etcd/server": "unknown certificate", "": "unknown certificate",
	} {
		if _, err := n.Find(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", name, err, want)
		}
	}
	n.ExternalEtcd = true
	if _, err := n.Find("etcd-server"); err == nil {
		t.Error("with an external etcd there is a certificate etcd-server")
	}
}

// TestNothingChanges where a certificate cannot be renewed.
func TestNothingChanges(t *testing.T) {
	n := node(t)
	if err := os.Remove(n.Paths.PKI("ca.key")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(n.Paths.Kubeconfig("super-admin.conf")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.Paths.Kubeconfig("scheduler.conf"), []byte("apiVersion: v1\nkind: Config\ntoken: geheim\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.Paths.PKI("etcd/ca.key"), []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, n.Paths.Root)
	for name, want := range map[string]string{
		"apiserver": renewal.ErrExternal.Error(), "admin.conf": renewal.ErrExternal.Error(), "super-admin.conf": renewal.ErrMissing.Error(),
		"scheduler.conf": "its current context names no cluster and user", "etcd-peer": "no PEM block with a private key",
	} {
		c, err := n.Find(name)
		if err != nil {
			t.Fatal(err)
		}
		err = n.Renew(c, time.Now())
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
		if wantExternal := want == renewal.ErrExternal.Error(); errors.Is(err, renewal.ErrExternal) != wantExternal {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := snapshot(t, n.Paths.Root); got != before {
		t.Error("a file was changed")
	}
}

func snapshot(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	if err := filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		fmt.Fprintf(&b, "%s\n%s\n", p, data)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestExpiration(t *testing.T) {
	n := node(t)
	if err := os.Remove(n.Paths.PKI("front-proxy-ca.key")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(n.Paths.Kubeconfig("super-admin.conf")); err != nil {
		t.Fatal(err)
	}
	certPEM, _, ca := load(t, n, "apiserver")
	end, caEnd := parse(t, certPEM).NotAfter, parse(t, ca).NotAfter
	e, err := n.Expiration(end.Add(-25 * time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := e.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	const layout = "Jan 02, 2006 15:04 UTC"
	want := `CERTIFICATE                  EXPIRES                  RESIDUAL TIME   CERTIFICATE AUTHORITY   EXTERNALLY MANAGED
admin.conf                   END                      25h             ca                      no      
apiserver                    END                      25h             ca                      no      
apiserver-etcd-client        END                      25h             etcd-ca                 no      
apiserver-kubelet-client     END                      25h             ca                      no      
controller-manager.conf      END                      25h             ca                      no      
etcd-healthcheck-client      END                      25h             etcd-ca                 no      
etcd-peer                    END                      25h             etcd-ca                 no      
etcd-server                  END                      25h             etcd-ca                 no      
front-proxy-client           END                      25h             front-proxy-ca          yes     
scheduler.conf               END                      25h             ca                      no      
!MISSING! super-admin.conf                                                                    

CERTIFICATE AUTHORITY   EXPIRES                  RESIDUAL TIME   EXTERNALLY MANAGED
ca                      CAEND                    9y              no      
etcd-ca                 CAEND                    9y              no      
front-proxy-ca          CAEND                    9y              yes     
`
	want = strings.ReplaceAll(want, "CAEND                    ", caEnd.Format(layout)+"   ")
	want = strings.ReplaceAll(want, "END                      ", end.Format(layout)+"   ")
	if b.String() != want {
		t.Errorf("\n%s\nwant\n%s", b.String(), want)
	}
	data, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		// On a busy machine a second may have passed between two certificates.
		`^{"kind":"CertificateExpirationInfo","apiVersion":"output\.kubeadm\.k8s\.io/v1alpha3","certificates":\[{"name":"admin\.conf","expirationDate":"` + end.Format("2006-01-02T15:") + `[0-9:]{5}Z","residualTime":900\d\d,"externallyManaged":false,"caName":"ca","missing":false}`,
		`{"name":"super-admin\.conf","expirationDate":null,"residualTime":0,"externallyManaged":false,"missing":true}`,
		`"certificateAuthorities":\[{"name":"ca",`,
	} {
		if !regexp.MustCompile(want).Match(data) {
			t.Errorf("JSON lacks %s:\n%s", want, data)
		}
	}
}
