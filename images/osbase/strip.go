package osbase

import (
	"path"
	"strings"

	"github.com/kiln-os/kiln/images/tree"
)

// dropped are paths that no node needs: documentation, translations, the tools of
// package management and of initramfs building, and data that systemd would
// compile at boot. Each line says why it may go.
var dropped = []string{
	// Read by people on their workstations.
	"usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/lintian", "usr/share/bug",
	"usr/share/common-licenses", "usr/share/doc-base", "usr/share/gtk-doc", "usr/share/linda",
	// Translations; C.UTF-8 is built into libc.
	"usr/share/locale", "usr/share/i18n", "usr/lib/locale",
	// Shell conveniences.
	"usr/share/bash-completion", "usr/share/zsh", "usr/share/fish", "usr/share/vim", "usr/share/gdb",
	// No package manager, no initramfs builder, no System V init.
	"usr/share/initramfs-tools", "usr/share/perl5", "usr/share/debconf", "usr/share/apport", "usr/share/gcc",
	"etc/apt", "etc/dpkg", "etc/initramfs-tools", "etc/kernel", "etc/cron.d", "etc/cron.daily", "etc/cron.weekly",
	"etc/logrotate.d", "etc/init.d", "etc/rc0.d", "etc/rc1.d", "etc/rc2.d", "etc/rc3.d", "etc/rc4.d", "etc/rc5.d",
	"etc/rc6.d", "etc/rcS.d", "etc/runit", "etc/sv", "etc/ufw", "etc/update-motd.d", "etc/dhcp", "etc/network",
	"usr/lib/kernel", "usr/lib/dracut", "usr/share/libc-bin",
	// Generators of things a node does not have; each costs a process at every boot.
	"usr/lib/systemd/system-generators/systemd-sysv-generator",
	"usr/lib/systemd/system-generators/systemd-rc-local-generator",
	"usr/lib/systemd/system-generators/systemd-ssh-generator",
	"usr/lib/systemd/system-generators/systemd-tpm2-generator",
	"usr/lib/systemd/system-generators/systemd-hibernate-resume-generator",
	"usr/lib/systemd/system-generators/systemd-gpt-auto-generator",
	"usr/lib/systemd/system-generators/systemd-system-update-generator",
	"usr/lib/systemd/system-generators/systemd-clonesetup-generator",
	"usr/lib/systemd/system-generators/systemd-factory-reset-generator",
	// The kernel and the boot loader are in the boot partition.
	"boot", "usr/lib/systemd/boot", "usr/lib/grub",
	// So are the firmware, boot loader and device trees of a Raspberry Pi.
	"usr/lib/raspi-firmware", "usr/lib/u-boot",
	// Hardware names for lsusb and friends: 9 MB, and a minute of compiling on a slow board.
	"usr/lib/udev/hwdb.d", "usr/lib/systemd/catalog",
	// What keepalived's libraries bring for SNMP, D-Bus and modules of Perl, and its example.
	"usr/share/perl", "usr/share/snmp", "usr/share/glib-2.0", "usr/share/gettext", "usr/share/misc/pci.ids", "etc/keepalived/keepalived.conf.sample",
	// Ignition's configs are checked where they are made. Nobody logs in from a node
	// to somewhere else with keys of an agent, a smart card or the host; one locale is built in.
	"usr/bin/ignition-validate", "usr/bin/ssh-add", "usr/bin/ssh-agent", "usr/bin/ssh-keyscan", "usr/bin/localedef",
	"usr/lib/openssh/ssh-keysign", "usr/lib/openssh/ssh-pkcs11-helper", "usr/lib/openssh/ssh-sk-helper",
	// Nobody has a password that expires; not every release of Debian has it.
	"usr/bin/expiry",
	// Old and exotic.
	"usr/share/zoneinfo/right", "usr/share/zoneinfo/posix",
	"usr/share/polkit-1", "usr/share/pkgconfig", "usr/lib/pkgconfig", "usr/share/ca-certificates-java",
	"usr/lib/pcrlock.d", "usr/include", "usr/games", "usr/share/games", "usr/local", "usr/src",
	// The node's own folders; they are made at boot.
	"var", "dev", "proc", "sys", "run", "tmp", "home", "root", "mnt", "media", "opt", "srv",
	"bin", "sbin", "lib", "lib64",
}

// droppedPatterns are paths with names that depend on architecture or version, see
// path.Match: exotic character sets, what else comes with the libraries that keepalived is
// linked with, and the kernel, which is in the boot partition.
var droppedPatterns = []string{
	"usr/lib/*-linux-gnu*/gconv", "usr/lib/*-linux-gnu*/glib-2.0", "usr/lib/*-linux-gnu*/libsnmp.so.*",
	"usr/lib/linux-image-*", "usr/lib/modules/*/vmlinuz", "usr/lib/*-linux-gnu*/perl", "usr/bin/perl5*", "usr/bin/cpan5*",
}

// droppedUnits would do nothing on a node but take time at its first boot: caches
// that are built with the image or not needed, questions on the console, and TPM
// measurements that nothing reads.
var droppedUnits = []string{
	"ldconfig.service", "systemd-hwdb-update.service", "systemd-journal-catalog-update.service",
	"systemd-firstboot.service", "systemd-pcrmachine.service", "systemd-pcrphase.service",
	"systemd-pcrphase-sysinit.service", "systemd-pcrphase-initrd.service", "systemd-pcrextend.socket",
	"systemd-pcrlock.socket", "systemd-tpm2-setup.service", "systemd-tpm2-setup-early.service",
	"systemd-bsod.service", "systemd-battery-check.service", "systemd-hibernate-clear.service",
	"systemd-update-utmp.service", "systemd-update-utmp-runlevel.service", "getty-static.service",
	"apt-daily.timer", "e2scrub_all.timer", "dpkg-db-backup.timer", "fstrim.timer",
	"systemd-sysext.socket", "systemd-initctl.socket", "systemd-confext.service", "systemd-sysext.service",
	"systemd-sysinstall.socket", "systemd-cryptenroll.socket", "systemd-factory-reset.socket", "systemd-repart.socket",
	"systemd-mute-console.socket",
}

// strip removes what a node does not need.
func strip(t *tree.Tree) {
	for _, p := range dropped {
		t.Delete(p)
	}
	gone := map[string]bool{}
	for _, u := range droppedUnits {
		gone[u] = true
	}
	for _, p := range t.Paths() {
		dir, name := path.Split(p)
		for _, pattern := range droppedPatterns {
			if ok, _ := path.Match(pattern, p); ok { // a test holds them to be well-formed
				t.Delete(p)
			}
		}
		if gone[name] && (strings.Contains(dir, ".wants/") || strings.Contains(dir, ".requires/")) {
			t.Delete(p)
		}
		// Static archives and libtool files of the packages' build.
		if strings.HasSuffix(name, ".a") || strings.HasSuffix(name, ".la") || strings.HasSuffix(name, ".md5sums") {
			t.Delete(p)
		}
	}
}
