package payload

import (
	"fmt"
	"strings"
	"time"
)

// The versions of what is compiled. Each stands in the go.mod of its module too,
// where the checksums are; a test compares them.
const (
	KubernetesVersion = "v1.37.2"
	EtcdVersion       = "v3.7.0"
	ContainerdVersion = "v2.4.2"
	CoreDNSVersion    = "v1.14.6"
	CNIVersion        = "v1.9.1"
	FlannelVersion    = "v0.28.10"
	PauseVersion      = "3.10.2" // of Kubernetes' image that Kiln's pause stands in for
)

// kubernetesDate is when KubernetesVersion was made, as the module's own metadata
// says: a build's date must not depend on when it is repeated.
const kubernetesDate = "2026-10-27T12:01:04Z"

// Released is when KubernetesVersion was made: no correct clock shows an earlier time.
func Released() (time.Time, error) { return time.Parse(time.RFC3339, kubernetesDate) }

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
	// Name is also the module's folder.
	Name string
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

// Components returns everything that Kiln compiles for its nodes.
func Components() []Component {
	const (
		containerd = "github.com/containerd/containerd/v2"
		plugins    = "github.com/containernetworking/plugins"
		flannel    = "github.com/flannel-io/flannel"
	)
	cni := []Program{{"flannel", "./flannel"}}
	for _, p := range []string{
		"ipam/host-local", "main/bridge", "main/host-device", "main/loopback", "main/ptp",
		"meta/bandwidth", "meta/firewall", "meta/portmap", "meta/tuning",
	} {
		cni = append(cni, Program{p[strings.Index(p, "/")+1:], plugins + "/plugins/" + p})
	}
	return []Component{
		{
			Name: "kubernetes", Version: KubernetesVersion, Pin: "k8s.io/kubernetes",
			Programs: []Program{{Kubernetes, "."}},
			set:      append(kubernetesVersionVars("k8s.io/component-base/version"), kubernetesVersionVars("k8s.io/client-go/pkg/version")...),
		},
		{
			Name: "etcd", Version: EtcdVersion, Pin: "go.etcd.io/etcd/server/v3",
			Programs: []Program{{Etcd, "go.etcd.io/etcd/server/v3"}, {Etcdctl, "go.etcd.io/etcd/etcdctl/v3"}},
			set:      []string{"go.etcd.io/etcd/api/v3/version.GitSHA=" + EtcdVersion},
		},
		{
			Name: "containerd", Version: ContainerdVersion, Pin: containerd,
			Programs: []Program{
				{Containerd, containerd + "/cmd/containerd"},
				{Shim, containerd + "/cmd/containerd-shim-runc-v2"},
				{Ctr, containerd + "/cmd/ctr"},
			},
			set: []string{containerd + "/version.Version=" + ContainerdVersion},
		},
		{
			Name: "coredns", Version: CoreDNSVersion, Pin: "github.com/coredns/coredns",
			Programs: []Program{{CoreDNS, "github.com/coredns/coredns"}},
		},
		{
			Name: "cni", Version: CNIVersion, Pin: plugins, Programs: cni,
			set: []string{plugins + "/pkg/utils/buildversion.BuildVersion=" + CNIVersion},
		},
		{
			Name: "flannel", Version: FlannelVersion, Pin: flannel,
			Programs: []Program{{Flanneld, "."}, {FlannelInstallConf, flannel + "/cmd/install_conf"}},
			set:      []string{flannel + "/pkg/version.Version=" + FlannelVersion},
		},
		{
			Name: "pause", Version: PauseVersion,
			Programs: []Program{{Pause, "."}},
			set:      []string{"main.version=" + PauseVersion},
		},
	}
}

// CNIPlugins are the names of the CNI plugins, sorted.
func CNIPlugins() []string {
	return []string{"bandwidth", "bridge", "firewall", "flannel", "host-device", "host-local", "loopback", "portmap", "ptp", "tuning"}
}

// kubernetesVersionVars sets what Kubernetes' release build sets (its
// hack/lib/version.sh) in one of the packages that hold a version. The commit is
// left empty: a Go module does not record it.
func kubernetesVersionVars(pkg string) []string {
	v := strings.SplitN(strings.TrimPrefix(KubernetesVersion, "v"), ".", 3)
	return []string{
		pkg + ".gitVersion=" + KubernetesVersion,
		pkg + ".gitMajor=" + v[0],
		pkg + ".gitMinor=" + v[1],
		pkg + ".gitCommit=",
		pkg + ".gitTreeState=clean",
		pkg + ".buildDate=" + kubernetesDate,
	}
}

// component returns the component with the given name.
func component(name string) (Component, error) {
	var names []string
	for _, c := range Components() {
		if c.Name == name {
			return c, nil
		}
		names = append(names, c.Name)
	}
	return Component{}, fmt.Errorf("unknown component %q; there are %s", name, strings.Join(names, ", "))
}
