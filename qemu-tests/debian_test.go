//go:build boot && long

package qemutests

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/images/deb"
	"github.com/kiln-os/kiln/internal/qemu"
	"github.com/kiln-os/kiln/internal/testtools"
)

// debianName is the machine that knows nothing of Kiln. It has the address of worker-2.
const debianName = "debian-1"

// debianPackages are what an administrator installs before kubeadm join.
var debianPackages = []string{
	"systemd", "systemd-sysv", "udev", "dbus", "kmod", "linux-image-cloud-amd64", "initramfs-tools", "openssh-server", "iproute2",
	"iptables", "nftables", "conntrack", "ethtool", "ca-certificates", "mount", "util-linux", "runc", "procps",
}

// debianMachine makes n, a node of the network's file, a plain Debian machine: the
// distribution's packages and kernel, the same versions of the kubelet and containerd
// as Kiln's nodes have, and kubeadm's own units. tools is the disk with kubeadm.
func debianMachine(t *testing.T, c *network, n *node, tools string) {
	t.Helper()
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		t.Fatalf("%v: it makes the Debian machine; apt-get install mmdebstrap", err)
	}
	mirror, err := deb.FindMirror("", "/etc/apt")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	run(t, "mmdebstrap", "--quiet", "--variant=minbase", "--include="+strings.Join(debianPackages, ","), "trixie", root, string(mirror))
	t.Cleanup(func() { _ = os.RemoveAll(root) })

	put := func(path, text string) {
		t.Helper()
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to, path string) {
		t.Helper()
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, path); err != nil {
			t.Fatal(err)
		}
	}
	put("etc/hostname", debianName+"\n")
	put("etc/hosts", "127.0.0.1 localhost\n192.168.78.22 "+debianName+"\n")
	put("etc/fstab", "/dev/vda / ext4 defaults 0 1\n")
	put("etc/systemd/network/10-lan.network", "[Match]\nType=ether\n\n[Network]\nAddress=192.168.78.22/24\nGateway=192.168.78.1\n")
	put("etc/modules-load.d/k8s.conf", "overlay\nbr_netfilter\nvxlan\n")
	put("etc/sysctl.d/k8s.conf", "net.ipv4.ip_forward = 1\nnet.bridge.bridge-nf-call-iptables = 1\nnet.bridge.bridge-nf-call-ip6tables = 1\n")
	put("root/.ssh/authorized_keys", n.key.Authorized+"\n")
	for _, unit := range []string{"containerd.service", "kubelet.service", "kubelet.service.d/10-kubeadm.conf"} {
		b, err := os.ReadFile(filepath.Join("../units/system/usr/lib/systemd/system", unit))
		if err != nil {
			t.Fatal(err)
		}
		put("etc/systemd/system/"+unit, string(b))
	}
	config, err := os.ReadFile("../units/system/etc/containerd/config.toml")
	if err != nil {
		t.Fatal(err)
	}
	put("etc/containerd/config.toml", string(config))
	for _, unit := range []string{"containerd.service", "kubelet.service"} {
		link("/etc/systemd/system/"+unit, "etc/systemd/system/multi-user.target.wants/"+unit)
	}
	link("/lib/systemd/system/systemd-networkd.service", "etc/systemd/system/multi-user.target.wants/systemd-networkd.service")

	for program, file := range payloadFiles(t) {
		to := ""
		switch program {
		case "kubernetes", "containerd", "containerd-shim-runc-v2", "ctr":
			to = "usr/bin/" + program
		case "bridge", "host-local", "loopback", "portmap": // flannel's own comes from the cluster
			to = "usr/lib/cni/" + program
		default:
			continue
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		put(to, string(b))
		if err := os.Chmod(filepath.Join(root, to), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"kubelet", "kubectl"} {
		link("kubernetes", "usr/bin/"+name)
	}

	n.image = filepath.Join(dir, "debian.img")
	if out, err := testtools.Command(t, "mke2fs", "-q", "-t", "ext4", "-d", root, n.image, "5G").CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v\n%s", err, out)
	}
	kernels, err := filepath.Glob(filepath.Join(root, "boot/vmlinuz-*"))
	if err != nil || len(kernels) != 1 {
		t.Fatalf("kernels of the Debian machine: %v, %v", kernels, err)
	}
	boot := filepath.Join(dir, "boot")
	run(t, "cp", "-r", filepath.Join(root, "boot"), boot)
	n.disks = []qemu.Disk{{Image: tools}}
	n.extraArgs = []string{
		"-kernel", filepath.Join(boot, filepath.Base(kernels[0])),
		"-initrd", filepath.Join(boot, strings.Replace(filepath.Base(kernels[0]), "vmlinuz", "initrd.img", 1)),
		"-append", "root=/dev/vda rw console=ttyS0 net.ifnames=0",
	}
}

// flannelPlugin is the image that flannel's CNI plugin comes in, which no node of Kiln has:
// the plugin and a cp.
func flannelPlugin(t *testing.T) map[name.Reference]v1.Image {
	t.Helper()
	text, err := os.ReadFile("../internal/phases/addonflannel/install.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var ds appsv1.DaemonSet
	if err := yaml.Unmarshal(text, &ds); err != nil {
		t.Fatal(err)
	}
	ref, err := name.NewTag(ds.Spec.Template.Spec.InitContainers[0].Image)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(root, "bin/cp"), "./testdata/cp")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(payloadFiles(t)["flannel"])
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(root, "flannel"), b)
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return tarOf(root), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		Architecture: runtime.GOARCH, OS: "linux", RootFS: v1.RootFS{Type: "layers"}, Config: v1.Config{Env: []string{"PATH=/bin"}},
	})
	if err == nil {
		img, err = mutate.AppendLayers(img, layer)
	}
	if err != nil {
		t.Fatal(err)
	}
	return map[name.Reference]v1.Image{ref: img}
}

// payloadFiles are the compiled programs by their names.
func payloadFiles(t *testing.T) map[string]string {
	t.Helper()
	listed, err := exec.CommandContext(t.Context(), imagegenPath(t), "payload").Output()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for line := range strings.Lines(string(listed)) {
		if f := strings.Fields(line); len(f) == 3 && filepath.IsAbs(f[2]) {
			out[f[0]] = f[2]
		}
	}
	return out
}
