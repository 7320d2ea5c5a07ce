package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/internal/phases/addoncoredns"
	"github.com/kiln-os/kiln/internal/phases/addonflannel"
	"github.com/kiln-os/kiln/internal/phases/addonkubeproxy"
	"github.com/kiln-os/kiln/internal/phases/bootstraptoken"
	"github.com/kiln-os/kiln/internal/phases/certs"
	"github.com/kiln-os/kiln/internal/phases/controlplane"
	"github.com/kiln-os/kiln/internal/phases/etcd"
	"github.com/kiln-os/kiln/internal/phases/images"
	"github.com/kiln-os/kiln/internal/phases/kubeconfig"
	"github.com/kiln-os/kiln/internal/phases/kubeletfinalize"
	"github.com/kiln-os/kiln/internal/phases/kubeletstart"
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
}

// initPhases is the first boot of a machine that creates a cluster, in kubeadm's
// order: every manifest is written before the kubelet starts, and nothing speaks
// to the API before the control plane answers. Failures of phases with a Bound are
// retried for that long.
func (n node) initPhases() []phase.Phase {
	t := n.cfg.Plan.Timeouts
	local := time.Minute // what fails on the node itself heals soon or not at all
	runtime, start := time.Duration(t.ContainerdUp), time.Duration(t.ControlPlane)
	call, nodeReady := time.Duration(t.KubernetesCall), time.Duration(t.NodeReady)
	return []phase.Phase{
		{Name: "preflight", Summary: "checking the machine", Once: true, Run: n.preflight},
		{Name: "images", Summary: "importing the container images", Bound: runtime, Run: n.do(images.Run)},
		{Name: "certs", Summary: "issuing this node's certificates", Run: n.do(certs.Run)},
		{Name: "kubeconfig", Summary: "issuing the kubeconfigs", Run: n.do(kubeconfig.Run)},
		{Name: "etcd", Summary: "preparing etcd", Run: n.do(etcd.Run)},
		{Name: "control-plane", Summary: "preparing the control plane", Run: n.do(controlplane.Run)},
		{Name: "kubelet-start", Summary: "starting the kubelet", Bound: local, Run: n.withUnits(kubeletstart.Run)},
		{Name: "wait-control-plane", Summary: "waiting for the control plane", Bound: start, Run: n.withAPI(waitcontrolplane.Run)},
		{Name: "upload-config", Summary: "storing the configuration in the cluster", Bound: call, Run: n.withAPI(uploadconfig.Run)},
		{Name: "mark-control-plane", Summary: "labelling and tainting the node", Bound: call, Run: n.withAPI(markcontrolplane.Run)},
		{Name: "bootstrap-token", Summary: "letting other nodes join", Bound: call, Run: n.withAPI(bootstraptoken.Run)},
		{Name: "kubelet-finalize", Summary: "letting the kubelet renew its certificate", Bound: call, Run: n.withUnits(kubeletfinalize.Run)},
		{Name: "addon-coredns", Summary: "installing CoreDNS", Bound: call, Run: n.withAPI(addoncoredns.Run)},
		{Name: "addon-kube-proxy", Summary: "installing kube-proxy", Bound: call, Run: n.withAPI(addonkubeproxy.Run)},
		{Name: "addon-flannel", Summary: "installing the pod network", Bound: call, Run: n.withAPI(addonflannel.Run)},
		{Name: "ready", Summary: "waiting until the node is Ready", Bound: nodeReady, Run: n.withAPI(ready.Run)},
	}
}

type run = func(context.Context, phase.Report) error

// do is for phases that work on files alone.
func (n node) do(f func(context.Context, nodeconfig.Config, host.Paths, phase.Report) error) run {
	return func(ctx context.Context, r phase.Report) error { return f(ctx, n.cfg, n.paths, r) }
}

// withUnits is for phases that work on systemd units too.
func (n node) withUnits(f func(context.Context, nodeconfig.Config, host.Paths, host.Units, phase.Report) error) run {
	return func(ctx context.Context, r phase.Report) error { return f(ctx, n.cfg, n.paths, n.units, r) }
}

// withAPI is for phases that speak to the API server. admin.conf is read when the
// phase begins: an earlier phase makes it.
func (n node) withAPI(f func(context.Context, nodeconfig.Config, host.Paths, *kubeapi.API, phase.Report) error) run {
	return func(ctx context.Context, r phase.Report) error {
		api, err := n.loadAPI(r)
		if err != nil {
			return phase.Permanent(err)
		}
		return f(ctx, n.cfg, n.paths, api, r)
	}
}

func (n node) loadAPI(r phase.Report) (*kubeapi.API, error) {
	if n.api != nil {
		return n.api(r)
	}
	return kubeapi.Load(n.cfg, n.paths, kubeapi.AdminConf, r)
}

func (n node) preflight(ctx context.Context, r phase.Report) error {
	return preflight.Run(ctx, preflight.ThisMachine(n.cfg, n.paths, n.units), r)
}

// phaseTable is the list for --help.
func phaseTable() string {
	var b strings.Builder
	for i, p := range (node{}).initPhases() {
		fmt.Fprintf(&b, "  %2d  %-19s %s\n", i+1, p.Name, p.Summary)
	}
	return strings.TrimSuffix(b.String(), "\n")
}
