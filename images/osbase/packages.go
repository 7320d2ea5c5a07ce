// Package osbase composes a node's operating system out of Debian packages: which
// packages, what is left out of them, what their maintainer scripts would have
// done (as data, no script is run), Kiln's units and the payload. The result is
// one tree: /usr, with /etc's defaults under /usr/share/factory/etc.
package osbase

// Packages are the roots of the closure that every node has. The kernel comes on
// top, from the profile.
var Packages = []string{
	// The core: Essential packages without dpkg and perl.
	"base-files", "base-passwd", "bash", "coreutils", "dash", "debianutils", "findutils", "grep",
	"gzip", "hostname", "libc-bin", "mawk", "sed", "tar", "util-linux",
	// Accounts and logins.
	"login", "login.defs", "passwd", "libpam-modules", "libpam-runtime", "openssh-server", "openssh-client",
	// The system manager and its companions.
	"systemd", "systemd-sysv", "udev", "dbus", "systemd-resolved", "systemd-timesyncd",
	"systemd-repart", "systemd-cryptsetup", "kmod", "procps",
	// Disks: what systemd-repart, Ignition and the kubelet call.
	"mount", "e2fsprogs", "dosfstools", "fdisk", "gdisk", "cryptsetup-bin", "dmsetup", "libcryptsetup12",
	// Network: what kube-proxy, flannel and the CNI plugins call, and an operator's first tools.
	"iproute2", "iputils-ping", "nftables", "iptables", "ethtool", "conntrack", "netbase",
	// The virtual IP address of clusters that have one, and what asks the API server for it.
	"keepalived", "openssl",
	// Containers.
	"runc", "ca-certificates",
	// The configuration of the first boot.
	"ignition",
	// Libraries that systemd opens by name at run time, and what udev's rules call.
	"libkmod2", "libip4tc2", "libseccomp2", "libzstd1", "liblz4-1", "liblzma5", "libidn2-0",
	"less", "tzdata",
}

// ZramPackage makes the swap space of nodes that swap to memory, as its configuration says,
// which is in units/zram.
const ZramPackage = "systemd-zram-generator"

// Excluded packages are never part of a node: nothing runs maintainer scripts,
// builds an initramfs or installs packages there. A dependency on one counts as met.
var Excluded = []string{
	"adduser", "apt", "cpio", "cpp", "debconf", "debconf-2.0", "dpkg", "dracut", "dracut-install",
	"init-system-helpers", "initramfs-tools", "initramfs-tools-bin", "initramfs-tools-core",
	"klibc-utils", "libklibc", "libdebconfclient0", "libtext-charwidth-perl", "libtext-wrapi18n-perl",
	"linux-base", "linux-initramfs-tool", "lsb-base", "perl", "perl-base", "runit-helper",
	"sensible-utils", "sysvinit-utils", "ucf", "bsdutils", "ncurses-bin", "ncurses-base", "diffutils",
	// keepalived's SNMP agent, which is off, is linked with libsnmp, and that with Perl's
	// library: these are their data, and libraries of modules that nothing loads.
	"libsnmp-base", "libsensors-config", "pci.ids", "libgdbm6t64", "libgdbm-compat4t64",
}

// Preferred decides which package meets a virtual dependency.
var Preferred = map[string]string{
	"awk":                           "mawk",
	"default-dbus-system-bus":       "dbus",
	"dbus-system-bus":               "dbus",
	"default-logind":                "systemd",
	"logind":                        "systemd",
	"systemd-standalone-sysusers":   "systemd",
	"systemd-sysusers":              "systemd",
	"systemd-tmpfiles":              "systemd",
	"systemd-standalone-tmpfiles":   "systemd",
	"iptables":                      "iptables",
	"time-daemon":                   "systemd-timesyncd",
	"mount":                         "mount",
	"linux-image-generic":           "",
	"default-dbus-session-bus":      "dbus",
	"dbus-session-bus":              "dbus",
	"resolvconf":                    "systemd-resolved",
	"libc-bin":                      "libc-bin",
	"c-shell":                       "bash",
	"systemd-standalone-shutdown":   "systemd",
	"cron-daemon":                   "",
	"libpam-systemd":                "",
	"kmod":                          "kmod",
	"update-inetd":                  "",
	"libcryptsetup-token-providers": "",
}
