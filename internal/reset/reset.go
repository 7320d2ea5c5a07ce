// Package reset takes a node out of its cluster and brings it back to where its first
// boot began: what kubeadm reset does (cmd/kubeadm/app/cmd/phases/reset), and what it
// leaves to its user to do by hand.
//
// INPUTS: the node's file system, its kubeconfigs while it has them, containerd's
// socket, the kernel's mounts, interfaces and packet filters, and the stamp in the
// boot partition.
//
// OUTPUTS: nothing of the node in the cluster; no pods, mounts, rules and interfaces
// of Kubernetes on the node; empty folders where its state was. What Ignition
// delivered is kept, and put back from the stamp if it is gone or was changed by
// firstboot: Ignition does not run again, and the next first boot needs it.
//
// Every step looks at what there is and undoes that, so a reset can be repeated. A
// Marker on the disk says that one is under way: after a crash the next boot goes on
// with it instead of starting half a node.
package reset

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/phase"
)

// Options say how far a reset goes. They are kept in the Marker.
type Options struct {
	// Drain moves the node's pods to other nodes first.
	Drain bool `json:"drain,omitempty"`
	// KeepNode leaves the Node object in the cluster.
	KeepNode bool `json:"keepNode,omitempty"`
	// CleanupTmpDir empties /etc/kubernetes/tmp too, where kubeadm keeps backups.
	CleanupTmpDir bool `json:"cleanupTmpDir,omitempty"`
	// DrainTimeout bounds Drain.
	DrainTimeout time.Duration `json:"drainTimeout,omitempty"`
}

// Machine is what a reset changes besides files. Tests replace it.
type Machine interface {
	host.Units
	// Pods lists the pod sandboxes of the container runtime.
	Pods(ctx context.Context) ([]Pod, error)
	// RemovePod stops a pod sandbox with its containers and removes it.
	RemovePod(ctx context.Context, id string) error
	// Mounts lists mount points, in the order they were made.
	Mounts() ([]string, error)
	Unmount(path string) error
	// Network lists what Kubernetes has left in the kernel's network, as actions.
	Network(ctx context.Context, podSubnets []string) ([]Change, error)
	// Stamp returns the files that the node's stamp delivers; fs.ErrNotExist if the
	// node has no stamp.
	Stamp() ([]File, error)
}

// Pod is a pod sandbox.
type Pod struct{ ID, Namespace, Name string }

// Change is something to be undone.
type Change struct {
	Text string // "delete the interface cni0"
	Do   func(context.Context) error
	// Optional says that a failure is a warning: what is left does no harm, or
	// somebody else can remove it.
	Optional bool
}

// Node is the node that is reset.
type Node struct {
	Paths   host.Paths
	Machine Machine
	// Plan is the node's boot plan, or nil if it has none.
	Plan *bootplan.Plan
	// Name is the node's in the cluster.
	Name    string
	Options Options
	Report  phase.Report
}

// step is a part of a reset. Its list is made when the step's turn comes.
type step struct {
	name string
	list func(context.Context, Node) ([]Change, error)
}

// steps are in kubeadm's order, with drain and delete-node before, while the cluster
// can be spoken to, and what is left to the user after.
var steps = []step{
	{"drain", drain},
	{"delete-node", deleteNode},
	{"remove-etcd-member", removeEtcdMember},
	{"cleanup-node", stopKubelet},
	{"cleanup-node", unmount},
	{"cleanup-node", removePods},
	{"network", network},
	{"cleanup-node", emptyFolders},
	{"restore", restore},
}

// Run resets the node.
func (n Node) Run(ctx context.Context) error {
	if err := n.mark(); err != nil {
		return err
	}
	for _, s := range steps {
		changes, err := s.list(ctx, n)
		if err != nil {
			return fmt.Errorf("reset, %s: %w", s.name, err)
		}
		for _, c := range changes {
			if err := ctx.Err(); err != nil {
				return err
			}
			n.Report.Step("%s: %s", s.name, c.Text)
			err := c.Do(ctx)
			switch {
			case err == nil:
			case c.Optional && ctx.Err() == nil:
				n.Report.Warn("%s: %v", c.Text, err)
			default:
				return fmt.Errorf("reset, %s: %s: %w", s.name, c.Text, err)
			}
		}
	}
	return n.unmark()
}

// DryRun says what Run would do. It changes nothing.
func (n Node) DryRun(ctx context.Context) error {
	for _, s := range steps {
		changes, err := s.list(ctx, n)
		if err != nil {
			return fmt.Errorf("reset, %s: %w", s.name, err)
		}
		for _, c := range changes {
			n.Report.Step("[dryrun] %s: would %s", s.name, c.Text)
		}
	}
	return nil
}

func stopKubelet(ctx context.Context, n Node) ([]Change, error) {
	const unit = "kubelet.service"
	active, err := n.Machine.Active(ctx, unit)
	if err != nil || !active {
		return nil, err
	}
	return []Change{{Text: "stop " + unit, Do: func(ctx context.Context) error { return n.Machine.Stop(ctx, unit) }}}, nil
}

func removePods(ctx context.Context, n Node) ([]Change, error) {
	if _, err := os.Stat(n.Paths.Containerd()); errors.Is(err, os.ErrNotExist) {
		n.Report.Warn("there is no container runtime at %s: pods that it left, if any, are not removed", n.Paths.Containerd())
		return nil, nil
	}
	pods, err := n.Machine.Pods(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the pods of %s: %w; systemctl restart containerd may help", n.Paths.Containerd(), err)
	}
	var out []Change
	for _, p := range pods {
		out = append(out, Change{
			Text: fmt.Sprintf("remove the pod %s/%s", p.Namespace, p.Name),
			Do: func(ctx context.Context) error {
				return again(ctx, func() error { return n.Machine.RemovePod(ctx, p.ID) })
			},
		})
	}
	return out, nil
}

// retries and pause are kubeadm's for the removal of containers.
const (
	retries = 5
	pause   = time.Second
)

func again(ctx context.Context, f func() error) (err error) {
	for i := range retries {
		if i > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(pause):
			}
		}
		if err = f(); err == nil {
			return nil
		}
	}
	return err
}

func network(ctx context.Context, n Node) ([]Change, error) {
	var subnets []string
	if n.Plan != nil {
		subnets = n.Plan.Cluster.PodSubnets
	}
	return n.Machine.Network(ctx, subnets)
}
