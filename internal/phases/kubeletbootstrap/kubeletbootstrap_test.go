package kubeletbootstrap

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/pki"
)

// TestWriteCA: a worker gets the cluster's CA, a control plane must have it.
func TestWriteCA(t *testing.T) {
	row, err := pki.CertificateFor("ca")
	if err != nil {
		t.Fatal(err)
	}
	ca, err := pki.NewCA(row, pki.ECDSAP256, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	other, err := pki.NewCA(row, pki.ECDSAP256, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	p := host.Paths{Root: t.TempDir()}
	for range 2 {
		if err := writeCA(p, ca.CertPEM); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(p.PKI("ca.crt")); err != nil || string(got) != string(ca.CertPEM) {
		t.Errorf("%s, %v", got, err)
	}
	err = writeCA(p, other.CertPEM)
	if !phase.IsPermanent(err) || !strings.Contains(err.Error(), "this node was made for another cluster") {
		t.Errorf("another cluster: %v", err)
	}
	if got, _ := os.ReadFile(p.PKI("ca.crt")); string(got) != string(ca.CertPEM) {
		t.Error("ca.crt was replaced")
	}
	if err := os.WriteFile(p.PKI("ca.crt"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := writeCA(p, ca.CertPEM); !phase.IsPermanent(err) || !strings.Contains(err.Error(), "ca.crt") {
		t.Errorf("a damaged ca.crt: %v", err)
	}
}
