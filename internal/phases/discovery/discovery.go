// Package discovery is the phase that finds the cluster which the node joins.
//
// INPUTS: the boot plan's endpoint, CA pins and bootstrap token, or its kubeconfig;
// the cluster's ConfigMap kube-public/cluster-info.
//
// OUTPUTS: /var/lib/kiln/join/discovery.conf (0600), a kubeconfig with the cluster's
// own name for its API server, its CA and the credentials for joining. It exists only
// once the cluster has proved that it is the right one.
//
// The cluster may be switched on long after the node, and everything that can be wrong
// with it, or with the token, can be made right there: the phase goes on asking.
package discovery

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/discovery"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
)

// interval is between two tries, as in kubeadm.
const interval = 5 * time.Second

// Run finds the cluster and checks it.
func Run(ctx context.Context, cfg nodeconfig.Config, paths host.Paths, r phase.Report) error {
	return run(ctx, cfg, paths, r, func(floor time.Time) error {
		r.Warn("the clock is behind: the cluster's certificates exist since %s; setting it to that", floor.UTC().Format(time.RFC3339))
		return host.SetClock(floor)
	})
}

// Rehearse is Run on a machine whose clock is not to be set.
func Rehearse(ctx context.Context, cfg nodeconfig.Config, paths host.Paths, r phase.Report) error {
	return run(ctx, cfg, paths, r, func(floor time.Time) error {
		r.Warn("the clock is behind: the cluster's certificates exist since %s; the first boot would set it to that", floor.UTC().Format(time.RFC3339))
		return nil
	})
}

func run(ctx context.Context, cfg nodeconfig.Config, paths host.Paths, r phase.Report, setClock func(time.Time) error) error {
	d := cfg.Plan.Discovery
	if d == nil && cfg.Plan.TokensRemoved {
		return phase.Permanent(errors.New("the boot plan has no discovery kubeconfig any more: it was removed once this node had joined; to join again the node needs a new stamp"))
	}
	if d == nil {
		return phase.Permanent(errors.New("the boot plan has no discovery"))
	}
	find, what := byToken(cfg), "the cluster at "+d.Endpoint
	if !d.Kubeconfig.IsZero() {
		find, what = byKubeconfig(cfg), "the cluster of the boot plan's kubeconfig"
	} else if len(cfg.Plan.Tokens) == 0 {
		return phase.Permanent(errors.New("the boot plan has no bootstrap token any more: it was removed once this node had joined; to join again the node needs a new stamp"))
	}
	var found *discovery.Cluster
	err := phase.Poll(ctx, r, what, interval, time.Duration(cfg.Plan.Timeouts.Discovery), func(ctx context.Context) (err error) {
		found, err = find(ctx)
		if clock := new(discovery.ClockError); errors.As(err, &clock) {
			return errors.Join(err, setClock(clock.Floor))
		}
		if errors.Is(err, discovery.ErrKubeconfig) {
			return phase.Permanent(err)
		}
		return err
	})
	if err != nil {
		return err
	}
	if found.Warning != "" {
		r.Warn("%s", found.Warning)
	}
	r.Step("found the cluster at %s", found.Server)
	if err := os.MkdirAll(paths.Join(), 0o700); err != nil {
		return err
	}
	return atomicfile.WriteFile(paths.Join("discovery.conf"), found.Kubeconfig.Reveal(), 0o600)
}

type finder func(context.Context) (*discovery.Cluster, error)

func byToken(cfg nodeconfig.Config) finder {
	return func(ctx context.Context) (*discovery.Cluster, error) {
		return discovery.ByToken(ctx, *cfg.Plan.Discovery, cfg.Plan.Tokens[0], cfg.Plan.Cluster.Name, time.Now())
	}
}

func byKubeconfig(cfg nodeconfig.Config) finder {
	var token *bootplan.Token
	if len(cfg.Plan.Tokens) > 0 {
		token = &cfg.Plan.Tokens[0]
	}
	return func(ctx context.Context) (*discovery.Cluster, error) {
		return discovery.ByKubeconfig(ctx, cfg.Plan.Discovery.Kubeconfig, token, cfg.Plan.Cluster.Name)
	}
}
