package spec

import (
	"fmt"
	"strings"
	"testing"
)

const onWiFi = head + `nodes:
- name: kiln-1
  role: control-plane
  profile: rpi-4
  address: 10.0.2.15/24
  gateway: 10.0.2.2
  interface: {wifi: true}
`

var wifiKnown = Known{Profiles: []string{"qemu-amd64", "rpi-4"}, WiFi: []string{"rpi-4"}, Versions: []string{"v1.37.2"}}

func TestWiFi(t *testing.T) {
	c, list := Parse("cluster.yaml", []byte(onWiFi+"wifi: {country: DE, ssid: Café, password: 12345678}\n"), wifiKnown)
	if len(list) > 0 {
		t.Fatal(list)
	}
	if w := c.WiFi; w.Country != "DE" || w.SSID != "Café" || w.Password.RevealString() != "12345678" || !c.Nodes[0].Interface.WiFi {
		t.Errorf("%+v", c)
	}
	if _, list := Parse("cluster.yaml", []byte(onWiFi+"wifi: {country: DE, ssid: a, password: "+strings.Repeat("0a", 32)+"}\n"), wifiKnown); len(list) > 0 {
		t.Error(list)
	}
}

func TestWiFiMistakes(t *testing.T) {
	// Whatever is wrong, the password is not shown.
	const secret = "correct horse"
	for name, tc := range map[string]struct{ file, path, want string }{
		"no network":      {onWiFi, "nodes[0].interface.wifi", "names no wireless network"},
		"no user":         {minimal + "wifi: {country: DE, ssid: a, password: " + secret + "}\n", "wifi", "no node uses"},
		"no Wi-Fi":        {strings.Replace(onWiFi, "rpi-4", "qemu-amd64", 1) + "wifi: {country: DE, ssid: a, password: " + secret + "}\n", "nodes[0].interface.wifi", "have no Wi-Fi"},
		"two interfaces":  {strings.Replace(onWiFi, "wifi: true", "wifi: true, name: eth0", 1) + "wifi: {country: DE, ssid: a, password: " + secret + "}\n", "nodes[0].interface.name", "one wireless interface"},
		"country":         {onWiFi + "wifi: {country: de, password: " + secret + ", ssid: a}\n", "wifi.country", `"de" is not the code`},
		"no country":      {onWiFi + "wifi: {password: " + secret + ", ssid: a}\n", "wifi.country", "is missing"},
		"long name":       {onWiFi + "wifi: {country: DE, password: " + secret + ", ssid: " + strings.Repeat("é", 17) + "}\n", "wifi.ssid", "34 bytes"},
		"short password":  {onWiFi + "wifi: {country: DE, ssid: a, password: horse}\n", "wifi.password", "is no password of WPA2"},
		"umlaut":          {onWiFi + "wifi:\n  country: DE\n  ssid: a\n  password: hörse horse\n", "wifi.password", "is no password of WPA2"},
		"no password":     {onWiFi + "wifi: {country: DE, ssid: a}\n", "wifi.password", "is missing"},
		"list":            {onWiFi + "wifi:\n  country: DE\n  ssid: a\n  password: [" + secret + "]\n", "wifi.password", "is a list, not a password"},
		"unknown key":     {onWiFi + "wifi: {country: DE, ssid: a, password: " + secret + ", band: 5}\n", "wifi.band", "unknown"},
		"not even YAML":   {onWiFi + "wifi:\n  country: DE\n  password: " + secret + ": x\n", "", ""},
		"under a scalar":  {onWiFi + "wifi:\n  country: DE\n  \"password\" : " + secret + "\n   ssid: a\n", "", ""},
		"password of all": {onWiFi + "password: " + secret + "\nwifi: {country: DE, ssid: a, password: " + secret + "}\n", "password", "unknown"},
	} {
		_, list := Parse("cluster.yaml", []byte(tc.file), wifiKnown)
		found := tc.path == "" && len(list) > 0
		for _, m := range list {
			found = found || m.Path == tc.path && strings.Contains(m.Message, tc.want)
		}
		if !found {
			t.Errorf("%s: no mistake at %s that says %q: %v", name, tc.path, tc.want, list)
		}
		if text := fmt.Sprintf("%+v", list); strings.Contains(text, "horse") {
			t.Errorf("%s: the password is shown: %s", name, text)
		}
	}
}
