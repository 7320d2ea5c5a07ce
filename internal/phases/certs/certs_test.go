package certs

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/pki"
)

func config() nodeconfig.Config {
	return nodeconfig.Config{
		Plan: bootplan.Plan{Cluster: bootplan.Cluster{
			Name: "demo", ControlPlaneEndpoint: "API.example:7443", CertSANs: []string{"192.0.2.9", "alias.example"},
			ServiceSubnets: []string{"10.96.0.0/12"}, DNSDomain: "cluster.local", EncryptionAlgorithm: "ECDSA-P256",
		}},
		NodeName: "kiln-1", Hostname: "kiln-1", AdvertiseAddress: netip.MustParseAddr("10.0.2.15"),
	}
}

// delivered is a root with what comes with the node's configuration: CAs and the
// service-account pair.
func delivered(t *testing.T) host.Paths {
	t.Helper()
	p := host.Paths{Root: t.TempDir()}
	put := func(name string, data []byte) {
		if err := os.MkdirAll(filepath.Dir(p.PKI(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p.PKI(name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range pki.Certificates() {
		if row.IsCA() {
			ca, err := pki.NewCA(row, pki.ECDSAP256, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			put(row.File+".crt", ca.CertPEM)
			put(row.File+".key", ca.KeyPEM.Reveal())
		}
	}
	key, pub, err := pki.NewServiceAccountKey(pki.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	put("sa.key", key.Reveal())
	put("sa.pub", pub)
	return p
}

func run(t *testing.T, cfg nodeconfig.Config, p host.Paths) {
	t.Helper()
	if err := Run(context.Background(), cfg, p, phase.NewPrinter(io.Discard)); err != nil {
		t.Fatal(err)
	}
}

// contents maps each file below the PKI folder to what it holds.
func contents(t *testing.T, p host.Paths) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(p.PKI(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		name, _ := filepath.Rel(p.PKI(), path)
		out[name] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestIssues(t *testing.T) {
	p := delivered(t)
	run(t, config(), p)
	for _, row := range pki.Certificates() {
		crt, err := os.ReadFile(p.PKI(row.File + ".crt"))
		if err != nil {
			t.Fatal(err)
		}
		key, err := os.ReadFile(p.PKI(row.File + ".key"))
		if err != nil {
			t.Fatal(err)
		}
		if err := pki.CheckPair(crt, secret.New(key)); err != nil {
			t.Errorf("%s: %v", row.File, err)
		}
		if row.IsCA() {
			continue
		}
		ca, err := os.ReadFile(p.PKI(row.Signer + ".crt"))
		if err != nil {
			t.Fatal(err)
		}
		if err := pki.CheckChain(crt, ca, time.Now()); err != nil {
			t.Errorf("%s: %v", row.File, err)
		}
		for name, mode := range map[string]os.FileMode{row.File + ".crt": 0o644, row.File + ".key": 0o600} {
			if st, err := os.Stat(p.PKI(name)); err != nil || st.Mode().Perm() != mode {
				t.Errorf("%s: mode %v, want %v", name, st.Mode().Perm(), mode)
			}
		}
	}
	crt, err := os.ReadFile(p.PKI("apiserver.crt"))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pki.ParseCertificate(crt)
	if err != nil {
		t.Fatal(err)
	}
	dns := []string{"alias.example", "api.example", "kiln-1", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
	if !slices.Equal(cert.DNSNames, dns) {
		t.Errorf("API server's names: %v", cert.DNSNames)
	}
	for _, ip := range []string{"10.96.0.1", "10.0.2.15", "192.0.2.9"} {
		if !slices.ContainsFunc(cert.IPAddresses, net.ParseIP(ip).Equal) {
			t.Errorf("API server's addresses %v lack %s", cert.IPAddresses, ip)
		}
	}
}

func TestSecondRunKeepsEverything(t *testing.T) {
	p := delivered(t)
	run(t, config(), p)
	before := contents(t, p)
	run(t, config(), p)
	if after := contents(t, p); !maps.Equal(before, after) {
		t.Error("a second run changed files")
	}
}

// TestReissue damages what a run left and checks which certificates are issued anew.
func TestReissue(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, p host.Paths, cfg *nodeconfig.Config)
		anew   []string
	}{
		{"key lost in a reset", func(t *testing.T, p host.Paths, _ *nodeconfig.Config) {
			remove(t, p.PKI("etcd/peer.key"))
		}, []string{"etcd/peer"}},
		{"certificate lost in a reset", func(t *testing.T, p host.Paths, _ *nodeconfig.Config) {
			remove(t, p.PKI("front-proxy-client.crt"))
		}, []string{"front-proxy-client"}},
		{"another address", func(_ *testing.T, _ host.Paths, cfg *nodeconfig.Config) {
			cfg.AdvertiseAddress = netip.MustParseAddr("10.0.2.16")
		}, []string{"apiserver", "etcd/peer", "etcd/server"}},
		{"another name", func(_ *testing.T, _ host.Paths, cfg *nodeconfig.Config) {
			cfg.NodeName = "kiln-2"
		}, []string{"apiserver", "etcd/peer", "etcd/server"}},
		{"certificates of another CA", func(t *testing.T, p host.Paths, _ *nodeconfig.Config) {
			other := delivered(t)
			for _, f := range []string{"front-proxy-ca.crt", "front-proxy-ca.key"} {
				b, err := os.ReadFile(other.PKI(f))
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(p.PKI(f), b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}, []string{"front-proxy-client"}},
		{"half a file", func(t *testing.T, p host.Paths, _ *nodeconfig.Config) {
			if err := os.Truncate(p.PKI("apiserver.crt"), 100); err != nil {
				t.Fatal(err)
			}
		}, []string{"apiserver"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, cfg := delivered(t), config()
			run(t, cfg, p)
			before := contents(t, p)
			c.damage(t, p, &cfg)
			run(t, cfg, p)
			after := contents(t, p)
			var anew []string
			for _, row := range pki.Certificates() {
				if f := row.File; !row.IsCA() && (before[f+".crt"] != after[f+".crt"] || before[f+".key"] != after[f+".key"]) {
					anew = append(anew, f)
				}
			}
			slices.Sort(anew)
			if !slices.Equal(anew, c.anew) {
				t.Errorf("issued anew: %v, want %v", anew, c.anew)
			}
		})
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func TestWhatMustBeDelivered(t *testing.T) {
	for _, name := range []string{"ca.crt", "ca.key", "front-proxy-ca.key", "etcd/ca.crt", "sa.key", "sa.pub"} {
		p := delivered(t)
		remove(t, p.PKI(name))
		err := Run(context.Background(), config(), p, phase.NewPrinter(io.Discard))
		if !phase.IsPermanent(err) || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
	p := delivered(t)
	_, pub, err := pki.NewServiceAccountKey(pki.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.PKI("sa.pub"), pub, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Run(context.Background(), config(), p, phase.NewPrinter(io.Discard)); err == nil || !strings.Contains(err.Error(), "sa.pub is not the public half") {
		t.Errorf("with another pair's sa.pub: %v", err)
	}
}

// TestExternalCAs: what a CA without its key has signed is kept if it fits, and missed
// by name if not.
func TestExternalCAs(t *testing.T) {
	p := delivered(t)
	run(t, config(), p)
	for _, name := range []string{"ca.key", "front-proxy-ca.key", "etcd/ca.key"} {
		remove(t, p.PKI(name))
	}
	before := contents(t, p)
	run(t, config(), p)
	if !reflect.DeepEqual(before, contents(t, p)) {
		t.Error("what was provided is not kept")
	}
	remove(t, p.PKI("etcd/peer.crt"))
	cfg := config()
	cfg.Plan.Cluster.CertSANs = append(cfg.Plan.Cluster.CertSANs, "other.example.org")
	err := Run(context.Background(), cfg, p, phase.NewPrinter(io.Discard))
	for _, want := range []string{"; 2 do not fit:", "pki/apiserver.crt and .key: no subject alternative name other.example.org; ", "pki/etcd/peer.crt and .key: missing; ", "pki/etcd/ca.key is not here"} {
		if !phase.IsPermanent(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
	if _, err := os.Stat(p.PKI("etcd/peer.crt")); err == nil {
		t.Error("a certificate was issued without its CA's key")
	}
}

func TestExternalEtcd(t *testing.T) {
	p, cfg := delivered(t), config()
	remove(t, p.PKI("etcd/ca.key"))
	remove(t, p.PKI("etcd/ca.crt"))
	cfg.Plan.Cluster.Kubeadm.Etcd.External = &kubeadmapi.ExternalEtcd{Endpoints: []string{"https://etcd.example.org:2379"}}
	run(t, cfg, p)
	for _, name := range []string{"etcd/server.crt", "etcd/peer.crt", "etcd/healthcheck-client.crt", "apiserver-etcd-client.crt"} {
		if _, err := os.Stat(p.PKI(name)); err == nil {
			t.Errorf("%s was issued", name)
		}
	}
}

func TestNoKeyIsPrinted(t *testing.T) {
	p := delivered(t)
	var out bytes.Buffer
	if err := Run(context.Background(), config(), p, phase.NewPrinter(&out)); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "issuing "); n != 7 || strings.Contains(out.String(), "KEY") {
		t.Errorf("%d certificates issued:\n%s", n, &out)
	}
}

func TestSettings(t *testing.T) {
	p := delivered(t)
	if err := os.Rename(p.PKI(), p.At("/etc/certs")); err != nil {
		t.Fatal(err)
	}
	p.CertificatesDir = "/etc/certs"
	cfg := config()
	k := &cfg.Plan.Cluster.Kubeadm
	k.CertificatesDir = p.CertificatesDir
	k.CertificateValidityPeriod = &metav1.Duration{Duration: 48 * time.Hour}
	k.Etcd.Local = &kubeadmapi.LocalEtcd{ServerCertSANs: []string{"Server.example", "192.0.2.20"}, PeerCertSANs: []string{"peer.example"}}
	run(t, cfg, p)
	if _, err := os.Stat(p.At("/etc/kubernetes/pki")); !os.IsNotExist(err) {
		t.Errorf("the default folder is there too: %v", err)
	}
	for file, want := range map[string][]string{"etcd/server": {"server.example", "192.0.2.20"}, "etcd/peer": {"peer.example"}, "apiserver": nil} {
		data, err := os.ReadFile(p.PKI(file + ".crt"))
		if err != nil {
			t.Fatal(err)
		}
		cert, err := pki.ParseCertificate(data)
		if err != nil {
			t.Fatal(err)
		}
		if left := time.Until(cert.NotAfter); left > 48*time.Hour || left < 47*time.Hour {
			t.Errorf("%s lives another %s", file, left)
		}
		for _, name := range want {
			if err := cert.VerifyHostname(name); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
		if file == "etcd/peer" && cert.VerifyHostname("server.example") == nil {
			t.Error("etcd/peer has the server's names")
		}
	}
}
