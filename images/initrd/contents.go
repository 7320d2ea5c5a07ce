package initrd

// programs are the executables of the initramfs; their shared libraries follow.
var programs = []string{
	// systemd itself, the device manager, the log.
	"usr/lib/systemd/systemd", "usr/lib/systemd/systemd-executor", "usr/bin/udevadm", "usr/lib/systemd/systemd-udevd",
	"usr/lib/systemd/systemd-journald", "usr/lib/systemd/systemd-modules-load", "usr/lib/systemd/systemd-shutdown",
	"usr/lib/systemd/systemd-sulogin-shell", "usr/lib/systemd/systemd-reply-password", "usr/bin/systemctl",
	"usr/bin/journalctl", "usr/bin/systemd-tmpfiles",
	// Partitions, verity, file systems.
	"usr/bin/systemd-repart", "usr/lib/systemd/systemd-veritysetup", "usr/lib/systemd/systemd-makefs",
	"usr/lib/systemd/systemd-growfs", "usr/lib/systemd/systemd-fsck", "usr/lib/systemd/systemd-sysroot-fstab-check",
	"usr/sbin/fsck", "usr/sbin/e2fsck", "usr/sbin/fsck.ext4", "usr/sbin/mkfs.ext4", "usr/sbin/mke2fs", "usr/sbin/dmsetup",
	"usr/lib/systemd/system-generators/systemd-fstab-generator",
	"usr/lib/systemd/system-generators/systemd-veritysetup-generator",
	"usr/lib/systemd/system-generators/systemd-debug-generator",
	// Kernel modules and mounts.
	"usr/bin/kmod", "usr/sbin/modprobe", "usr/bin/mount", "usr/bin/umount", "usr/sbin/losetup", "usr/sbin/sulogin",
	// Filling the state partition.
	"usr/bin/cp", "usr/bin/mv", "usr/bin/rm", "usr/bin/touch", "usr/bin/sync", "usr/bin/true",
	// Checking the stamp; saying on the console why a boot stops, and trying it again.
	"usr/bin/sha256sum", "usr/bin/echo", "usr/bin/sleep",
	// What Ignition calls.
	"usr/sbin/useradd", "usr/sbin/userdel", "usr/sbin/usermod", "usr/sbin/groupadd", "usr/sbin/groupdel",
	"usr/sbin/sgdisk", "usr/bin/partx", "usr/sbin/wipefs", "usr/sbin/blkid", "usr/bin/lsblk", "usr/sbin/mkfs.fat", "usr/sbin/mkfs.vfat",
	"usr/sbin/mkswap",
}

// libraries are opened by name at run time, so nothing in the programs' dynamic
// sections leads to them: verity, kernel modules in xz, block device probing. Partition
// tables and filters of system calls are among them since systemd 262.
var libraries = []string{
	"libcryptsetup.so.12", "libkmod.so.2", "liblzma.so.5", "libzstd.so.1", "libnss_files.so.2",
	"libfdisk.so.1", "libseccomp.so.2", "libmount.so.1", "libblkid.so.1", "libacl.so.1",
}

// unitNames are the units of Debian's systemd that an initramfs needs.
var unitNames = []string{
	"basic.target", "sysinit.target", "sockets.target", "timers.target", "paths.target", "slices.target", "swap.target",
	"local-fs.target", "local-fs-pre.target", "remote-fs.target", "remote-fs-pre.target", "network.target",
	"initrd.target", "initrd-fs.target", "initrd-root-device.target", "initrd-root-fs.target", "initrd-usr-fs.target",
	"initrd-switch-root.target", "initrd-switch-root.service", "initrd-cleanup.service", "initrd-parse-etc.service",
	"initrd-udevadm-cleanup-db.service", "emergency.target", "rescue.target", "rescue.service",
	"shutdown.target", "umount.target", "final.target", "reboot.target", "poweroff.target", "halt.target",
	"systemd-reboot.service", "systemd-poweroff.service", "systemd-halt.service", "ctrl-alt-del.target",
	"systemd-udevd.service", "systemd-udevd-control.socket", "systemd-udevd-kernel.socket", "systemd-udev-trigger.service",
	"systemd-udev-settle.service", "systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket",
	"systemd-modules-load.service", "systemd-tmpfiles-setup-dev.service", "systemd-tmpfiles-setup-dev-early.service",
	"kmod-static-nodes.service", "modprobe@.service", "systemd-repart.service", "systemd-fsck@.service", "systemd-fsck-root.service",
	"systemd-growfs@.service", "systemd-growfs-root.service", "veritysetup.target", "veritysetup-pre.target",
	"cryptsetup.target", "cryptsetup-pre.target", "system-systemd\\x2dveritysetup.slice",
}

// wanted are the unit links of Debian's systemd that hold in the initramfs.
var wanted = map[string][]string{
	"sysinit.target.wants": {
		"kmod-static-nodes.service", "systemd-journald.service", "systemd-modules-load.service",
		"systemd-tmpfiles-setup-dev.service", "systemd-tmpfiles-setup-dev-early.service", "systemd-udevd.service",
		"systemd-udev-trigger.service", "veritysetup.target",
	},
	"sockets.target.wants": {
		"systemd-journald.socket", "systemd-journald-dev-log.socket", "systemd-udevd-control.socket", "systemd-udevd-kernel.socket",
	},
	"initrd-root-fs.target.wants": {"systemd-repart.service"},
}

// rules are the udev rules of block devices. That of device-mapper's is not among
// them: it would have /usr read for links that nobody follows, and a block that
// dm-verity refuses would be read again for each event that says so.
var rules = []string{
	"50-udev-default.rules", "55-dm.rules", "60-block.rules", "60-persistent-storage.rules",
	"64-ext4.rules", "80-drivers.rules", "95-dm-notify.rules", "99-systemd.rules",
}

// plainFiles are further files that the programs read.
var plainFiles = []string{
	"usr/lib/tmpfiles.d/static-nodes-permissions.conf", "usr/lib/os-release", "usr/share/misc/magic",
	"etc/mke2fs.conf", "etc/login.defs", "etc/passwd", "etc/group", "etc/shadow", "etc/gshadow", "etc/nsswitch.conf",
	"etc/pam.d/common-account", "etc/pam.d/common-auth", "etc/default/useradd",
}

// baseModules are the kernel modules of every profile; those built into a kernel
// are found in its list of built-in ones.
var baseModules = []string{
	"dm_mod", "dm_verity", "squashfs", "ext4", "vfat", "nls_cp437", "nls_ascii", "nls_iso8859_1", "loop", "crc32c", "sha256",
}
