// Package host is the one place that names files, units and tools of the running
// machine. Root is "/" on a node and a temporary folder in tests.
package host

import (
	"cmp"
	"path/filepath"

	"github.com/kiln-os/kiln/internal/userdata"
)

// Paths names the files of a node below Root.
type Paths struct {
	Root string
	// CertificatesDir and EtcdDataDir are absolute paths on the node; "" means
	// kubeadm's defaults.
	CertificatesDir, EtcdDataDir string
}

func (p Paths) at(s string) string { return filepath.Join(p.Root, s) }

// At is any other absolute path of the node.
func (p Paths) At(s string) string { return p.at(s) }

// BootPlan is the plan that Ignition delivered.
func (p Paths) BootPlan() string { return p.at("/etc/kiln/boot.yaml") }

// Machines is the table of an image that several machines share.
func (p Paths) Machines() string { return p.at("/etc/kiln/machines.yaml") }

// NetworkFile is where Ignition wrote the node's network settings, see systemd.network(5).
func (p Paths) NetworkFile() string { return p.at("/etc/systemd/network/10-kiln.network") }

// PlatformName has the name that the platform has given the machine, if it has given one.
func (p Paths) PlatformName() string { return p.at(userdata.NameFile) }

// Record is firstboot's durable record of finished phases.
func (p Paths) Record() string { return p.at("/var/lib/kiln/firstboot.json") }

// Done exists once the record is complete; firstboot.service is not started then.
func (p Paths) Done() string { return p.at("/var/lib/kiln/firstboot.done") }

// Reset exists while a reset of the node is under way.
func (p Paths) Reset() string { return p.at("/var/lib/kiln/reset.json") }

// BootPartition is the device with the node's stamp.
func (p Paths) BootPartition() string { return p.at("/dev/disk/by-partlabel/kiln-esp") }

// Issue is what the login screen shows of firstboot, see issue(5). It is below /etc
// because it outlives a reboot, after which firstboot does not run.
func (p Paths) Issue() string { return p.at("/etc/issue.d/kiln.issue") }

// LoginReload is the file that agetty watches: when it is touched, login screens
// at which nobody has logged in are drawn again. It exists if an agetty runs.
func (p Paths) LoginReload() string { return p.at("/run/agetty.reload") }

// PKI is kubeadm's certificatesDir; with names, a file in it.
func (p Paths) PKI(names ...string) string {
	return filepath.Join(append([]string{p.at(cmp.Or(p.CertificatesDir, "/etc/kubernetes/pki"))}, names...)...)
}

// Kubeconfig is /etc/kubernetes/<name>, such as admin.conf.
func (p Paths) Kubeconfig(name string) string { return p.at("/etc/kubernetes/" + name) }

// Manifests is the kubelet's static pod folder.
func (p Paths) Manifests() string { return p.at("/etc/kubernetes/manifests") }

// Kubelet is the kubelet's state folder; with names, a file in it.
func (p Paths) Kubelet(names ...string) string {
	return filepath.Join(append([]string{p.at("/var/lib/kubelet")}, names...)...)
}

// EtcdData is etcd's data folder.
func (p Paths) EtcdData() string { return p.at(cmp.Or(p.EtcdDataDir, "/var/lib/etcd")) }

// Join is the folder (0700) of what a joining node learned of its cluster; with names,
// a file in it.
func (p Paths) Join(names ...string) string {
	return filepath.Join(append([]string{p.at("/var/lib/kiln/join")}, names...)...)
}

// Images holds the baked container images, one OCI layout with all of them.
func (p Paths) Images() string { return p.at("/usr/share/kiln/images") }

// Containerd is the socket of the container runtime.
func (p Paths) Containerd() string { return p.at("/run/containerd/containerd.sock") }

// ResolvConf is the resolver file of systemd-resolved with the real name servers.
func (p Paths) ResolvConf() string { return p.at("/run/systemd/resolve/resolv.conf") }

// ContainerdState is where containerd keeps images and snapshots.
func (p Paths) ContainerdState() string { return p.at("/var/lib/containerd") }
