package release

import (
	"slices"
	"strings"

	"github.com/kiln-os/kiln/payload"
)

// group is a set of programs and images that have one version.
type group struct {
	name string
	// version is the only one that the nodes ask for by name; empty if any is right.
	version string
	// modules are prefixes of the Go modules that the programs are built from, or the
	// modules that a wrapper of them requires; none if they need not be Go programs.
	modules []string
}

// The groups. What firstboot deploys names an image by its tag, so its version is
// not the user's to choose; Kubernetes' is the cluster file's.
var (
	kubernetes = group{name: "Kubernetes", modules: []string{"k8s.io/kubernetes"}}
	etcd       = group{name: "etcd", version: payload.EtcdVersion, modules: []string{"go.etcd.io/etcd", "go.etcd.io/etcd/server"}}
	coredns    = group{name: "CoreDNS", version: payload.CoreDNSVersion, modules: []string{"github.com/coredns/coredns"}}
	flannel    = group{name: "flannel", version: payload.FlannelVersion, modules: []string{"github.com/flannel-io/flannel"}}
	pause      = group{name: "pause", version: payload.PauseVersion}
	containerd = group{name: "containerd", modules: []string{"github.com/containerd/containerd"}}
	cni        = group{name: "CNI plugins", modules: []string{"github.com/containernetworking/plugins"}}
	cniFlannel = group{name: "flannel's CNI plugin", modules: []string{"github.com/flannel-io/cni-plugin", "github.com/containernetworking/plugins"}}
)

// Image names of a manifest, which are also the keys of Result.Images.
const (
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
	Proxy             = "kube-proxy"
	Etcd              = "etcd"
	CoreDNS           = "coredns"
	Pause             = "pause"
	Flannel           = "flannel"
)

// need is a container image that every node has: either as it is in a registry, or
// composed out of programs.
type need struct {
	name     string
	group    group
	programs []string
	// paths are the files that pods run, as far as a pod does not leave it to the image.
	paths []string
}

var images = []need{
	{APIServer, kubernetes, []string{"kube-apiserver"}, nil},
	{ControllerManager, kubernetes, []string{"kube-controller-manager"}, nil},
	{Scheduler, kubernetes, []string{"kube-scheduler"}, nil},
	{Proxy, kubernetes, []string{"kube-proxy"}, []string{"/usr/local/bin/kube-proxy"}},
	{Etcd, etcd, []string{payload.Etcd, payload.Etcdctl}, nil},
	{CoreDNS, coredns, []string{payload.CoreDNS}, nil},
	{Pause, pause, []string{payload.Pause}, nil},
	{Flannel, flannel, []string{payload.Flanneld, payload.FlannelInstallConf}, []string{"/opt/bin/flanneld", "/opt/bin/install-conf"}},
}

// programs maps every program that a manifest can have to its group.
var programs = func() map[string]group {
	m := map[string]group{
		"kubelet": kubernetes, "kubectl": kubernetes,
		payload.Containerd: containerd, payload.Shim: containerd, payload.Ctr: containerd,
	}
	for _, n := range payload.CNIPlugins() {
		m[n] = cni
	}
	m["flannel"] = cniFlannel
	for _, i := range images {
		for _, p := range i.programs {
			m[p] = i.group
		}
	}
	return m
}()

// hostPrograms run outside of containers.
var hostPrograms = append([]string{"kubelet", "kubectl", payload.Containerd, payload.Shim, payload.Ctr}, payload.CNIPlugins()...)

func image(name string) (need, bool) {
	i := slices.IndexFunc(images, func(n need) bool { return n.name == name })
	if i < 0 {
		return need{}, false
	}
	return images[i], true
}

func imageNames() []string {
	var out []string
	for _, i := range images {
		out = append(out, i.name)
	}
	return out
}

// sameVersion compares versions with and without the v that some projects write.
func sameVersion(a, b string) bool {
	return strings.TrimPrefix(a, "v") == strings.TrimPrefix(b, "v")
}
