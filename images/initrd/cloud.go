package initrd

import "github.com/kiln-os/kiln/images/tree"

// What the initramfs of a cloud has on top: the network, for user data.

var cloudPrograms = []string{"usr/lib/systemd/systemd-networkd", "usr/bin/networkctl"}

var cloudUnitNames = []string{"systemd-networkd.service", "systemd-networkd.socket", "network-pre.target"}

var cloudRules = []string{"75-net-description.rules"}

// cloudModules are those of DHCP's sockets and of config drives; the profile names
// the drivers.
var cloudModules = []string{"af_packet", "isofs", "cdrom", "sr_mod"}

// certificates are what Ignition trusts in when a config names sources of HTTPS.
const certificates = "etc/ssl/certs/ca-certificates.crt"

// cloud adds the program that asks for user data, and what it needs besides programs.
func (b *builder) cloud(asker tree.Content) {
	b.out.Set("usr/lib/kiln/userdata", &tree.Entry{Type: tree.File, Mode: 0o755, Content: asker})
	b.copy(certificates)
}
