package kubeconfig

import (
	"context"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/pki"
)

func config() nodeconfig.Config {
	return nodeconfig.Config{
		Plan: bootplan.Plan{Cluster: bootplan.Cluster{
			Name: "demo", ControlPlaneEndpoint: "api.example", EncryptionAlgorithm: "ECDSA-P256",
		}},
		NodeName: "kiln-1", AdvertiseAddress: netip.MustParseAddr("10.0.2.15"),
	}
}

func delivered(t *testing.T) host.Paths {
	t.Helper()
	p := host.Paths{Root: t.TempDir()}
	row, err := pki.CertificateFor("ca")
	if err != nil {
		t.Fatal(err)
	}
	ca, err := pki.NewCA(row, pki.ECDSAP256, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(p.PKI(), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"ca.crt": ca.CertPEM, "ca.key": ca.KeyPEM.Reveal()} {
		if err := os.WriteFile(p.PKI(name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func run(t *testing.T, cfg nodeconfig.Config, p host.Paths) {
	t.Helper()
	if err := Run(context.Background(), cfg, p, phase.NewPrinter(io.Discard)); err != nil {
		t.Fatal(err)
	}
}

func TestFiles(t *testing.T) {
	p := delivered(t)
	run(t, config(), p)
	const shared, local = "https://api.example:6443", "https://10.0.2.15:6443"
	for _, c := range []struct {
		file, user, server string
		groups             []string
	}{
		{"admin.conf", "kubernetes-admin", shared, []string{"kubeadm:cluster-admins"}},
		{"super-admin.conf", "kubernetes-super-admin", shared, []string{"system:masters"}},
		{"kubelet.conf", "system:node:kiln-1", local, []string{"system:nodes"}},
		{"controller-manager.conf", "system:kube-controller-manager", local, nil},
		{"scheduler.conf", "system:kube-scheduler", local, nil},
	} {
		conf, err := clientcmd.LoadFromFile(p.Kubeconfig(c.file))
		if err != nil {
			t.Fatal(err)
		}
		if conf.CurrentContext != c.user+"@demo" || conf.Clusters["demo"].Server != c.server {
			t.Errorf("%s: context %s, server %s", c.file, conf.CurrentContext, conf.Clusters["demo"].Server)
		}
		cert, err := pki.ParseCertificate(conf.AuthInfos[c.user].ClientCertificateData)
		if err != nil {
			t.Fatal(err)
		}
		if cert.Subject.CommonName != c.user || !slices.Equal(cert.Subject.Organization, c.groups) {
			t.Errorf("%s: subject %s", c.file, cert.Subject)
		}
		if st, err := os.Stat(p.Kubeconfig(c.file)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v", c.file, st.Mode())
		}
	}
	if all, _ := filepath.Glob(p.Kubeconfig("*.conf")); len(all) != 5 {
		t.Errorf("files: %v", all)
	}
}

// TestJoining: a control plane that joins gets no super-admin.conf, and its kubelet asks
// for its own certificate.
func TestJoining(t *testing.T) {
	p, cfg := delivered(t), config()
	cfg.Plan.Role = bootplan.RoleJoinControlPlane
	run(t, cfg, p)
	all, err := filepath.Glob(p.Kubeconfig("*.conf"))
	for i := range all {
		all[i] = filepath.Base(all[i])
	}
	if want := []string{"admin.conf", "controller-manager.conf", "scheduler.conf"}; err != nil || !slices.Equal(all, want) {
		t.Errorf("files %v, want %v", all, want)
	}
}

// TestExternalCA: without ca.key all files must be there; they may name any server.
func TestExternalCA(t *testing.T) {
	p, cfg := delivered(t), config()
	run(t, cfg, p)
	if err := os.Remove(p.PKI("ca.key")); err != nil {
		t.Fatal(err)
	}
	cfg.Plan.Cluster.ControlPlaneEndpoint = "other.example:6443"
	run(t, cfg, p)
	for _, name := range []string{"super-admin.conf", "scheduler.conf"} {
		if err := os.Remove(p.Kubeconfig(name)); err != nil {
			t.Fatal(err)
		}
	}
	err := Run(context.Background(), cfg, p, phase.NewPrinter(io.Discard))
	for _, want := range []string{"ca.key is not here", "; 2 do not fit:", "super-admin.conf: missing", "scheduler.conf: missing"} {
		if !phase.IsPermanent(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}

func TestKeepsWhatFits(t *testing.T) {
	p := delivered(t)
	run(t, config(), p)
	read := func(name string) string {
		b, err := os.ReadFile(p.Kubeconfig(name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	admin, kubelet, scheduler := read("admin.conf"), read("kubelet.conf"), read("scheduler.conf")
	run(t, config(), p)
	if read("admin.conf") != admin || read("kubelet.conf") != kubelet {
		t.Error("a second run made other files")
	}

	// The kubelet replaces the certificate in its file by a reference to one it renews.
	conf, err := clientcmd.Load([]byte(kubelet))
	if err != nil {
		t.Fatal(err)
	}
	u := conf.AuthInfos["system:node:kiln-1"]
	u.ClientCertificateData, u.ClientKeyData = nil, nil
	u.ClientCertificate, u.ClientKey = "/var/lib/kubelet/pki/kubelet-client-current.pem", "/var/lib/kubelet/pki/kubelet-client-current.pem"
	if err := clientcmd.WriteToFile(*conf, p.Kubeconfig("kubelet.conf")); err != nil {
		t.Fatal(err)
	}
	kubelet = read("kubelet.conf")

	cfg := config()
	cfg.Plan.Cluster.ControlPlaneEndpoint = "other.example"
	run(t, cfg, p)
	if read("kubelet.conf") != kubelet || read("scheduler.conf") != scheduler {
		t.Error("files that name the node itself changed with the shared endpoint")
	}
	if !strings.Contains(read("admin.conf"), "https://other.example:6443") {
		t.Error("admin.conf still names the old endpoint")
	}
	if err := os.WriteFile(p.Kubeconfig("scheduler.conf"), []byte(scheduler[:200]), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, cfg, p)
	if _, err := clientcmd.Load([]byte(read("scheduler.conf"))); err != nil {
		t.Errorf("half a file was kept: %v", err)
	}
}

func TestOtherCA(t *testing.T) {
	p := delivered(t)
	run(t, config(), p)
	other := delivered(t)
	if err := os.Rename(other.PKI(), p.PKI()+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(p.PKI()); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(p.PKI()+".new", p.PKI()); err != nil {
		t.Fatal(err)
	}
	run(t, config(), p)
	ca, err := os.ReadFile(p.PKI("ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	conf, err := clientcmd.LoadFromFile(p.Kubeconfig("admin.conf"))
	if err != nil {
		t.Fatal(err)
	}
	if string(conf.Clusters["demo"].CertificateAuthorityData) != string(ca) {
		t.Error("admin.conf trusts the old CA")
	}
	if err := pki.CheckChain(conf.AuthInfos["kubernetes-admin"].ClientCertificateData, ca, time.Now()); err != nil {
		t.Error(err)
	}
}

func TestCertificateValidity(t *testing.T) {
	p, cfg := delivered(t), config()
	cfg.Plan.Cluster.Kubeadm.CertificateValidityPeriod = &metav1.Duration{Duration: 48 * time.Hour}
	run(t, cfg, p)
	conf, err := clientcmd.LoadFromFile(p.Kubeconfig("admin.conf"))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pki.ParseCertificate(conf.AuthInfos["kubernetes-admin"].ClientCertificateData)
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(cert.NotAfter); left > 48*time.Hour || left < 47*time.Hour {
		t.Errorf("it lives another %s", left)
	}
}
