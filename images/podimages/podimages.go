// Package podimages composes the container images that every Kiln node has, out
// of the compiled payload and, where an image needs packet filter tools, of the
// node's own Debian packages. Names and tags are those that kubeadm and the
// kube-flannel DaemonSet ask for.
package podimages

import (
	"fmt"
	"path"
	"strings"
	"sync"

	"github.com/kiln-os/kiln/images/oci"
	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/payload"
)

const registry = "registry.k8s.io"

// Refs of the images. kubeadm's tag of etcd has a revision of the image in it.
const (
	APIServer         = registry + "/kube-apiserver:" + payload.KubernetesVersion
	ControllerManager = registry + "/kube-controller-manager:" + payload.KubernetesVersion
	Scheduler         = registry + "/kube-scheduler:" + payload.KubernetesVersion
	Proxy             = registry + "/kube-proxy:" + payload.KubernetesVersion
	Etcd              = registry + "/etcd:3.7.0-0"
	CoreDNS           = registry + "/coredns/coredns:" + payload.CoreDNSVersion
	Pause             = registry + "/pause:" + payload.PauseVersion
	Flannel           = "ghcr.io/flannel-io/flannel:" + payload.FlannelVersion
)

const (
	nonroot   = "65532:65532" // as in the images of CoreDNS
	pauseUser = "65535:65535" // as in Kubernetes' own pause image
)

// pathEnv lets a pod's command such as ["kube-apiserver", …] be found.
var pathEnv = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

// Images returns all images of a node. os is the tree of the node's packages,
// merged into /usr; it is not changed. Images share layers as far as they can:
// one has the Kubernetes programs of four images, if these are one file. ready are
// images that need not be composed, by the last part of their names ("kube-proxy").
func Images(os *tree.Tree, a arch.Arch, built payload.Result, ready map[string]oci.Image) ([]oci.Image, error) {
	c := &composer{os: os, built: built}
	base := sync.OnceValue(c.base)
	netfilter := sync.OnceValue(func() *tree.Tree { return c.netfilter(a) })
	kubernetes := sync.OnceValue(c.kubernetes)
	of := func(dir string, programs ...string) func() *tree.Tree {
		return func() *tree.Tree { return c.programs(dir, programs...) }
	}
	program := func(name string) func() *tree.Tree {
		if _, err := built.Get(payload.Kubernetes); err == nil {
			return kubernetes
		}
		return of("usr/local/bin", name)
	}
	at := func(ref string) string { // the constants are of the version that is compiled
		return strings.TrimSuffix(ref, payload.KubernetesVersion) + built.KubernetesVersion()
	}
	var images []oci.Image
	for _, i := range []struct {
		ref, entrypoint, user string
		layers                []func() *tree.Tree
	}{
		{Etcd, "/usr/local/bin/etcd", "", []func() *tree.Tree{base, of("usr/local/bin", payload.Etcd, payload.Etcdctl)}},
		{CoreDNS, "/coredns", nonroot, []func() *tree.Tree{base, c.coredns}},
		{Pause, "/pause", pauseUser, []func() *tree.Tree{of("", payload.Pause)}},
		{Flannel, "/opt/bin/flanneld", "", []func() *tree.Tree{base, netfilter, of("opt/bin", payload.Flanneld, payload.FlannelInstallConf)}},
		{at(Proxy), "/usr/local/bin/kube-proxy", "", []func() *tree.Tree{base, netfilter, program("kube-proxy")}},
		{at(APIServer), "/usr/local/bin/kube-apiserver", "", []func() *tree.Tree{base, program("kube-apiserver")}},
		{at(ControllerManager), "/usr/local/bin/kube-controller-manager", "", []func() *tree.Tree{base, program("kube-controller-manager")}},
		{at(Scheduler), "/usr/local/bin/kube-scheduler", "", []func() *tree.Tree{base, program("kube-scheduler")}},
	} {
		name, _, _ := strings.Cut(path.Base(i.ref), ":")
		if img, ok := ready[name]; ok {
			img.Ref = i.ref
			images = append(images, img)
			continue
		}
		img := oci.Image{Ref: i.ref, Arch: a, Entrypoint: []string{i.entrypoint}, Env: pathEnv, User: i.user, WorkingDir: "/"}
		for _, l := range i.layers {
			img.Layers = append(img.Layers, l())
		}
		images = append(images, img)
	}
	if c.err != nil {
		return nil, fmt.Errorf("container images: %w", c.err)
	}
	return images, nil
}

// composer makes layers and keeps the first error.
type composer struct {
	os    *tree.Tree
	built payload.Result
	err   error
}

func (c *composer) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// program puts a compiled program at p.
func (c *composer) program(t *tree.Tree, p, name string) *tree.Entry {
	b, err := c.built.Get(name)
	if err != nil {
		c.fail(err)
		return &tree.Entry{}
	}
	content, err := tree.NewHostFile(b.Path)
	if err != nil {
		c.fail(err)
		return &tree.Entry{}
	}
	e := &tree.Entry{Type: tree.File, Mode: 0o755, Content: content}
	t.Set(p, e)
	return e
}

// programs is a layer with compiled programs in one folder.
func (c *composer) programs(dir string, names ...string) *tree.Tree {
	t := tree.New()
	for _, n := range names {
		c.program(t, dir+"/"+n, n)
	}
	return t
}

// kubernetes is the layer that four images share: the program that is all
// Kubernetes programs, and their names.
func (c *composer) kubernetes() *tree.Tree {
	const dir = "usr/local/bin/"
	t := c.programs(dir, payload.Kubernetes)
	for _, n := range payload.KubernetesPrograms() {
		t.AddSymlink(dir+n, payload.Kubernetes)
	}
	return t
}

// capNetBindService is the extended attribute of `setcap cap_net_bind_service=+ep`:
// struct vfs_cap_data of linux/capability.h, revision 2 with the effective flag,
// and bit 10 of the permitted set.
const capNetBindService = "\x01\x00\x00\x02" + "\x00\x04\x00\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00"

// coredns may bind port 53 without being root, as in upstream's image: kubeadm's
// Deployment drops all capabilities but that one.
func (c *composer) coredns() *tree.Tree {
	t := tree.New()
	c.program(t, payload.CoreDNS, payload.CoreDNS).Xattrs = map[string]string{"security.capability": capNetBindService}
	return t
}

// base is what programs expect of any system: accounts, how names are resolved,
// certificate authorities, a folder for temporary files.
func (c *composer) base() *tree.Tree {
	t := tree.New()
	t.AddDir("tmp", 0o1777)
	t.AddDir("root", 0o700)
	for p, lines := range map[string][]string{
		"etc/passwd": {
			"root:x:0:0:root:/root:/sbin/nologin",
			"nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin",
			"nonroot:x:65532:65532:nonroot:/nonexistent:/sbin/nologin",
		},
		"etc/group":         {"root:x:0:", "nogroup:x:65534:", "nonroot:x:65532:"},
		"etc/nsswitch.conf": {"passwd: files", "group: files", "hosts: files dns"},
	} {
		t.AddFile(p, 0o644, []byte(strings.Join(lines, "\n")+"\n"))
	}
	c.copy(t, "etc/ssl/certs/ca-certificates.crt")
	return t
}

// copy takes a file from the packages, through links, and puts it at the same path.
func (c *composer) copy(t *tree.Tree, p string) {
	_, e, err := c.os.Lookup(p)
	if err == nil && e.Type != tree.File {
		err = fmt.Errorf("%s is no file", p)
	}
	if err != nil {
		c.fail(fmt.Errorf("the node's packages: %w", err))
		return
	}
	own := *e
	t.Set(p, &own)
}
