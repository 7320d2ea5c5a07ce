package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/kiln-os/kiln/internal/secret"
)

var now = time.Date(2030, 6, 1, 12, 0, 0, 0, time.UTC)

var nodeSANs = SANInput{
	NodeName:         "cp-1",
	AdvertiseAddress: netip.MustParseAddr("10.0.2.15"),
	APIServiceIP:     netip.MustParseAddr("10.96.0.1"),
	DNSDomain:        "cluster.local",
	ControlPlaneHost: "api.example.org",
	CertSANs:         []string{"203.0.113.7", "Alias.Example.ORG", "10.0.2.15"},
}

// issuePlan makes every certificate of the plan with one algorithm.
func issuePlan(t *testing.T, alg Algorithm) (map[string][]byte, map[string]secret.Value) {
	t.Helper()
	certs, keys, cas := map[string][]byte{}, map[string]secret.Value{}, map[string]*CA{}
	for _, row := range Certificates() {
		if row.IsCA() {
			ca, err := NewCA(row, alg, now)
			if err != nil {
				t.Fatal(err)
			}
			cas[row.File], certs[row.File], keys[row.File] = ca, ca.CertPEM, ca.KeyPEM
			continue
		}
		leaf, err := row.Leaf(nodeSANs)
		if err != nil {
			t.Fatal(err)
		}
		if certs[row.File], keys[row.File], err = cas[row.Signer].Issue(leaf, alg, now); err != nil {
			t.Fatal(err)
		}
	}
	return certs, keys
}

func TestCertificatePlan(t *testing.T) {
	server, client := x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth
	etcdDNS, etcdIPs := []string{"cp-1", "localhost"}, []string{"10.0.2.15", "127.0.0.1", "::1"}
	want := map[string]struct {
		cn     string
		usages []x509.ExtKeyUsage
		dns    []string
		ips    []string
	}{
		"ca":             {cn: "kubernetes", dns: []string{"kubernetes"}},
		"front-proxy-ca": {cn: "front-proxy-ca", dns: []string{"front-proxy-ca"}},
		"etcd/ca":        {cn: "etcd-ca", dns: []string{"etcd-ca"}},
		"apiserver": {cn: "kube-apiserver", usages: []x509.ExtKeyUsage{server},
			dns: []string{"alias.example.org", "api.example.org", "cp-1", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
			ips: []string{"10.96.0.1", "10.0.2.15", "203.0.113.7"}},
		"apiserver-kubelet-client": {cn: "kube-apiserver-kubelet-client", usages: []x509.ExtKeyUsage{client}},
		"front-proxy-client":       {cn: "front-proxy-client", usages: []x509.ExtKeyUsage{client}},
		"etcd/server":              {cn: "cp-1", usages: []x509.ExtKeyUsage{server, client}, dns: etcdDNS, ips: etcdIPs},
		"etcd/peer":                {cn: "cp-1", usages: []x509.ExtKeyUsage{server, client}, dns: etcdDNS, ips: etcdIPs},
		"etcd/healthcheck-client":  {cn: "kube-etcd-healthcheck-client", usages: []x509.ExtKeyUsage{client}},
		"apiserver-etcd-client":    {cn: "kube-apiserver-etcd-client", usages: []x509.ExtKeyUsage{client}},
	}
	certs, keys := issuePlan(t, ECDSAP256)
	if len(certs) != len(want) {
		t.Fatalf("the plan has %d rows, want %d", len(certs), len(want))
	}
	serials := map[string]bool{}
	for _, row := range Certificates() {
		t.Run(row.File, func(t *testing.T) {
			w, cert := want[row.File], mustParse(t, certs[row.File])
			if cert.Subject.CommonName != w.cn || len(cert.Subject.Organization) != 0 {
				t.Errorf("subject %s", cert.Subject)
			}
			var ips []string
			for _, ip := range cert.IPAddresses {
				ips = append(ips, ip.String())
			}
			if !slices.Equal(cert.DNSNames, w.dns) || !slices.Equal(ips, w.ips) {
				t.Errorf("names %q, addresses %q; want %q, %q", cert.DNSNames, ips, w.dns, w.ips)
			}
			if !slices.Equal(cert.ExtKeyUsage, w.usages) {
				t.Errorf("extended key usages %v, want %v", cert.ExtKeyUsage, w.usages)
			}
			usage, begin, end := x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment, now.Add(-5*time.Minute), now.Add(8760*time.Hour)
			if row.IsCA() {
				usage, begin, end = usage|x509.KeyUsageCertSign, now.Add(-24*time.Hour), now.Add(87600*time.Hour)
			}
			if cert.KeyUsage != usage || cert.IsCA != row.IsCA() || !cert.BasicConstraintsValid {
				t.Errorf("key usage %b, CA %v", cert.KeyUsage, cert.IsCA)
			}
			if !cert.NotBefore.Equal(begin) || !cert.NotAfter.Equal(end) {
				t.Errorf("valid from %s to %s, want %s to %s", cert.NotBefore, cert.NotAfter, begin, end)
			}
			if n := cert.SerialNumber; n.Sign() <= 0 || n.BitLen() > 63 || serials[n.String()] {
				t.Errorf("serial %s is not a fresh positive number of 63 bits", n)
			} else {
				serials[n.String()] = true
			}
			signer := row.Signer
			if signer == "" {
				signer = row.File
			}
			if err := CheckChain(certs[row.File], certs[signer], now); err != nil {
				t.Error(err)
			}
			if err := CheckPair(certs[row.File], keys[row.File]); err != nil {
				t.Error(err)
			}
			for _, other := range []string{"ca", "front-proxy-ca", "etcd/ca"} {
				if other != signer && CheckChain(certs[row.File], certs[other], now) == nil {
					t.Errorf("also chains to %s", other)
				}
			}
			opensslVerify(t, certs[signer], certs[row.File])
		})
	}
}

// opensslVerify asks the reference implementation, where it is installed.
func opensslVerify(t *testing.T, ca, cert []byte) {
	t.Helper()
	bin, err := exec.LookPath("openssl")
	if err != nil {
		return
	}
	dir := t.TempDir()
	for name, data := range map[string][]byte{"ca.crt": ca, "leaf.crt": cert} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(bin, "verify", "-x509_strict", "-attime", fmt.Sprint(now.Unix()), "-CAfile", "ca.crt", "leaf.crt")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("openssl verify: %v\n%s", err, out)
	}
}

func TestAlgorithms(t *testing.T) {
	for _, alg := range Algorithms() {
		t.Run(string(alg), func(t *testing.T) {
			t.Parallel()
			ca, err := NewCA(Certificates()[0], alg, now)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := ca.Algorithm(); err != nil || got != alg {
				t.Errorf("CA key is %s (%v)", got, err)
			}
			block, _ := pem.Decode(ca.KeyPEM.Reveal())
			wantType := map[bool]string{true: "RSA PRIVATE KEY", false: "EC PRIVATE KEY"}[strings.HasPrefix(string(alg), "RSA")]
			if block == nil || block.Type != wantType {
				t.Errorf("PEM type of the key is not %s", wantType)
			}
			pub, err := EncodePublicKey(ca.KeyPEM)
			if err != nil || !bytes.HasPrefix(pub, []byte("-----BEGIN PUBLIC KEY-----")) {
				t.Errorf("public key %s, %v", pub, err)
			}
			// A leaf for the same key keeps the test quick with RSA-4096.
			leaf, err := ca.IssueFor(Kubeconfigs()[0].Leaf(""), ca.KeyPEM, now)
			if err != nil {
				t.Fatal(err)
			}
			if err := CheckChain(leaf, ca.CertPEM, now); err != nil {
				t.Error(err)
			}
			opensslVerify(t, ca.CertPEM, leaf)
		})
	}
	if _, err := ParseAlgorithm("rsa-2048"); err == nil || !strings.Contains(err.Error(), "RSA-2048") {
		t.Errorf("error %v does not name the right spelling", err)
	}
}

func TestPKCS8KeysAreRead(t *testing.T) {
	key, err := generateKey(ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseKey(secret.New(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	if err != nil || !samePublicKey(got.Public(), key.Public()) {
		t.Errorf("%v", err)
	}
}

func TestKubeconfigs(t *testing.T) {
	ca, err := NewCA(Certificates()[0], ECDSAP256, now)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]struct{ user, o string }{
		"admin.conf":              {"kubernetes-admin", "kubeadm:cluster-admins"},
		"super-admin.conf":        {"kubernetes-super-admin", "system:masters"},
		"kubelet.conf":            {"system:node:cp-1", "system:nodes"},
		"controller-manager.conf": {"system:kube-controller-manager", ""},
		"scheduler.conf":          {"system:kube-scheduler", ""},
	}
	for _, row := range Kubeconfigs() {
		t.Run(row.File, func(t *testing.T) {
			v, err := ca.IssueKubeconfig(row, "cp-1", "demo", "https://10.0.2.15:6443", ECDSAP256, 0, now)
			if err != nil {
				t.Fatal(err)
			}
			cfg, err := clientcmd.Load(v.Reveal())
			if err != nil {
				t.Fatal(err)
			}
			w := want[row.File]
			if cfg.CurrentContext != w.user+"@demo" {
				t.Errorf("context %q", cfg.CurrentContext)
			}
			ctx := cfg.Contexts[cfg.CurrentContext]
			cluster, user := cfg.Clusters[ctx.Cluster], cfg.AuthInfos[ctx.AuthInfo]
			if cluster.Server != "https://10.0.2.15:6443" || !bytes.Equal(cluster.CertificateAuthorityData, ca.CertPEM) {
				t.Errorf("cluster %q", cluster.Server)
			}
			cert := mustParse(t, user.ClientCertificateData)
			if cert.Subject.CommonName != w.user || strings.Join(cert.Subject.Organization, ",") != w.o {
				t.Errorf("subject %s", cert.Subject)
			}
			if !cert.NotBefore.Equal(ca.Cert.NotBefore) || !cert.NotAfter.Equal(now.Add(LeafValidity)) {
				t.Errorf("valid from %s to %s", cert.NotBefore, cert.NotAfter)
			}
			if err := CheckPair(user.ClientCertificateData, secret.New(user.ClientKeyData)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestLeafNeverStartsBeforeItsCA(t *testing.T) {
	ca, err := NewCA(Certificates()[0], ECDSAP256, now)
	if err != nil {
		t.Fatal(err)
	}
	early := ca.Cert.NotBefore.Add(time.Minute)
	cert, _, err := ca.Issue(LeafSpec{CN: "x", Usages: clientAuth}, ECDSAP256, early)
	if err != nil {
		t.Fatal(err)
	}
	if got := mustParse(t, cert).NotBefore; !got.Equal(ca.Cert.NotBefore) {
		t.Errorf("starts at %s, its CA at %s", got, ca.Cert.NotBefore)
	}
}

func TestCAWithoutKeyCannotIssue(t *testing.T) {
	ca, err := NewCA(Certificates()[0], ECDSAP256, now)
	if err != nil {
		t.Fatal(err)
	}
	ext, err := LoadCA(ca.CertPEM, secret.Value{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := ext.Issue(LeafSpec{CN: "x", Usages: clientAuth}, ECDSAP256, now); err == nil {
		t.Error("a CA without a key issued a certificate")
	}
}

// openssl computes the pin as kubeadm documents it.
func TestCAPinMatchesOpenssl(t *testing.T) {
	bin, err := exec.LookPath("openssl")
	if err != nil {
		t.Log("no openssl: only the form is checked")
	}
	ca, err := NewCA(Certificates()[0], RSA2048, now)
	if err != nil {
		t.Fatal(err)
	}
	pin, err := CAPin(ca.CertPEM)
	if err != nil || !strings.HasPrefix(pin, "sha256:") || len(pin) != 71 {
		t.Fatalf("pin %q, %v", pin, err)
	}
	if bin == "" {
		return
	}
	// The command of kubeadm's documentation.
	cmd := exec.Command("sh", "-c", "openssl x509 -pubkey | openssl pkey -pubin -outform der | openssl dgst -sha256 -r")
	cmd.Stdin = bytes.NewReader(ca.CertPEM)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := "sha256:" + strings.Fields(string(out))[0]; pin != want {
		t.Errorf("pin %s, openssl says %s", pin, want)
	}
}

func TestTokens(t *testing.T) {
	tok, err := NewToken(now, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseToken(tok.Value())
	if err != nil || back.ID != tok.ID || !back.Secret.Equal(tok.Secret) {
		t.Errorf("token does not survive: %v", err)
	}
	if !tok.Expires.Equal(now.Add(24 * time.Hour)) {
		t.Errorf("expires %s", tok.Expires)
	}
	if tok, err = NewToken(now, 0); err != nil || !tok.Expires.IsZero() {
		t.Errorf("a lifetime of 0 expires at %s (%v)", tok.Expires, err)
	}
	for _, bad := range []string{"", "abcdef", "abcdef.0123456789abcde", "abcdef.0123456789abcdefg", "Abcdef.0123456789abcdef", "abcdef.0123456789abcdef\n"} {
		if _, err := ParseToken(secret.FromString(bad)); err == nil {
			t.Errorf("%q is accepted", bad)
		} else if bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("the error shows the token: %v", err)
		}
	}
	seen := map[rune]int{}
	for range 400 {
		s, err := randomString(16)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range s {
			seen[r]++
		}
	}
	// 6400 draws from 36: 178 expected of each, standard deviation 13.
	for _, r := range tokenAlphabet {
		if seen[r] < 90 || seen[r] > 290 {
			t.Errorf("%q was drawn %d times of 6400", r, seen[r])
		}
	}
}

func TestLeafRefusesIncompleteInput(t *testing.T) {
	for name, change := range map[string]func(*SANInput){
		"no node name":         func(in *SANInput) { in.NodeName = "" },
		"no advertise address": func(in *SANInput) { in.AdvertiseAddress = netip.Addr{} },
		"0.0.0.0":              func(in *SANInput) { in.AdvertiseAddress = netip.IPv4Unspecified() },
		"no service address":   func(in *SANInput) { in.APIServiceIP = netip.Addr{} },
		"no DNS domain":        func(in *SANInput) { in.DNSDomain = "" },
	} {
		in := nodeSANs
		change(&in)
		row, err := CertificateFor("apiserver")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := row.Leaf(in); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func mustParse(t *testing.T, certPEM []byte) *x509.Certificate {
	t.Helper()
	cert, err := ParseCertificate(certPEM)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n"))
	f.Add([]byte("abcdef.0123456789abcdef"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseCertificate(b); err == nil && c == nil {
			t.Error("no certificate and no error")
		}
		if k, err := ParseKey(secret.New(b)); err == nil && k == nil {
			t.Error("no key and no error")
		}
		if tok, err := ParseToken(secret.New(b)); err == nil && !reflect.DeepEqual(tok.Value().Reveal(), b) {
			t.Error("token is not what was read")
		}
	})
}
