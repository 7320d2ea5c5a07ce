package discovery

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/cluster-bootstrap/token/jws"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/pki"
)

// TestClockBehind: a server whose certificate is from the future tells how late it is
// at least, but only with a certificate of the CA that has the pin.
func TestClockBehind(t *testing.T) {
	row, err := pki.CertificateFor("ca")
	if err != nil {
		t.Fatal(err)
	}
	ahead := time.Now().Add(48 * time.Hour).UTC().Truncate(time.Second)
	newCA := func(at time.Time) *pki.CA {
		ca, err := pki.NewCA(row, pki.ECDSAP256, at)
		if err != nil {
			t.Fatal(err)
		}
		return ca
	}
	server, err := pki.CertificateFor("apiserver")
	if err != nil {
		t.Fatal(err)
	}
	loopback := netip.MustParseAddr("127.0.0.1")
	spec, err := server.Leaf(pki.SANInput{NodeName: "n", AdvertiseAddress: loopback, APIServiceIP: loopback, DNSDomain: "cluster.local"})
	if err != nil {
		t.Fatal(err)
	}
	own := newCA(time.Now())
	for name, tc := range map[string]struct {
		published, signer *pki.CA
		at                time.Time
		floor             time.Time // zero if the clock is not to be moved
		ok                bool
	}{
		"right":                {own, own, time.Now(), time.Time{}, true},
		"server of the future": {own, own, ahead, ahead.Add(-pki.LeafBackdate), false},
		"somebody in between":  {own, newCA(time.Now()), ahead, time.Time{}, false},
		"expired":              {own, own, time.Now().Add(-2 * pki.LeafValidity), time.Time{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			cert, key, err := tc.signer.Issue(spec, pki.ECDSAP256, tc.at)
			if err != nil {
				t.Fatal(err)
			}
			pair, err := tls.X509KeyPair(cert, key.Reveal())
			if err != nil {
				t.Fatal(err)
			}
			s := httptest.NewUnstartedServer(nil)
			info, err := clientcmd.Write(clientcmdapi.Config{Clusters: map[string]*clientcmdapi.Cluster{"": {Server: "https://api.example.org:6443", CertificateAuthorityData: tc.published.CertPEM}}})
			if err != nil {
				t.Fatal(err)
			}
			sig, err := jws.ComputeDetachedSignature(string(info), token.ID, token.Secret.RevealString())
			if err != nil {
				t.Fatal(err)
			}
			s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				cm := corev1.ConfigMap{Data: map[string]string{"kubeconfig": string(info), "jws-kubeconfig-" + token.ID: sig}}
				cm.Kind, cm.APIVersion = "ConfigMap", "v1"
				_ = json.NewEncoder(w).Encode(cm) // a client that verifies may have gone
			})
			s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
			s.StartTLS()
			defer s.Close()
			pin, err := pki.CAPin(tc.published.CertPEM)
			if err != nil {
				t.Fatal(err)
			}
			found, err := ByToken(context.Background(), bootplan.Discovery{Endpoint: s.Listener.Addr().String(), CACertHashes: []string{pin}}, token, "kiln", time.Now())
			if (err == nil) != tc.ok || tc.ok && found.Server != "https://api.example.org:6443" {
				t.Fatalf("%+v, %v", found, err)
			}
			clock := new(ClockError)
			if errors.As(err, &clock) != !tc.floor.IsZero() || !tc.floor.IsZero() && !clock.Floor.Equal(tc.floor) {
				t.Errorf("clock %v, want %v; error %v", clock.Floor, tc.floor, err)
			}
		})
	}
}
