package render

import (
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	base "github.com/coreos/butane/base/v0_4"
	butane "github.com/coreos/butane/config/fcos/v1_4"
	"go.yaml.in/yaml/v3"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/diag"
)

// refuse reports whole sections that cannot work in Kiln's initramfs, whose programs
// are listed in images/initrd, or that Kiln's images do in another way, and returns
// them.
func (o *opened) refuse() (refused []*yaml.Node) {
	for _, x := range []struct {
		path   diag.Path
		reason string
		want   string
	}{
		{diag.Path{"ignition"}, "Kiln writes this part of the config itself", "put other configs into further snippets: the cluster's, the role's and the node's are merged"},
		{diag.Path{"kernel_arguments"}, "the kernel's command line is part of the image, where dm-verity's root hash stands too", "remove it"},
		{diag.Path{"boot_device"}, "the disk's layout is part of the image, and systemd-repart grows it", "remove it"},
		{diag.Path{"storage", "raid"}, "the initramfs has no mdadm", "remove it"},
		{diag.Path{"storage", "luks"}, "the initramfs has no cryptsetup, and nobody to ask for a passphrase", "remove it"},
	} {
		if o.doc.Has(append(slices.Clone(o.base), x.path...)) {
			p := append(slices.Clone(o.base), x.path...)
			o.list.Add(o.doc.AtKey(p, x.reason, x.want))
			_, value, _ := o.doc.Lookup(p)
			refused = append(refused, value)
		}
	}
	return refused
}

// checkLimits refuses values that cannot work in Kiln's initramfs.
func (o *opened) checkLimits(cfg *butane.Config) {
	storage := diag.Path{"storage"}
	for i, d := range cfg.Storage.Disks {
		o.device(storage.Child("disks", i, "device"), d.Device)
	}
	for i, f := range cfg.Storage.Filesystems {
		q := storage.Child("filesystems", i)
		o.device(q.Child("device"), f.Device)
		// "none" and an absent format make nothing.
		if f.Format != nil && !slices.Contains([]string{"ext4", "vfat", "swap", "none"}, *f.Format) {
			o.bad(q.Child("format"), "want ext4, vfat or swap", "the initramfs cannot make a file system of the type %s", *f.Format)
		}
		if f.Format != nil && *f.Format == "swap" {
			o.bad(q.Child("format"), "want ext4 or vfat", "the kubelet does not start on a node with swap")
		}
	}
	for i, f := range cfg.Storage.Files {
		q := storage.Child("files", i)
		o.resource(q.Child("contents"), f.Contents)
		for j, r := range f.Append {
			o.resource(q.Child("append", j), r)
		}
	}
	for i, t := range cfg.Storage.Trees {
		o.local(storage.Child("trees", i, "local"), t.Local)
	}
}

// device keeps snippets away from the disk that the node boots from, as far as its
// name tells.
func (o *opened) device(p diag.Path, device string) {
	name := path.Base(device)
	if strings.HasPrefix(name, "kiln-") || device == "/dev/disk/by-label/kiln" || strings.HasPrefix(name, "coreos-") {
		o.bad(p, "name another disk", "%s is on the disk that the node boots from, which systemd-repart divides", device)
	}
}

// resource checks where a file's content comes from.
func (o *opened) resource(p diag.Path, r base.Resource) {
	if r.Local != nil {
		o.local(p.Child("local"), *r.Local)
	}
	if r.Source == nil || *r.Source == "" {
		return
	}
	if u, err := url.Parse(*r.Source); err != nil || u.Scheme != "data" {
		o.bad(p.Child("source"), "want inline, local, or a data: URL", "a node's first boot begins without a network: nothing can be fetched")
	}
}

// local checks that a path leads to something within the cluster file's folder,
// through links too.
func (o *opened) local(p diag.Path, name string) {
	const want = "want a path relative to the cluster file's folder, and within it"
	if name == "" {
		return // Butane says so
	}
	root, err := os.OpenRoot(o.filesDir)
	if err != nil {
		o.bad(p, want, "the cluster file's folder: %s", reason(err))
		return
	}
	defer root.Close()
	switch _, err := root.Stat(filepath.FromSlash(name)); {
	case err == nil:
	case os.IsNotExist(err):
		o.bad(p, want, "%s does not exist", name)
	default:
		o.bad(p, want, "%s: %s", name, reason(err))
	}
}

// owned is a file, folder or unit of a node that is not the user's.
type owned struct {
	path string
	tree bool   // what is below it too
	want string // where the user's wish belongs
}

const (
	wantClusterFile = "set it in the cluster file"
	wantNothing     = "remove it"
)

// ownedPaths lists what Kiln's config, the image and firstboot write.
func ownedPaths(c bootplan.Cluster) []owned {
	return []owned{
		{"/etc/hostname", false, "set nodes[].name in the cluster file"},
		{"/etc/hosts", false, "Kiln writes it where the control-plane endpoint needs it; use a name server, or a file that a unit of yours reads"},
		{"/etc/machine-id", false, wantNothing},
		{"/etc/kiln", true, wantClusterFile},
		{"/etc/systemd/network/10-kiln.network", false, "set address, gateway, nameservers and interface of the node in the cluster file, or add /etc/systemd/network/10-kiln.network.d/50-mine.conf"},
		{"/etc/systemd/timesyncd.conf.d/10-kiln.conf", false, "set time.servers in the cluster file, or add /etc/systemd/timesyncd.conf.d/50-mine.conf"},
		{"/etc/ssh/sshd_config.d/10-kiln.conf", false, "add /etc/ssh/sshd_config.d/05-mine.conf: of two settings sshd takes the first"},
		{"/etc/containerd/config.toml", false, "add a drop-in for containerd.service that sets other arguments, if you know what you do"},
		{"/etc/issue.d/kiln.issue", false, "add /etc/issue.d/mine.issue"},
		{c.CertificatesDir(), true, "the CAs are made by imagegen, in the output folder's secrets; certificates by firstboot"},
		{"/etc/kubernetes/manifests", true, "set extraArgs, extraEnvs and extraVolumes in a ClusterConfiguration"},
		{"/etc/kubernetes/admin.conf", false, wantNothing},
		{"/etc/kubernetes/super-admin.conf", false, wantNothing},
		{"/etc/kubernetes/kubelet.conf", false, wantNothing},
		{"/etc/kubernetes/bootstrap-kubelet.conf", false, wantNothing},
		{"/etc/kubernetes/controller-manager.conf", false, wantNothing},
		{"/etc/kubernetes/scheduler.conf", false, wantNothing},
		{"/var/lib/kiln", true, wantNothing},
		{"/var/lib/kubelet", true, "put a KubeletConfiguration into the cluster file"},
		{"/var/lib/containerd", true, wantNothing},
		{c.LocalEtcd().DataDir, true, wantNothing},
	}
}

// lostPaths are where nothing can be written, or nothing stays.
var lostPaths = map[string]string{
	"/usr": "is read-only: dm-verity guards it", "/bin": "is a link into the read-only /usr", "/sbin": "is a link into the read-only /usr",
	"/lib": "is a link into the read-only /usr", "/lib64": "is a link into the read-only /usr",
	"/proc": "is the kernel's", "/sys": "is the kernel's", "/dev": "is the kernel's", "/run": "is empty at every boot", "/tmp": "is empty at every boot",
}

// ownedUnits are the units that make a machine a node of a cluster. What they run
// may be changed by drop-ins only.
var ownedUnits = []string{
	"firstboot.service", "kubelet.service", "containerd.service", "kiln-sshd-keygen.service", "kiln-virtual-ip.service", "kiln-start-order.service", "kiln-machine.service",
	"systemd-networkd.service", "systemd-networkd.socket", "systemd-resolved.service",
}

// checkOwned refuses what would break the node or be undone by Kiln.
func (o *opened) checkOwned(cfg *butane.Config, c bootplan.Cluster) {
	one := func(p diag.Path, paths []owned, name string, folder bool) {
		if !path.IsAbs(name) {
			return // Ignition says so
		}
		name = path.Clean(name)
		for dir, why := range lostPaths {
			if within(name, dir) {
				o.bad(p, "want a path below /etc, /var, /opt, /srv, /home or /root", "%s %s", dir, why)
				return
			}
		}
		for _, w := range paths {
			switch {
			case name == w.path || w.tree && within(name, w.path):
				o.bad(p, w.want, "%s belongs to Kiln", name)
				return
			case !folder && within(w.path, name):
				o.bad(p, wantNothing, "%s is a folder with what belongs to Kiln", name)
				return
			}
		}
	}
	paths, storage := ownedPaths(c), diag.Path{"storage"}
	for i, f := range cfg.Storage.Files {
		one(storage.Child("files", i, "path"), paths, f.Path, false)
	}
	for i, f := range cfg.Storage.Links {
		one(storage.Child("links", i, "path"), paths, f.Path, false)
	}
	for i, f := range cfg.Storage.Directories {
		// An overwritten folder is emptied first.
		one(storage.Child("directories", i, "path"), paths, f.Path, f.Overwrite == nil || !*f.Overwrite)
	}
	// The state of containerd and of etcd may lie on disks of their own.
	data := c.LocalEtcd().DataDir
	mountable := slices.DeleteFunc(slices.Clone(paths), func(w owned) bool { return w.path == "/var/lib/containerd" || w.path == data })
	for i, f := range cfg.Storage.Filesystems {
		if f.Path == nil {
			continue
		}
		p, mount := storage.Child("filesystems", i, "path"), path.Clean(*f.Path)
		if mount == data {
			o.bad(p, "set etcd.local.dataDir in a ClusterConfiguration to a folder in it, such as "+mount+"/data", "a fresh file system has lost+found in it, and etcd begins in an empty folder")
			continue
		}
		one(p, mountable, mount, false)
	}
	for i, t := range cfg.Storage.Trees {
		for _, name := range o.treeFiles(t) {
			one(storage.Child("trees", i, "local"), paths, name, false)
		}
	}
	for i, u := range cfg.Systemd.Units {
		if !slices.Contains(ownedUnits, u.Name) {
			continue
		}
		q := diag.Path{"systemd", "units", i}
		dropin := "use dropins: [{name: 50-mine.conf, contents: …}]"
		if u.Contents != nil {
			o.bad(q.Child("contents"), dropin, "%s belongs to Kiln", u.Name)
		}
		if u.Mask != nil && *u.Mask {
			o.bad(q.Child("mask"), wantNothing, "without %s the machine is no node of the cluster", u.Name)
		}
		if u.Enabled != nil && !*u.Enabled {
			o.bad(q.Child("enabled"), wantNothing, "without %s the machine is no node of the cluster", u.Name)
		}
	}
}

// treeFiles lists the files and links that a tree puts on the node.
func (o *opened) treeFiles(t base.Tree) []string {
	if !filepath.IsLocal(filepath.FromSlash(t.Local)) {
		return nil // reported
	}
	to := "/"
	if t.Path != nil {
		to = *t.Path
	}
	var out []string
	root := filepath.Join(o.filesDir, filepath.FromSlash(t.Local))
	// What cannot be read is Butane's to report.
	_ = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if rel, err := filepath.Rel(root, p); err == nil {
			out = append(out, path.Join(to, filepath.ToSlash(rel)))
		}
		return nil
	})
	return out
}

// within reports whether a clean path is dir or lies below it.
func within(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/")
}
