// Package checketcd is the phase that makes sure that the cluster's etcd can take in a
// member.
//
// INPUTS: the etcd pods of the other control planes; etcd's CA and the node's client
// certificate; admin rights.
//
// OUTPUTS: none. When it is done, a majority of the members answers. With an external
// etcd there is nothing to check.
package checketcd

import (
	"context"
	"errors"
	"time"

	"github.com/kiln-os/kiln/internal/etcdcluster"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
)

const interval = 5 * time.Second

// Run waits for at most the plan's Timeouts.EtcdCall.
func Run(ctx context.Context, cfg nodeconfig.Config, paths host.Paths, api *kubeapi.API, r phase.Report) error {
	if cfg.Plan.Cluster.ExternalEtcd() != nil {
		r.Step("etcd is external")
		return nil
	}
	return phase.Poll(ctx, r, "the cluster's etcd", interval, time.Duration(cfg.Plan.Timeouts.EtcdCall), func(ctx context.Context) (err error) {
		endpoints, err := etcdcluster.Endpoints(ctx, api)
		if err != nil {
			return err
		}
		client, err := etcdcluster.Dial(paths, endpoints)
		if err != nil {
			return phase.Permanent(err)
		}
		defer func() { err = errors.Join(err, client.Close()) }()
		return client.CheckQuorum(ctx)
	})
}
