package spec

import (
	"regexp"
	"slices"
	"strings"

	"github.com/kiln-os/kiln/internal/diag"
)

var (
	country = regexp.MustCompile(`^[A-Z]{2}$`)
	hexKey  = regexp.MustCompile(`^[0-9a-fA-F]{64}$`)
)

// wifi checks the wireless network and the nodes that use it. No message quotes the
// password.
func (v *validator) wifi() {
	p := diag.Path{"wifi"}
	var users []diag.Path
	for i, n := range v.c.Nodes {
		if !n.Interface.WiFi {
			continue
		}
		q := diag.Path{"nodes", i, "interface"}
		users = append(users, q.Child("wifi"))
		if slices.Contains(v.known.Profiles, n.Profile) && !slices.Contains(v.known.WiFi, n.Profile) {
			v.bad(q.Child("wifi"), "want a profile with Wi-Fi: "+strings.Join(v.known.WiFi, ", "), "machines of the profile %s have no Wi-Fi that Kiln drives", n.Profile)
		}
		if n.Interface.Name != "" {
			v.bad(q.Child("name"), "remove it, or wifi", "a node that uses Wi-Fi has one wireless interface, wlan0")
		}
	}
	if !v.has(p) {
		if len(users) > 0 {
			v.bad(users[0], "add wifi with country, ssid and password", "the file names no wireless network")
		}
		return
	}
	if len(users) == 0 && len(v.c.Nodes) > 0 {
		v.bad(p, "set interface.wifi: true of those that do, or remove it", "no node uses the wireless network")
	}
	w := v.c.WiFi
	if q := p.Child("country"); v.required(q, "want where the nodes are, such as DE or US: it decides the channels that they may use") && !country.MatchString(w.Country) {
		v.bad(q, "want two capital letters, such as DE or US", "%q is not the code of a country", w.Country)
	}
	if q := p.Child("ssid"); v.required(q, "want the name of the network") && (w.SSID == "" || len(w.SSID) > 32) {
		v.bad(q, "want 1 to 32 bytes", "the name has %d bytes", len(w.SSID))
	}
	if q := p.Child("password"); v.required(q, "want the network's WPA2 password") && !validPassword(w.Password.RevealString()) {
		v.bad(q, "want 8 to 63 characters of ASCII, or a key of 64 hexadecimal digits", "is no password of WPA2")
	}
}

// validPassword: IEEE 802.11, section J.4.
func validPassword(s string) bool {
	if len(s) < 8 || len(s) > 63 {
		return hexKey.MatchString(s)
	}
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}
