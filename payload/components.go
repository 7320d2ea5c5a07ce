package payload

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The versions of what is compiled. Each stands in the go.mod of its module too,
// where the checksums are; a test compares them.
const (
	KubernetesVersion = "v1.37.2"
	// PreviousKubernetesVersion is of the minor version before. What else a node runs
	// is the same: kubeadm 1.37, whose work Kiln does, gives clusters of both minors
	// the same etcd, CoreDNS and pause.
	PreviousKubernetesVersion = "v1.36.3"
	EtcdVersion               = "v3.7.0"
	ContainerdVersion         = "v2.4.2"
	CoreDNSVersion            = "v1.14.6"
	CNIVersion                = "v1.9.1"
	FlannelVersion            = "v0.28.10"
	PauseVersion              = "3.10.2" // of Kubernetes' image that Kiln's pause stands in for
)

// kubernetesRelease is a version of Kubernetes that can be compiled.
type kubernetesRelease struct {
	version string
	// date is when it was made, as the module's own metadata says: a build's date must
	// not depend on when it is repeated.
	date string
	// module is the folder with its go.mod and go.sum; the source is the same for all.
	module string
}

// kubernetesReleases are in the order of their age, the newest first.
var kubernetesReleases = []kubernetesRelease{
	{KubernetesVersion, "2026-10-27T12:01:04Z", "kubernetes"},
	{PreviousKubernetesVersion, "2026-07-22T18:07:38Z", "kubernetes-1.36"},
}

// KubernetesVersions are the versions of Kubernetes that can be compiled, the newest,
// KubernetesVersion, first.
func KubernetesVersions() []string {
	var out []string
	for _, r := range kubernetesReleases {
		out = append(out, r.version)
	}
	return out
}

// Released is when KubernetesVersion was made: no correct clock shows an earlier time.
func Released() (time.Time, error) { return time.Parse(time.RFC3339, kubernetesReleases[0].date) }

// Names of programs that others ask a Result for.
const (
	Kubernetes = "kubernetes" // the Kubernetes programs in one, see KubernetesPrograms
	Etcd       = "etcd"
	Etcdctl    = "etcdctl"
	Containerd = "containerd"
	Shim       = "containerd-shim-runc-v2"
	Ctr        = "ctr"
	CoreDNS    = "coredns"
	Flanneld   = "flanneld"
	// FlannelInstallConf is the program that the kube-flannel DaemonSet copies the
	// CNI configuration with.
	FlannelInstallConf = "install-conf"
	Pause              = "pause"
)

// KubernetesPrograms are the names that the program Kubernetes answers to, sorted.
func KubernetesPrograms() []string {
	return []string{"kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet"}
}

// Component is what is built from one nested module.
type Component struct {
	// Name is also the folder of its source.
	Name string
	// Module is the folder of its go.mod and go.sum.
	Module string
	// Version is what the component's programs report.
	Version string
	// Pin is the required module that Version is the version of; empty if the
	// sources are Kiln's own.
	Pin      string
	Programs []Program
	// set are the string variables that the linker sets: import path, name, value.
	set []string
}

// Program is one executable of a component.
type Program struct {
	Name    string
	Package string // import path, or a path in the module
	// In is an earlier program of the component in whose file this one is, too; empty
	// for one that has a file of its own.
	In string
}

func (c Component) ldflags() string {
	// Without symbol tables, and without a build id, which would be one more thing
	// that could differ between hosts.
	flags := []string{"-s", "-w", "-buildid="}
	for _, s := range c.set {
		flags = append(flags, "-X", s)
	}
	return strings.Join(flags, " ")
}

// Components returns everything that Kiln compiles for nodes of a version of
// Kubernetes, which is one of KubernetesVersions.
func Components(kubernetes string) ([]Component, error) {
	i := slices.IndexFunc(kubernetesReleases, func(r kubernetesRelease) bool { return r.version == kubernetes })
	if i < 0 {
		return nil, fmt.Errorf("there is no source of Kubernetes %q; there is one of %s", kubernetes, strings.Join(KubernetesVersions(), " and "))
	}
	k := kubernetesReleases[i]
	const (
		containerd = "github.com/containerd/containerd/v2"
		plugins    = "github.com/containernetworking/plugins"
		flannel    = "github.com/flannel-io/flannel"
	)
	cni := []Program{{Name: "flannel", Package: "./flannel"}}
	for _, p := range []string{
		"ipam/host-local", "main/bridge", "main/host-device", "main/loopback", "main/ptp",
		"meta/bandwidth", "meta/firewall", "meta/portmap", "meta/tuning",
	} {
		cni = append(cni, Program{p[strings.Index(p, "/")+1:], plugins + "/plugins/" + p, "flannel"})
	}
	components := []Component{
		{
			Name: "kubernetes", Module: k.module, Version: k.version, Pin: "k8s.io/kubernetes",
			Programs: []Program{{Name: Kubernetes, Package: "."}},
			set:      append(k.versionVars("k8s.io/component-base/version"), k.versionVars("k8s.io/client-go/pkg/version")...),
		},
		{
			Name: "etcd", Version: EtcdVersion, Pin: "go.etcd.io/etcd/server/v3",
			Programs: []Program{{Name: Etcd, Package: "go.etcd.io/etcd/server/v3"}, {Etcdctl, "go.etcd.io/etcd/etcdctl/v3", Etcd}},
			set:      []string{"go.etcd.io/etcd/api/v3/version.GitSHA=" + EtcdVersion},
		},
		{
			Name: "containerd", Version: ContainerdVersion, Pin: containerd,
			Programs: []Program{
				{Name: Containerd, Package: containerd + "/cmd/containerd"},
				{Name: Shim, Package: containerd + "/cmd/containerd-shim-runc-v2"},
				{Ctr, containerd + "/cmd/ctr", Containerd},
			},
			set: []string{containerd + "/version.Version=" + ContainerdVersion},
		},
		{
			Name: "coredns", Version: CoreDNSVersion, Pin: "github.com/coredns/coredns",
			Programs: []Program{{Name: CoreDNS, Package: "github.com/coredns/coredns"}},
		},
		{
			Name: "cni", Version: CNIVersion, Pin: plugins, Programs: cni,
			set: []string{plugins + "/pkg/utils/buildversion.BuildVersion=" + CNIVersion},
		},
		{
			Name: "flannel", Version: FlannelVersion, Pin: flannel,
			Programs: []Program{{Name: Flanneld, Package: "."}, {Name: FlannelInstallConf, Package: flannel + "/cmd/install_conf"}},
			set:      []string{flannel + "/pkg/version.Version=" + FlannelVersion},
		},
		{
			Name: "pause", Version: PauseVersion,
			Programs: []Program{{Name: Pause, Package: "."}},
			set:      []string{"main.version=" + PauseVersion},
		},
	}
	for i := range components {
		components[i].Module = cmp.Or(components[i].Module, components[i].Name)
	}
	return components, nil
}

// CNIPlugins are the names of the CNI plugins, sorted.
func CNIPlugins() []string {
	return []string{"bandwidth", "bridge", "firewall", "flannel", "host-device", "host-local", "loopback", "portmap", "ptp", "tuning"}
}

// versionVars sets what Kubernetes' release build sets (its
// hack/lib/version.sh) in one of the packages that hold a version. The commit is
// left empty: a Go module does not record it.
func (r kubernetesRelease) versionVars(pkg string) []string {
	v := strings.SplitN(strings.TrimPrefix(r.version, "v"), ".", 3)
	return []string{
		pkg + ".gitVersion=" + r.version,
		pkg + ".gitMajor=" + v[0],
		pkg + ".gitMinor=" + v[1],
		pkg + ".gitCommit=",
		pkg + ".gitTreeState=clean",
		pkg + ".buildDate=" + r.date,
	}
}

// component returns the one of components with the given name.
func component(components []Component, name string) (Component, error) {
	var names []string
	for _, c := range components {
		if c.Name == name {
			return c, nil
		}
		names = append(names, c.Name)
	}
	return Component{}, fmt.Errorf("unknown component %q; there are %s", name, strings.Join(names, ", "))
}
