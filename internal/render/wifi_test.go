package render

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/internal/testtools"
)

// TestNetworkKey: the vectors of IEEE 802.11, section J.4.2, and a key that is one.
func TestNetworkKey(t *testing.T) {
	for _, v := range [][3]string{
		{"IEEE", "password", "f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e"},
		{"ThisIsASSID", "ThisIsAPassword", "0dc0d6eb90555ed6419756b9a15ec3e3209b63df707dd508d14581f8982721af"},
		{"ZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZ", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "becb93866bb8c3832cb777c2f559807c8c59afcb6eae734885001300a981cc62"},
		{"any", strings.Repeat("0a", 32), strings.Repeat("0a", 32)},
	} {
		got, err := networkKey(spec.WiFi{SSID: v[0], Password: secret.FromString(v[1])})
		if err != nil || got.RevealString() != v[2] {
			t.Errorf("%s: %s, %v, want %s", v[0], got.RevealString(), err, v[2])
		}
	}
}

// TestWiFi has wpa_supplicant itself read its configuration.
func TestWiFi(t *testing.T) {
	c := cluster(t, func(c *spec.Cluster) {
		c.WiFi = spec.WiFi{Country: "DE", SSID: "Café \"1\"", Password: secret.FromString("correct \"horse\"")}
		c.Nodes[0].Interface.WiFi = true
	})
	_, config, found := render(t, c, 0)
	network := found["/etc/systemd/network/10-kiln.network"]
	if !strings.HasPrefix(network, "[Match]\nName=wlan0\n\n[Network]\nAddress=") {
		t.Errorf("network:\n%s", network)
	}
	const path = "/etc/wpa_supplicant/wpa_supplicant-wlan0.conf"
	for _, f := range config.Storage.Files {
		if f.Path == path && *f.Mode != 0o600 {
			t.Errorf("the key has mode %o", *f.Mode)
		}
	}
	name := filepath.Join(t.TempDir(), "wpa.conf")
	if err := os.WriteFile(name, []byte(found[path]), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := testtools.Command(t, "wpa_supplicant", "-dd", "-c", name, "-D", "none", "-i", "wlan0")
	out, err := cmd.CombinedOutput()
	if _, ended := err.(*exec.ExitError); !ended {
		t.Fatalf("%v\n%s", err, out) // there is no such interface
	}
	for _, want := range []string{"country='DE'", "ssid - hexdump_ascii(len=9)", "43 61 66 c3 a9 20 22 31 22", "key_mgmt: 0x2", "PSK - hexdump(len=32)"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("wpa_supplicant does not say %q:\n%s", want, out)
		}
	}
	if strings.Contains(string(out), "Failed to read or parse") {
		t.Errorf("wpa_supplicant complains:\n%s", out)
	}
}
