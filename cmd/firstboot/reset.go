package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/internal/reset"
)

// resetFlags are the command line of reset.
type resetFlags struct {
	reset.Options
	force, dryRun bool
}

func (a *app) resetCommand() *cobra.Command {
	var f resetFlags
	c := &cobra.Command{
		Use: "reset", Short: "Take this node out of its cluster and undo its first boot", Args: noArgs,
		Long: `Take this node out of its cluster and undo what its first boot did, in this order:

  drain               with --drain: move its pods to other nodes
  delete-node         stop the kubelet and delete the Node object, where the node may
  remove-etcd-member  on a control plane: leave etcd
  cleanup-node        stop the kubelet, unmount volumes, remove all pods of containerd
  network             delete the packet filter rules, IPVS servers, interfaces and
                      routes of kube-proxy, flannel and the CNI plugins, and only those
  cleanup-node        empty /etc/kubernetes/manifests, /etc/kubernetes/pki,
                      /var/lib/kubelet, /var/lib/etcd, /etc/cni/net.d and the like;
                      delete the kubeconfigs and firstboot's record
  restore             put back from the stamp what the next first boot needs

What Ignition delivered stays: the boot plan, and on a control plane the cluster's CAs
with their keys and the keys of service accounts. They are in the stamp in the boot
partition as well; to be rid of them, write another image to the disk. The boot plan
is made that of the stamp again, whose token may have expired: imagegen token. The
cluster's data ends with its last control plane.

Container images, SSH keys, the host's name and network, and ~/.kube/config stay.

firstboot run, or the next boot, then sets the node up again. After a crash at any
instant run reset again, or let the next boot go on with it.`,
		Example: `  firstboot reset --dry-run            # what it would do
  firstboot reset --drain              # asks first
  firstboot reset --force && firstboot run
  firstboot reset --force && systemctl mask firstboot && poweroff   # it stays out`,
		RunE: func(c *cobra.Command, _ []string) error { return a.reset(c.Context(), f) },
	}
	fl := c.Flags()
	fl.BoolVarP(&f.force, "force", "f", false, "do not ask")
	fl.BoolVar(&f.dryRun, "dry-run", false, "say what would be done, and do nothing")
	fl.BoolVar(&f.Drain, "drain", false, "move the node's pods to other nodes first")
	fl.DurationVar(&f.DrainTimeout, "drain-timeout", reset.DefaultDrainTimeout, "how long pods may take to move, and disruption budgets to allow it")
	fl.BoolVar(&f.KeepNode, "keep-node", false, "leave the Node object in the cluster")
	fl.BoolVar(&f.CleanupTmpDir, "cleanup-tmp-dir", false, "empty /etc/kubernetes/tmp too, where kubeadm keeps backups")
	return c
}

func (a *app) reset(ctx context.Context, f resetFlags) error {
	switch {
	case a.paths.Root != "/":
		return usageError{fmt.Errorf("--root %s: only the running machine can be reset; to reset a disk: imagegen stamp --image DISK --reset", a.paths.Root)}
	case f.DrainTimeout <= 0:
		return usageError{fmt.Errorf("--drain-timeout %s: give a duration such as 5m", f.DrainTimeout)}
	}
	n, err := a.resetNode(f.Options)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("only root can reset a node")
	}
	if f.dryRun {
		return n.DryRun(ctx)
	}
	if !f.force {
		if err := a.confirm(n.Name); err != nil {
			return err
		}
	}
	// One that runs holds the lock; one that is done would not start again.
	if err := n.Machine.Stop(ctx, "firstboot.service"); err != nil {
		return err
	}
	if err := a.runReset(ctx, n); err != nil {
		return fmt.Errorf("%w\nThe node is half reset: run firstboot reset again, or let the next boot go on with it", err)
	}
	_, err = fmt.Fprintln(a.Out, "The node is reset. firstboot run, or the next boot, sets it up again by its boot plan; systemctl mask firstboot keeps it from that.")
	return err
}

// resetNode makes the node that is to be reset.
func (a *app) resetNode(o reset.Options) (reset.Node, error) {
	plan, err := a.nodePlan()
	if err != nil {
		return reset.Node{}, err
	}
	name, err := os.Hostname()
	if err != nil {
		return reset.Node{}, err
	}
	if plan != nil && !plan.Node.NameFromPlatform { // else it is the one that it has
		name = cmp.Or(plan.Node.Name, name)
	}
	return reset.Node{
		Paths: a.paths, Machine: reset.ThisMachine(a.paths), Plan: plan, Name: strings.ToLower(strings.TrimSpace(name)),
		Options: o, Report: phase.NewPrinter(a.Err),
	}, nil
}

// runReset resets the node while nobody else is at work on it.
func (a *app) runReset(ctx context.Context, n reset.Node) error {
	unlock, err := lock(a.paths.At("/run/firstboot.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	if err := n.Run(ctx); err != nil {
		return err
	}
	var plan bootplan.Plan
	if n.Plan != nil {
		plan = *n.Plan
	}
	s := newScreen(a.paths, plan, a.warn)
	s.write(s.text("reset; the next boot sets it up again", detail{}))
	return nil
}

// finishReset goes on with a reset that a crash cut off. What it has undone cannot be
// used, and what is left belongs to a node that is no more.
func (a *app) finishReset(ctx context.Context) error {
	if a.paths.Root != "/" {
		return nil
	}
	pending, err := reset.Pending(a.paths)
	if err != nil || pending == nil {
		return err
	}
	n, err := a.resetNode(pending.Options)
	if err != nil {
		return err
	}
	n.Report.Step("going on with a reset that was cut off")
	if n.Options.Drain {
		// The cluster may be gone with what was undone, and pods with the reboot.
		n.Options.Drain = false
	}
	return a.runReset(ctx, n)
}

// confirm asks at a terminal.
func (a *app) confirm(name string) error {
	in, ok := a.In.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return usageError{errors.New("there is no terminal to ask at: give --force to reset without asking")}
	}
	fmt.Fprintf(a.Err, "This takes node %s out of its cluster and deletes its certificates, volumes and etcd data.\nAre you sure you want to proceed? [y/N]: ", name)
	answer, err := bufio.NewReader(in).ReadString('\n')
	if err != nil {
		return err
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return errors.New("not confirmed: nothing was changed")
	}
	return nil
}
