package osbase

import (
	"path"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/units"
)

// packages is a tree with what Configure looks for in Debian's packages.
func packages() *tree.Tree {
	t := tree.New()
	t.AddFile("usr/share/base-passwd/passwd.master", 0o644, []byte("root:*:0:0:root:/root:/bin/bash\ndaemon:*:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n"))
	t.AddFile("usr/share/base-passwd/group.master", 0o644, []byte("root:*:0:\nshadow:*:42:\n"))
	t.AddFile("usr/lib/os-release", 0o644, []byte("PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nID=debian\n"))
	for _, src := range copies {
		t.AddFile(src, 0o644, []byte("default of "+src))
	}
	for p, target := range alternatives {
		t.AddFile(p[:strings.LastIndex(p, "/")+1]+target, 0o755, []byte("program"))
	}
	for _, m := range modes {
		t.AddFile(m.path, 0o755, []byte("program"))
	}
	t.AddFile("usr/share/ca-certificates/mozilla/B.crt", 0o644, []byte("cert b"))
	t.AddFile("usr/share/ca-certificates/mozilla/A.crt", 0o644, []byte("cert a\n"))
	t.AddFile("usr/share/doc/x/copyright", 0o644, []byte("long"))
	t.AddFile("usr/lib/systemd/system/ldconfig.service", 0o644, []byte("[Unit]\n"))
	t.AddSymlink("usr/lib/systemd/system/sysinit.target.wants/ldconfig.service", "../ldconfig.service")
	t.AddFile("usr/lib/arm-linux-gnueabihf/perl/5.40.1/POSIX.pm", 0o644, []byte("module"))
	t.AddFile("usr/lib/arm-linux-gnueabihf/libperl.so.5.40", 0o644, []byte("library"))
	t.AddFile("usr/lib/modules/6.12.1/modules.order", 0o644, nil)
	t.AddFile("boot/vmlinuz-6.12.1", 0o644, []byte("kernel"))
	t.AddFile("boot/config-6.12.1", 0o644, []byte("CONFIG_CGROUPS=y\n"))
	t.AddDir("var/lib/x", 0o755)
	return t
}

func configured(t *testing.T, tr *tree.Tree) {
	t.Helper()
	vars := units.Vars{ESPUUID: "e", StateUUID: "s", RepartArch: "x86-64", UsrSize: 1, VeritySize: 1, Platform: "qemu"}
	programs := []Program{{Path: "usr/bin/kubernetes", Content: tree.Bytes("k"), Links: []string{"usr/bin/kubelet", "usr/lib/x/kubectl"}}}
	if err := Configure(tr, programs, vars, "v1"); err != nil {
		t.Fatal(err)
	}
}

func TestConfigure(t *testing.T) {
	tr := packages()
	configured(t, tr)
	for p, want := range map[string]string{
		"etc/passwd":                        "sshd:x:994:994:",
		"etc/group":                         "_ssh:x:993:",
		"etc/shadow":                        "root:*:",
		"etc/ssl/certs/ca-certificates.crt": "cert a\ncert b\n",
		"etc/ssh/sshd_config":               "default of",
		"usr/lib/os-release":                "IMAGE_VERSION=v1",
		"usr/bin/kubelet":                   "k",
		"usr/lib/x/kubectl":                 "k",
		"usr/sbin/iptables":                 "program",
		"etc/containerd/config.toml":        "SystemdCgroup = true",
		"usr/lib/repart.d/40-state.conf":    "UUID=s",
		"etc/selinux/config":                "SELINUXTYPE=none",
	} {
		b, err := tr.ReadFile(p)
		if err != nil || !strings.Contains(string(b), want) {
			t.Errorf("%s: %v; %q is not in\n%s", p, err, want, b)
		}
	}
	if e := tr.Get("usr/sbin/unix_chkpwd"); e.Mode != 0o2755 || e.GID != gidShadow {
		t.Errorf("unix_chkpwd: %o, group %d", e.Mode, e.GID)
	}
	if e := tr.Get("etc/shadow"); e.Mode != 0o640 || e.GID != gidShadow {
		t.Errorf("shadow: %o, group %d", e.Mode, e.GID)
	}
	b, _ := tr.ReadFile("etc/shadow")
	for _, l := range lines(b) {
		if f := strings.Split(l, ":"); f[1] != "*" && f[1] != "!*" {
			t.Errorf("an account has a password: %s", l)
		}
	}
}

func TestConfigureNamesWhatDebianChanged(t *testing.T) {
	for _, gone := range []string{"usr/sbin/xtables-nft-multi-none", "usr/bin/chage", "usr/share/openssh/sshd_config", "usr/bin/mawk", "usr/share/ca-certificates", "usr/share/base-passwd/group.master"} {
		tr := packages()
		if tr.Get(gone) == nil {
			continue
		}
		tr.Delete(gone)
		err := Configure(tr, nil, units.Vars{}, "v1")
		if err == nil || !strings.Contains(err.Error(), gone[strings.LastIndex(gone, "/")+1:]) {
			t.Errorf("without %s: error %v does not name it", gone, err)
		}
	}
}

func TestSeal(t *testing.T) {
	tr := packages()
	configured(t, tr)
	v, err := KernelVersion(tr)
	if err != nil || v != "6.12.1" {
		t.Errorf("kernel %q, %v", v, err)
	}
	usr, err := Seal(tr)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"share/factory/etc/passwd", "lib/modules/6.12.1/config", "lib/arm-linux-gnueabihf/libperl.so.5.40", "bin/kubelet", "lib/systemd/system/firstboot.service", "lib/systemd/system/ldconfig.service"} {
		if usr.Get(p) == nil {
			t.Errorf("no %s in /usr", p)
		}
	}
	for _, p := range []string{"share/doc", "lib/arm-linux-gnueabihf/perl", "lib/arm-linux-gnueabihf/perl/5.40.1/POSIX.pm", "lib/systemd/system/sysinit.target.wants/ldconfig.service", "etc", "boot"} {
		if usr.Get(p) != nil {
			t.Errorf("%s is still in /usr", p)
		}
	}
	other := packages()
	other.AddFile("weird/place", 0o644, nil)
	if _, err := Seal(other); err == nil || !strings.Contains(err.Error(), "weird") {
		t.Errorf("a path outside of /usr and /etc: %v", err)
	}
}

func TestPatternsAreWellFormed(t *testing.T) {
	for _, p := range droppedPatterns {
		if _, err := path.Match(p, "usr"); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
}

func TestKernelImage(t *testing.T) {
	tr := tree.New()
	if _, err := KernelImage(tr, "vmlinux", "7.2"); err == nil || !strings.Contains(err.Error(), "neither /boot/vmlinux-7.2 nor") {
		t.Errorf("no kernel: %v", err)
	}
	for _, p := range []string{"usr/lib/modules/7.2/vmlinuz", "boot/vmlinux-7.2"} {
		tr.AddFile(p, 0o644, []byte(p))
		if b, err := KernelImage(tr, "vmlinux", "7.2"); err != nil || string(b) != p {
			t.Errorf("%s: %q, %v", p, b, err)
		}
	}
	tr.AddDir("usr/lib/modules/7.2/kernel", 0o755)
	if strip(tr); tr.Get("usr/lib/modules/7.2/vmlinuz") != nil || tr.Get("usr/lib/modules/7.2/kernel") == nil {
		t.Error("the kernel is in /usr besides the boot partition, or its modules are not")
	}
}

func TestKernelVersionWantsOne(t *testing.T) {
	tr := packages()
	tr.AddFile("usr/lib/modules/6.13.0/modules.order", 0o644, nil)
	if v, err := KernelVersion(tr); err == nil {
		t.Errorf("two kernels give %q", v)
	}
	if v, err := KernelVersion(tree.New()); err == nil {
		t.Errorf("no kernel gives %q", v)
	}
}

func TestRelative(t *testing.T) {
	for _, c := range []struct{ from, to, want string }{
		{"usr/bin/kubelet", "usr/bin/kubernetes", "kubernetes"},
		{"usr/lib/x/kubectl", "usr/bin/kubernetes", "../../bin/kubernetes"},
		{"a", "usr/bin/b", "usr/bin/b"},
	} {
		if got := relative(c.from, c.to); got != c.want {
			t.Errorf("%s to %s: %s, want %s", c.from, c.to, got, c.want)
		}
	}
}
