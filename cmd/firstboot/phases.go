package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/joinconfig"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/internal/phases/addoncoredns"
	"github.com/kiln-os/kiln/internal/phases/addonflannel"
	"github.com/kiln-os/kiln/internal/phases/addonkubeproxy"
	"github.com/kiln-os/kiln/internal/phases/bootstraptoken"
	"github.com/kiln-os/kiln/internal/phases/certs"
	"github.com/kiln-os/kiln/internal/phases/checketcd"
	"github.com/kiln-os/kiln/internal/phases/clusterconfig"
	"github.com/kiln-os/kiln/internal/phases/controlplane"
	"github.com/kiln-os/kiln/internal/phases/discovery"
	"github.com/kiln-os/kiln/internal/phases/etcd"
	"github.com/kiln-os/kiln/internal/phases/etcdjoin"
	"github.com/kiln-os/kiln/internal/phases/images"
	"github.com/kiln-os/kiln/internal/phases/kubeconfig"
	"github.com/kiln-os/kiln/internal/phases/kubeletbootstrap"
	"github.com/kiln-os/kiln/internal/phases/kubeletfinalize"
	"github.com/kiln-os/kiln/internal/phases/kubeletstart"
	"github.com/kiln-os/kiln/internal/phases/kubeletwait"
	"github.com/kiln-os/kiln/internal/phases/markcontrolplane"
	"github.com/kiln-os/kiln/internal/phases/preflight"
	"github.com/kiln-os/kiln/internal/phases/ready"
	"github.com/kiln-os/kiln/internal/phases/uploadconfig"
	"github.com/kiln-os/kiln/internal/phases/waitcontrolplane"
)

// node is what the phases work on.
type node struct {
	cfg   nodeconfig.Config
	paths host.Paths
	units host.Units
	// api is the API server of a dry run; nil means the node's own.
	api func(phase.Report) (*kubeapi.API, error)
	// shared loads a kubeconfig of the cluster; nil means kubeapi.LoadShared.
	shared func(cfg nodeconfig.Config, path string, r phase.Report) (*kubeapi.API, error)
}

// initPhases is the first boot of a machine that creates a cluster. Nothing speaks to
// the API before the control plane answers. Unlike in kubeadm, the kubelet starts as
// soon as it can: it takes seconds until it looks at the manifests, and meanwhile
// images are imported and keys made on the other processor. Failures of phases with a
// Bound are retried for that long.
func (n node) initPhases() []phase.Phase {
	t := n.cfg.Plan.Timeouts
	local := time.Minute // what fails on the node itself heals soon or not at all
	runtime, start := time.Duration(t.ContainerdUp), time.Duration(t.ControlPlane)
	call, nodeReady := time.Duration(t.KubernetesCall), time.Duration(t.NodeReady)
	return []phase.Phase{
		{Name: "preflight", Summary: "checking the machine", Once: true, Run: n.preflight},
		{Name: "kubeconfig", Summary: "issuing the kubeconfigs", Run: n.do(kubeconfig.Run)},
		{Name: "pod-network", Summary: "preparing the pod network", Run: n.do(addonflannel.Prepare)},
		{Name: "kubelet-start", Summary: "starting the kubelet", Bound: local, Run: n.withUnits(kubeletstart.Run)},
		{Name: "images", Summary: "importing the container images", Bound: runtime, Run: n.do(images.Run)},
		{Name: "certs", Summary: "issuing this node's certificates", Run: n.do(certs.Run)},
		{Name: "etcd", Summary: "preparing etcd", Run: n.do(etcd.Run)},
		{Name: "control-plane", Summary: "preparing the control plane", Run: n.do(controlplane.Run)},
		{Name: "wait-control-plane", Summary: "waiting for the control plane", Bound: start, Run: n.withAPI(waitcontrolplane.Run)},
		{Name: "upload-config", Summary: "storing the configuration in the cluster", Bound: call, Run: n.withAPI(uploadconfig.Run)},
		{Name: "mark-control-plane", Summary: "labelling and tainting the node", Bound: call, Run: n.withAPI(markcontrolplane.Run)},
		{Name: "bootstrap-token", Summary: "letting other nodes join", Bound: call, Run: n.withAPI(bootstraptoken.Run)},
		{Name: "kubelet-finalize", Summary: "letting the kubelet renew its certificate", Bound: call, Run: n.do(kubeletfinalize.Run)},
		// The pods of CoreDNS need the pod network, which takes longest.
		{Name: "addon-flannel", Summary: "installing the pod network", Bound: call, Run: n.withAPI(addonflannel.Run)},
		{Name: "addon-kube-proxy", Summary: "installing kube-proxy", Bound: call, Run: n.withAPI(addonkubeproxy.Run)},
		{Name: "addon-coredns", Summary: "installing CoreDNS", Bound: call, Run: n.withAPI(addoncoredns.Run)},
		{Name: "ready", Summary: "waiting until the node is Ready", Bound: nodeReady, Run: n.withAPI(ready.Run)},
	}
}

// joinWorkerPhases is the first boot of a machine that joins a cluster as a worker.
// What the cluster, and not the machine, must make right is waited for as long as the
// plan says, within the phases.
func (n node) joinWorkerPhases() []phase.Phase {
	t := n.cfg.Plan.Timeouts
	local := time.Minute
	runtime, call, nodeReady := time.Duration(t.ContainerdUp), time.Duration(t.KubernetesCall), time.Duration(t.NodeReady)
	return []phase.Phase{
		{Name: "preflight", Summary: "checking the machine", Once: true, Run: n.preflight},
		{Name: "images", Summary: "importing the container images", Bound: runtime, Run: n.do(images.Run)},
		{Name: "discovery", Summary: "finding the cluster", Bound: local, Run: n.do(discovery.Run)},
		{Name: "cluster-config", Summary: "asking the cluster for its configuration", Bound: call, Run: n.clusterConfig},
		{Name: "kubelet-bootstrap", Summary: "preparing the kubelet's credentials", Bound: call, Run: n.withDiscovery(kubeletbootstrap.Run)},
		{Name: "pod-network", Summary: "preparing the pod network", Run: n.do(addonflannel.Prepare)},
		{Name: "kubelet-start", Summary: "starting the kubelet", Bound: local, Run: n.withUnits(kubeletstart.Run)},
		{Name: "kubelet-wait-bootstrap", Summary: "waiting for the kubelet's certificate", Bound: call, Run: n.withDiscovery(kubeletwait.Run)},
		{Name: "ready", Summary: "waiting until the node is Ready", Bound: nodeReady, Run: n.withShared("kubelet.conf", ready.Run)},
	}
}

// joinControlPlanePhases is the first boot of a machine that joins a cluster as a
// further control plane. Unlike in kubeadm, the API server gets its manifest when etcd
// has this node's member: before, it would crash, and wait longer each time.
func (n node) joinControlPlanePhases() []phase.Phase {
	t := n.cfg.Plan.Timeouts
	local := time.Minute
	runtime, start := time.Duration(t.ContainerdUp), time.Duration(t.ControlPlane)
	call, nodeReady, etcd := time.Duration(t.KubernetesCall), time.Duration(t.NodeReady), time.Duration(t.EtcdCall)
	return []phase.Phase{
		{Name: "preflight", Summary: "checking the machine", Once: true, Run: n.preflight},
		{Name: "images", Summary: "importing the container images", Bound: runtime, Run: n.do(images.Run)},
		{Name: "discovery", Summary: "finding the cluster", Bound: local, Run: n.do(discovery.Run)},
		{Name: "cluster-config", Summary: "asking the cluster for its configuration", Bound: call, Run: n.clusterConfig},
		{Name: "certs", Summary: "issuing this node's certificates", Run: n.do(certs.Run)},
		{Name: "kubeconfig", Summary: "issuing the kubeconfigs", Run: n.do(kubeconfig.Run)},
		{Name: "check-etcd", Summary: "looking at the cluster's etcd", Bound: etcd, Run: n.withShared(kubeapi.AdminConf, checketcd.Run)},
		{Name: "kubelet-bootstrap", Summary: "preparing the kubelet's credentials", Bound: call, Run: n.withDiscovery(kubeletbootstrap.Run)},
		{Name: "pod-network", Summary: "preparing the pod network", Run: n.do(addonflannel.Prepare)},
		{Name: "kubelet-start", Summary: "starting the kubelet", Bound: local, Run: n.withUnits(kubeletstart.Run)},
		{Name: "etcd-join", Summary: "joining the cluster's etcd", Bound: etcd, Run: n.withShared(kubeapi.AdminConf, etcdjoin.Run)},
		{Name: "control-plane", Summary: "preparing the control plane", Run: n.do(controlplane.Run)},
		{Name: "kubelet-wait-bootstrap", Summary: "waiting for the kubelet's certificate", Bound: call, Run: n.withDiscovery(kubeletwait.Run)},
		{Name: "wait-control-plane", Summary: "waiting for the control plane", Bound: start, Run: n.withAPI(waitcontrolplane.Run)},
		{Name: "mark-control-plane", Summary: "labelling and tainting the node", Bound: call, Run: n.withAPI(markcontrolplane.Run)},
		{Name: "ready", Summary: "waiting until the node is Ready", Bound: nodeReady, Run: n.withAPI(ready.Run)},
	}
}

// phases is the list of a role.
func (n node) phases(role bootplan.Role) []phase.Phase {
	switch role {
	case bootplan.RoleJoinControlPlane:
		return n.joinControlPlanePhases()
	case bootplan.RoleJoinWorker:
		return n.joinWorkerPhases()
	}
	return n.initPhases()
}

type (
	run      = func(context.Context, phase.Report) error
	apiPhase = func(context.Context, nodeconfig.Config, host.Paths, *kubeapi.API, phase.Report) error
)

// do is for phases that work on files alone.
func (n node) do(f func(context.Context, nodeconfig.Config, host.Paths, phase.Report) error) run {
	return func(ctx context.Context, r phase.Report) error {
		n, err := n.joined()
		if err != nil {
			return phase.Permanent(err)
		}
		return f(ctx, n.cfg, n.paths, r)
	}
}

// withUnits is for phases that work on systemd units too.
func (n node) withUnits(f func(context.Context, nodeconfig.Config, host.Paths, host.Units, phase.Report) error) run {
	return n.do(func(ctx context.Context, cfg nodeconfig.Config, paths host.Paths, r phase.Report) error {
		return f(ctx, cfg, paths, n.units, r)
	})
}

// withAPI is for phases that speak to the node's own API server. admin.conf is read
// when the phase begins: an earlier phase makes it.
func (n node) withAPI(f apiPhase) run {
	return n.do(func(ctx context.Context, cfg nodeconfig.Config, paths host.Paths, r phase.Report) error {
		api, err := n.loadAPI(cfg, paths, r)
		if err != nil {
			return phase.Permanent(err)
		}
		return f(ctx, cfg, paths, api, r)
	})
}

// withShared is for phases that speak to the cluster's API server with one of the
// node's kubeconfigs.
func (n node) withShared(name string, f apiPhase) run {
	return n.do(func(ctx context.Context, cfg nodeconfig.Config, paths host.Paths, r phase.Report) error {
		api, err := n.loadShared(cfg, paths.Kubeconfig(name), r)
		if err != nil {
			return phase.Permanent(err)
		}
		return f(ctx, cfg, paths, api, r)
	})
}

// withDiscovery is for phases that speak to the cluster's API server with the
// credentials for joining.
func (n node) withDiscovery(f func(context.Context, nodeconfig.Config, host.Paths, host.Units, *kubeapi.API, phase.Report) error) run {
	return n.do(func(ctx context.Context, cfg nodeconfig.Config, paths host.Paths, r phase.Report) error {
		api, err := n.loadShared(cfg, paths.Join("discovery.conf"), r)
		if err != nil {
			return phase.Permanent(err)
		}
		return f(ctx, cfg, paths, n.units, api, r)
	})
}

// clusterConfig compares the cluster with the plan of this image, not with what the
// cluster said before.
func (n node) clusterConfig(ctx context.Context, r phase.Report) error {
	api, err := n.loadShared(n.cfg, n.paths.Join("discovery.conf"), r)
	if err != nil {
		return phase.Permanent(err)
	}
	return clusterconfig.Run(ctx, n.cfg, n.paths, api, r)
}

func (n node) loadAPI(cfg nodeconfig.Config, paths host.Paths, r phase.Report) (*kubeapi.API, error) {
	if n.api != nil {
		return n.api(r)
	}
	return kubeapi.Load(cfg, paths, kubeapi.AdminConf, r)
}

func (n node) loadShared(cfg nodeconfig.Config, path string, r phase.Report) (*kubeapi.API, error) {
	if n.shared != nil {
		return n.shared(cfg, path, r)
	}
	return kubeapi.LoadShared(cfg, path, r)
}

func (n node) preflight(ctx context.Context, r phase.Report) error {
	return preflight.Run(ctx, preflight.ThisMachine(n.cfg, n.paths, n.units), r)
}

// joined is the node with the configuration of the cluster that it joins, once the
// phase cluster-config has stored it.
func (n node) joined() (node, error) {
	cfg, err := joinconfig.Load(n.cfg, n.paths)
	if err != nil {
		return n, err
	}
	n.cfg = cfg
	n.paths.CertificatesDir, n.paths.EtcdDataDir = cfg.Plan.Cluster.CertificatesDir(), cfg.Plan.Cluster.LocalEtcd().DataDir
	return n, nil
}

// phaseTable is the list of a role for --help.
func phaseTable(role bootplan.Role) string {
	var b strings.Builder
	for i, p := range (node{}).phases(role) {
		fmt.Fprintf(&b, "  %2d  %-22s %s\n", i+1, p.Name, p.Summary)
	}
	return strings.TrimSuffix(b.String(), "\n")
}
