package certupload

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"os"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/internal/nodetest"
	"github.com/kiln-os/kiln/internal/secret"
)

func TestEncryptAll(t *testing.T) {
	paths := host.Paths{Root: t.TempDir()}
	if err := nodetest.Deliver(nodetest.Config(), paths); err != nil {
		t.Fatal(err)
	}
	text, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	key, err := ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	data, err := encryptAll(paths, nil, key)
	if err != nil || len(data) != 8 {
		t.Fatalf("%d files, %v", len(data), err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	// As kubeadm decrypts: twelve bytes of nonce stand before the rest.
	for name, sealed := range data {
		plain, err := gcm.Open(nil, sealed[:12], sealed[12:], nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want, err := os.ReadFile(paths.PKI(strings.Replace(name, "etcd-", "etcd/", 1)))
		if err != nil || !bytes.Equal(plain, want) {
			t.Errorf("%s is another file: %v", name, err)
		}
	}
	external := &kubeadmapi.ExternalEtcd{CAFile: "/etc/e/ca.crt", CertFile: "/etc/e/c.crt", KeyFile: "/etc/e/c.key"}
	if data, err = encryptAll(paths, external, key); err != nil || len(data) != 9 || len(data["external-etcd.key"]) != 0 || data["etcd-ca.key"] != nil {
		t.Errorf("%d files, %v", len(data), err)
	}
	if err := os.Remove(paths.PKI("front-proxy-ca.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := encryptAll(paths, nil, key); err == nil || !strings.Contains(err.Error(), "kept elsewhere") {
		t.Errorf("without a CA's key: %v", err)
	}
}

func TestParseKey(t *testing.T) {
	for _, bad := range []string{"", "geheim", strings.Repeat("0", 63), strings.Repeat("0", 66), strings.Repeat("g", 64)} {
		if _, err := ParseKey(secret.FromString(bad)); err == nil || bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
