package osbase

import (
	"fmt"
	"sort"
	"strings"

	"github.com/kiln-os/kiln/images/tree"
)

// account is a system user or group that packages ask for in their scripts or in
// sysusers.d. Numbers are fixed, so that set-group-ID files can name them and
// every node has the same.
type account struct {
	name string
	id   int
	// home and comment make it a user with a group of the same name; "" makes it a group only.
	home, comment string
}

var accounts = []account{
	{name: "systemd-journal", id: 999},
	{name: "systemd-network", id: 998, home: "/", comment: "systemd Network Management"},
	{name: "systemd-resolve", id: 997, home: "/", comment: "systemd Resolver"},
	{name: "systemd-timesync", id: 996, home: "/", comment: "systemd Time Synchronization"},
	{name: "messagebus", id: 995, home: "/nonexistent", comment: "System Message Bus"},
	{name: "sshd", id: 994, home: "/run/sshd", comment: "sshd user"},
	{name: "_ssh", id: 993},
	{name: "input", id: 992},
	{name: "kvm", id: 991},
	{name: "render", id: 990},
	{name: "sgx", id: 989},
	{name: "clock", id: 988},
	// etcd's data belongs to root as with kubeadm; the group is here for add-ons that read certificates.
}

const (
	gidShadow     = 42
	gidMessagebus = 995
	gidSSH        = 993
)

// mode is a permission that a maintainer script sets because its group or its
// set-ID bit may be overridden by the administrator.
type mode struct {
	path string
	mode uint32
	gid  int
}

var modes = []mode{
	{"usr/sbin/unix_chkpwd", 0o2755, gidShadow},
	{"usr/bin/chage", 0o2755, gidShadow},
	{"usr/lib/dbus-1.0/dbus-daemon-launch-helper", 0o4754, gidMessagebus},
	{"usr/bin/ssh-agent", 0o2755, gidSSH},
}

// alternatives are the links that update-alternatives would make.
var alternatives = map[string]string{
	"usr/bin/awk":                "mawk",
	"usr/bin/which":              "which.debianutils",
	"usr/bin/pager":              "less",
	"usr/sbin/iptables":          "iptables-nft",
	"usr/sbin/iptables-save":     "iptables-nft-save",
	"usr/sbin/iptables-restore":  "iptables-nft-restore",
	"usr/sbin/ip6tables":         "ip6tables-nft",
	"usr/sbin/ip6tables-save":    "ip6tables-nft-save",
	"usr/sbin/ip6tables-restore": "ip6tables-nft-restore",
}

// etcFiles are configuration files that scripts write or copy.
var etcFiles = map[string]string{
	"etc/hosts":                               "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
	"etc/nsswitch.conf":                       "passwd:     files systemd\ngroup:      files systemd\nshadow:     files\ngshadow:    files\nhosts:      files resolve [!UNAVAIL=return] dns\nnetworks:   files\nprotocols:  files\nservices:   files\nethers:     files\nrpc:        files\n",
	"etc/networks":                            "default\t0.0.0.0\nloopback\t127.0.0.0\nlink-local\t169.254.0.0\n",
	"etc/locale.conf":                         "LANG=C.UTF-8\n",
	"etc/shells":                              "/bin/sh\n/bin/bash\n/usr/bin/bash\n",
	"etc/issue":                               "Kiln: Kubernetes node \\n (\\l)\n\n",
	"etc/motd":                                "",
	"etc/fstab":                               "# The partitions are mounted by the initramfs.\n",
	"etc/environment":                         "",
	"etc/selinux/config":                      "SELINUX=disabled\nSELINUXTYPE=none\n",
	"etc/pam.d/common-auth":                   "auth\t[success=1 default=ignore]\tpam_unix.so nullok\nauth\trequisite\tpam_deny.so\nauth\trequired\tpam_permit.so\n",
	"etc/pam.d/common-account":                "account\t[success=1 new_authtok_reqd=done default=ignore]\tpam_unix.so\naccount\trequisite\tpam_deny.so\naccount\trequired\tpam_permit.so\n",
	"etc/pam.d/common-password":               "password\t[success=1 default=ignore]\tpam_unix.so obscure yescrypt\npassword\trequisite\tpam_deny.so\npassword\trequired\tpam_permit.so\n",
	"etc/pam.d/common-session":                "session\t[default=1]\tpam_permit.so\nsession\trequisite\tpam_deny.so\nsession\trequired\tpam_permit.so\nsession\trequired\tpam_unix.so\n",
	"etc/pam.d/common-session-noninteractive": "session\t[default=1]\tpam_permit.so\nsession\trequisite\tpam_deny.so\nsession\trequired\tpam_permit.so\nsession\trequired\tpam_unix.so\n",
}

// copies are files that scripts copy from /usr/share to /etc.
var copies = map[string]string{
	"etc/profile":         "usr/share/base-files/profile",
	"etc/ssh/sshd_config": "usr/share/openssh/sshd_config",
	"etc/skel/.profile":   "usr/share/base-files/dot.profile",
	"etc/skel/.bashrc":    "usr/share/base-files/dot.bashrc",
}

// runScripts does what the packages' maintainer scripts would have done.
// docs/debian-base.md lists the same for readers.
func runScripts(t *tree.Tree) error {
	if err := writeAccounts(t); err != nil {
		return err
	}
	for p, s := range etcFiles {
		t.AddFile(p, 0o644, []byte(s))
	}
	for dst, src := range copies {
		b, err := t.ReadFile(src)
		if err != nil {
			return fmt.Errorf("%s is copied from Debian's defaults: %w", dst, err)
		}
		t.AddFile(dst, 0o644, b)
	}
	for p, target := range alternatives {
		if _, _, err := t.Lookup(p[:strings.LastIndex(p, "/")+1] + target); err != nil {
			return fmt.Errorf("alternative %s: %w", p, err)
		}
		t.AddSymlink(p, target)
	}
	for _, m := range modes {
		e := t.Get(m.path)
		if e == nil {
			return fmt.Errorf("mode of %s: the file is not in the packages any more", m.path)
		}
		e.Mode, e.UID, e.GID = m.mode, 0, m.gid
	}
	t.AddSymlink("etc/localtime", "../usr/share/zoneinfo/Etc/UTC")
	t.AddSymlink("etc/mtab", "../proc/self/mounts")
	t.AddSymlink("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf")
	return caCertificates(t)
}

// writeAccounts turns base-passwd's master files and the table of accounts into
// passwd, group, shadow and gshadow. No account has a password.
func writeAccounts(t *tree.Tree) error {
	passwd, err := t.ReadFile("usr/share/base-passwd/passwd.master")
	if err != nil {
		return err
	}
	group, err := t.ReadFile("usr/share/base-passwd/group.master")
	if err != nil {
		return err
	}
	var pw, gr, sh, gs strings.Builder
	for _, l := range lines(passwd) {
		f := strings.Split(l, ":")
		if len(f) != 7 {
			return fmt.Errorf("passwd.master: line %q has not 7 fields", l)
		}
		f[1] = "x"
		fmt.Fprintln(&pw, strings.Join(f, ":"))
		fmt.Fprintf(&sh, "%s:*:20000:0:99999:7:::\n", f[0])
	}
	for _, l := range lines(group) {
		f := strings.Split(l, ":")
		if len(f) != 4 {
			return fmt.Errorf("group.master: line %q has not 4 fields", l)
		}
		f[1] = "x"
		fmt.Fprintln(&gr, strings.Join(f, ":"))
		fmt.Fprintf(&gs, "%s:*::\n", f[0])
	}
	for _, a := range accounts {
		fmt.Fprintf(&gr, "%s:x:%d:\n", a.name, a.id)
		fmt.Fprintf(&gs, "%s:!*::\n", a.name)
		if a.home != "" {
			fmt.Fprintf(&pw, "%s:x:%d:%d:%s:%s:/usr/sbin/nologin\n", a.name, a.id, a.id, a.comment, a.home)
			fmt.Fprintf(&sh, "%s:!*:20000::::::\n", a.name)
		}
	}
	t.AddFile("etc/passwd", 0o644, []byte(pw.String()))
	t.AddFile("etc/group", 0o644, []byte(gr.String()))
	t.Set("etc/shadow", &tree.Entry{Type: tree.File, Mode: 0o640, GID: gidShadow, Content: tree.Bytes(sh.String())})
	t.Set("etc/gshadow", &tree.Entry{Type: tree.File, Mode: 0o640, GID: gidShadow, Content: tree.Bytes(gs.String())})
	return nil
}

func lines(b []byte) []string {
	return strings.FieldsFunc(string(b), func(r rune) bool { return r == '\n' })
}

// caCertificates does update-ca-certificates' work: the sorted concatenation of
// all certificates.
func caCertificates(t *tree.Tree) error {
	const dir = "usr/share/ca-certificates/"
	var crts []string
	for _, p := range t.Paths() {
		if strings.HasPrefix(p, dir) && strings.HasSuffix(p, ".crt") {
			crts = append(crts, p)
		}
	}
	if len(crts) == 0 {
		return fmt.Errorf("no certificates under /%s", dir)
	}
	sort.Strings(crts)
	var all []byte
	for _, p := range crts {
		b, err := t.ReadFile(p)
		if err != nil {
			return err
		}
		all = append(all, b...)
		if n := len(all); n > 0 && all[n-1] != '\n' {
			all = append(all, '\n')
		}
	}
	t.AddFile("etc/ssl/certs/ca-certificates.crt", 0o644, all)
	return nil
}
