package main

import (
	"context"
	"fmt"
	"time"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/internal/phases/discovery"
	"github.com/kiln-os/kiln/internal/phases/etcdjoin"
)

// dryBound is how long a dry run asks for each thing that a first boot waits a day for:
// three tries of most.
const dryBound = 12 * time.Second

// shortened gives a joining node a dry run's patience.
func shortened(cfg nodeconfig.Config) nodeconfig.Config {
	d, t := bootplan.Duration(dryBound), &cfg.Plan.Timeouts
	t.Discovery, t.EtcdCall, t.KubernetesCall = d, d, d
	return cfg
}

// asking remembers what the cluster did not answer.
type asking struct{ err error }

// rehearseJoin makes phases, those of n, ones that read from the cluster and change
// nothing in it. When one of them fails, which a first boot would wait for, those that
// need its answer are not run, and the rest goes by the boot plan.
func (n node) rehearseJoin(phases []phase.Phase, a *asking) {
	for i := range phases {
		p := &phases[i]
		switch p.Name {
		case "discovery":
			p.Run = n.do(discovery.Rehearse)
		case "etcd-join":
			p.Run = n.withShared(kubeapi.AdminConf, etcdjoin.Rehearse)
		case "kubelet-wait-bootstrap":
			p.Run = n.do(askedByKubelet)
		}
		switch p.Name {
		case "discovery", "cluster-config", "check-etcd", "kubelet-bootstrap", "etcd-join":
			p.Run = a.around(*p)
		}
	}
}

// around runs p as long as the cluster has answered everything.
func (a *asking) around(p phase.Phase) run {
	return func(ctx context.Context, r phase.Report) error {
		if a.err != nil {
			r.Step("not rehearsed: it needs what the cluster did not answer")
			return nil
		}
		err := p.Run(ctx, r)
		if err == nil || ctx.Err() != nil {
			return err
		}
		a.err = fmt.Errorf("phase %s: %w", p.Name, err)
		r.Warn("%v; the rest goes by the boot plan", err)
		return nil
	}
}

// askedByKubelet says what the kubelet, which a dry run does not start, would create.
func askedByKubelet(_ context.Context, cfg nodeconfig.Config, _ host.Paths, r phase.Report) error {
	r.Step("the kubelet would create a CertificateSigningRequest for system:node:%s, and the Node %s", cfg.NodeName, cfg.NodeName)
	return nil
}
