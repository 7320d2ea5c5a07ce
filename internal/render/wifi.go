package render

import (
	"crypto/pbkdf2"
	"crypto/sha1"
	"encoding/hex"
	"fmt"

	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/internal/spec"
)

// wlan is the wireless interface of a node that has one.
const wlan = "wlan0"

// wifiFiles are what brings a node into the wireless network: wpa_supplicant's
// configuration, and drop-ins that start it for the interface, again if it ends.
func wifiFiles(w spec.WiFi) ([]entry, error) {
	key, err := networkKey(w)
	if err != nil {
		return nil, err
	}
	// Name and key in hexadecimal: nothing in them needs quoting. scan_ssid finds
	// networks that hide their name.
	conf := fmt.Sprintf("ctrl_interface=/run/wpa_supplicant\ncountry=%s\nnetwork={\n\tssid=%x\n\tscan_ssid=1\n\tkey_mgmt=WPA-PSK\n\tpsk=%s\n}\n", w.Country, w.SSID, key.RevealString())
	return []entry{
		file("/etc/wpa_supplicant/wpa_supplicant-"+wlan+".conf", 0o600, secret.FromString(conf)),
		textFile("/etc/systemd/system/multi-user.target.d/10-kiln-wifi.conf", "[Unit]\nWants=wpa_supplicant@"+wlan+".service\n"),
		textFile("/etc/systemd/system/wpa_supplicant@"+wlan+".service.d/10-kiln.conf", "[Unit]\nStartLimitIntervalSec=0\n\n[Service]\nRestart=always\nRestartSec=5\n"),
	}, nil
}

// networkKey is the key of WPA2 that a password stands for, in hexadecimal (IEEE
// 802.11, section J.4).
func networkKey(w spec.WiFi) (secret.Value, error) {
	const digits = 64
	password := w.Password.RevealString()
	if len(password) == digits {
		return w.Password, nil
	}
	key, err := pbkdf2.Key(sha1.New, password, []byte(w.SSID), 4096, digits/2)
	if err != nil {
		return secret.Value{}, fmt.Errorf("key of the wireless network: %w", err)
	}
	return secret.FromString(hex.EncodeToString(key)), nil
}
