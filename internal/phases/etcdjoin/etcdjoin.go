// Package etcdjoin is the phase that makes the node a member of the cluster's etcd.
//
// INPUTS: the etcd pods of the other control planes; etcd's CA and the node's
// certificates; the node's name and advertise address; a running kubelet; admin rights.
//
// OUTPUTS: a member with the node's peer URL, with a vote; /var/lib/etcd (0700) and
// /etc/kubernetes/manifests/etcd.yaml (0600). With an external etcd it does nothing.
//
// Every run begins with what etcd says of the node's peer URL, so that it can be cut off
// anywhere: not added, added but never started, started but without a vote, done. Data
// of a member that etcd does not know any more is removed, since with it etcd would not
// start.
package etcdjoin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/kiln-os/kiln/internal/etcdcluster"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/internal/staticpod"
)

const interval = 2 * time.Second

// Run adds the member, starts it, and gives it its vote; each waits for at most the
// plan's Timeouts.EtcdCall.
func Run(ctx context.Context, cfg nodeconfig.Config, paths host.Paths, api *kubeapi.API, r phase.Report) error {
	return connected(ctx, cfg, paths, api, r, func(j joiner) error {
		for _, step := range []func(context.Context) error{j.add, j.start, j.promote} {
			err := step(ctx)
			if errors.Is(err, errRemoved) {
				// Waiting does not help this attempt; the next one adds the member again.
				return errors.New(err.Error())
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Rehearse says what Run would change in etcd and changes nothing there. paths is not
// the node's own folder: the manifest is written there.
func Rehearse(ctx context.Context, cfg nodeconfig.Config, paths host.Paths, api *kubeapi.API, r phase.Report) error {
	return connected(ctx, cfg, paths, api, r, func(j joiner) error {
		list, err := j.client.Members(ctx)
		if err != nil {
			return err
		}
		if m, ok := etcdcluster.Find(list, j.peer); ok {
			r.Step("etcd member %x has this node's address already", m.ID)
		} else {
			r.Step("would add %s to etcd's %d member(s), and give it a vote once it has the data", j.peer, len(list))
		}
		pod, err := staticpod.JoiningEtcdPod(cfg, etcdcluster.InitialCluster(list, cfg.NodeName, j.peer))
		if err != nil {
			return phase.Permanent(err)
		}
		_, err = staticpod.Write(paths, pod)
		return err
	})
}

// connected calls do with a connection to the cluster's etcd, if the nodes have it.
func connected(ctx context.Context, cfg nodeconfig.Config, paths host.Paths, api *kubeapi.API, r phase.Report, do func(joiner) error) (err error) {
	if cfg.Plan.Cluster.ExternalEtcd() != nil {
		r.Step("etcd is external")
		return nil
	}
	j, err := connect(ctx, cfg, paths, api, r)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.client.Close()) }()
	return do(j)
}

// connect finds the other control planes' etcd. The client is to be closed.
func connect(ctx context.Context, cfg nodeconfig.Config, paths host.Paths, api *kubeapi.API, r phase.Report) (joiner, error) {
	j := joiner{cfg: cfg, paths: paths, r: r, peer: staticpod.EtcdPeerURL(cfg), bound: time.Duration(cfg.Plan.Timeouts.EtcdCall)}
	err := phase.Poll(ctx, r, "the addresses of the cluster's etcd", interval, j.bound, func(ctx context.Context) error {
		endpoints, err := etcdcluster.Endpoints(ctx, api)
		// A learner, which this node's member may be, does not answer.
		others := slices.DeleteFunc(endpoints, func(e string) bool { return e == staticpod.EtcdClientURL(cfg) })
		if err == nil && len(others) == 0 {
			err = errors.New("the cluster shows no etcd pods of other control planes")
		}
		j.endpoints = others
		return err
	})
	if err != nil {
		return j, err
	}
	if j.client, err = etcdcluster.Dial(paths, j.endpoints); err != nil {
		return j, phase.Permanent(err)
	}
	return j, nil
}

var errRemoved = errors.New("somebody removed the member from etcd while it was joining")

type joiner struct {
	cfg       nodeconfig.Config
	paths     host.Paths
	r         phase.Report
	peer      string // the node's peer URL
	bound     time.Duration
	endpoints []string
	client    *etcdcluster.Client
}

// add makes the node's peer URL that of a member.
func (j joiner) add(ctx context.Context) error {
	return phase.Poll(ctx, j.r, "etcd to add "+j.peer, interval, j.bound, func(ctx context.Context) error {
		list, err := j.client.Members(ctx)
		if err != nil {
			return err
		}
		if m, ok := etcdcluster.Find(list, j.peer); ok {
			j.r.Step("etcd member %x has this node's address already", m.ID)
			return nil
		}
		if err := j.clean(ctx); err != nil {
			return err
		}
		j.r.Step("adding %s to etcd, without a vote", j.peer)
		return j.client.AddLearner(ctx, j.peer)
	})
}

// clean removes what an earlier member, which is none any more, left on this node.
// preflight has seen to it that there was no data before the first attempt.
func (j joiner) clean(ctx context.Context) error {
	entries, err := os.ReadDir(j.paths.EtcdData())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	manifest := filepath.Join(j.paths.Manifests(), staticpod.Etcd+".yaml")
	err = os.Remove(manifest)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(entries) == 0 {
		return nil
	}
	j.r.Warn("removing the data of an etcd member that the cluster does not have any more")
	if err := j.stopped(ctx); err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(j.paths.EtcdData(), e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// stopped waits until the kubelet, which has lost the manifest, has stopped etcd.
func (j joiner) stopped(ctx context.Context) error {
	u, err := url.Parse(j.peer)
	if err != nil {
		return err
	}
	return phase.Poll(ctx, j.r, "the node's old etcd to stop", interval, j.bound, func(ctx context.Context) error {
		c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", u.Host)
		if err != nil {
			return nil // nothing listens
		}
		return errors.Join(fmt.Errorf("it listens at %s", u.Host), c.Close())
	})
}

// start has the kubelet start the member and waits until it has. The manifest of one
// that has started is kept: which members there were is not news to it, and a changed
// file would restart it.
func (j joiner) start(ctx context.Context) (err error) {
	if err := os.MkdirAll(j.paths.EtcdData(), 0o700); err != nil {
		return fmt.Errorf("etcd's data folder: %w", err)
	}
	if err := os.Chmod(j.paths.EtcdData(), 0o700); err != nil {
		return fmt.Errorf("etcd's data folder: %w", err)
	}
	err = phase.Poll(ctx, j.r, "this node's etcd to start", interval, j.bound, func(ctx context.Context) error {
		list, err := j.client.Members(ctx)
		if err != nil {
			return err
		}
		m, ok := etcdcluster.Find(list, j.peer)
		if !ok {
			return phase.Permanent(errRemoved)
		}
		initial := etcdcluster.InitialCluster(list, j.cfg.NodeName, j.peer)
		old, err := staticpod.InitialCluster(j.paths)
		switch {
		case err == nil && old != "" && m.Started():
			initial = old
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return phase.Permanent(err)
		}
		pod, err := staticpod.JoiningEtcdPod(j.cfg, initial)
		if err != nil {
			return phase.Permanent(err)
		}
		changed, err := staticpod.Write(j.paths, pod)
		if err != nil {
			return err
		}
		if changed {
			j.r.Step("wrote the manifest of %s", pod.Name)
		}
		if !m.Started() {
			return errors.New("the member has not said its name yet")
		}
		return nil
	})
	if err == nil {
		j.r.Step("this node's etcd has started")
	}
	return err
}

// promote gives the member its vote once it has the data, and waits until etcd has a
// healthy majority with it.
func (j joiner) promote(ctx context.Context) error {
	err := phase.Poll(ctx, j.r, "this node's etcd to have all data", interval, j.bound, func(ctx context.Context) error {
		list, err := j.client.Members(ctx)
		if err != nil {
			return err
		}
		m, ok := etcdcluster.Find(list, j.peer)
		switch {
		case !ok:
			return phase.Permanent(errRemoved)
		case !m.Learner:
			return nil
		}
		return j.client.Promote(ctx, m.ID)
	})
	if err != nil {
		return err
	}
	j.r.Step("this node's etcd has a vote")
	return phase.Poll(ctx, j.r, "a healthy majority of etcd", interval, j.bound, j.client.CheckQuorum)
}
