// Package keepalived writes the configuration with which keepalived, as Debian
// packages it, gives a cluster's API servers one virtual IP address: VRRP decides
// which control plane holds it (RFC 5798).
//
// The unit kiln-virtual-ip.service runs keepalived with it; the image brings the
// unit and the two scripts that the configuration refers to.
package keepalived

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/kiln-os/kiln/internal/bootplan"
)

// Path is where the node has the configuration. Without it the unit does nothing.
const Path = "/etc/kiln/keepalived.conf"

// healthy is the priority of every node whose API server is ready. That it is the
// same for all keeps the address where it is: a node that comes back has no better
// claim than the one that took over, and every move breaks all connections.
const healthy = 200

// Config is what one control plane has to know.
type Config struct {
	VirtualIP netip.Addr
	// RouterID tells it from other virtual addresses in the network, 1 to 255.
	RouterID int
	NodeName string
	// Address is the node's own, at which its API server answers.
	Address netip.Addr
	// Rank is the node's place among the control planes; the one that creates the
	// cluster has 0.
	Rank int
}

// Marshal renders the configuration. Same input, same bytes.
func (c Config) Marshal() []byte {
	var b strings.Builder
	line := func(format string, a ...any) { fmt.Fprintf(&b, format+"\n", a...) }
	line("# keepalived.conf(5), written by imagegen.")
	line("$NODE_ADDRESS=%s", c.Address)
	line("# The script virtual-ip-interface writes $INTERFACE at each start.")
	line("includea /run/kiln-virtual-ip/interface.conf")
	line("")
	line("global_defs {")
	line("    router_id %s", c.NodeName)
	line("    vrrp_version 3")
	// A node that is too busy to advertise in time loses the address: then keepalived
	// may go first.
	line("    max_auto_priority 50")
	line("    enable_script_security")
	line("    script_user nobody nogroup")
	line("}")
	line("")
	// Until the API server is ready for the first time it counts as failed. A failed
	// node is no candidate as long as there is a better one, but it is better than
	// none: with nobody ready, as before the cluster exists, the address is where the
	// cluster will be created.
	priority := max(1, 100-c.Rank)
	line("vrrp_script api_server {")
	// Script security wants no link on the way to a program, as /bin/sh is one.
	line("    script \"/usr/bin/dash /usr/lib/kiln/api-server-ready %s\"", c.server())
	line("    interval 3")
	line("    timeout 10")
	line("    fall 3")
	line("    rise 2")
	line("    weight %d", healthy-priority)
	line("    init_fail")
	line("}")
	line("")
	line("vrrp_instance api_server {")
	line("    state BACKUP")
	line("    interface $INTERFACE")
	line("    virtual_router_id %d", c.RouterID)
	line("    priority %d", priority)
	line("    advert_int 1")
	// When the holder is gone, two others of the same priority both take the address in
	// the same moment, and the one that gives it up again may have been the last that
	// told the network. The one that stays tells it again after a second, not after five.
	line("    garp_master_delay 1")
	line("    virtual_ipaddress {")
	// Of its full length it makes no route, so the kernel takes it for the source of no
	// IPv4 connection; an IPv6 address of that length keepalived makes a deprecated one,
	// which is not taken either.
	line("        %s/%d", c.VirtualIP, c.VirtualIP.BitLen())
	line("    }")
	line("    track_script {")
	line("        api_server")
	line("    }")
	line("}")
	return []byte(b.String())
}

// server is where the node's API server answers.
func (c Config) server() string {
	host := "${NODE_ADDRESS}"
	if c.Address.Is6() {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(bootplan.DefaultAPIPort)
}
