package userdata

import (
	"net/netip"
	"strings"
)

// ResolvConf returns the resolv.conf(5) of what networkd says of the network in
// /run/systemd/netif/state; "" if it has no name server yet.
func ResolvConf(state []byte) string {
	var b strings.Builder
	for _, l := range strings.Split(string(state), "\n") {
		servers, ok := strings.CutPrefix(l, "DNS=")
		if !ok {
			continue
		}
		for _, s := range strings.Fields(servers) {
			if _, err := netip.ParseAddr(s); err == nil {
				b.WriteString("nameserver " + s + "\n")
			}
		}
	}
	return b.String()
}
