package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/kiln-os/kiln/internal/build"
	"github.com/kiln-os/kiln/internal/kubeclient"
	"github.com/kiln-os/kiln/internal/nodeimage"
	"github.com/kiln-os/kiln/internal/tokens"
)

// tokenFlags are the command line of token.
type tokenFlags struct {
	build.TokenOptions
	out, kubeconfig string
	apply           bool
}

func (a *app) tokenCommand() *cobra.Command {
	var f tokenFlags
	c := &cobra.Command{
		Use:   "token FILE",
		Short: "Make a new bootstrap token and stamp images with it",
		Long: `Make a new bootstrap token for a cluster whose token has expired, and write it into
the images that are in the output folder. It lives as long as the cluster file's
token lifetime says, from now. With --node the token is for that node alone: it gets
one of its own, whose description names it, and builds and stamps use it from then on.

A cluster that runs must be told of the token: --apply does it with secrets/admin.conf,
before anything else is changed. Otherwise secrets/new-tokens.yaml is to be given to
kubectl apply. A cluster whose first control plane has not been started yet learns it
from that node's image, which is stamped too.

Images that have been booted are left alone, as they read their stamp at the first boot
only. A machine that waits for a valid token has nothing to lose: --reset stamps its
disk all the same and removes its state, and its next boot is a first boot.`,
		Example: `  imagegen token cluster.yaml -o out/ --apply
  imagegen token cluster.yaml -o out/ && kubectl --kubeconfig out/secrets/admin.conf apply -f out/secrets/new-tokens.yaml
  imagegen token cluster.yaml -o out/ --apply --node worker-7
  sudo imagegen token cluster.yaml -o out/ --apply --node worker-7 --device /dev/sdX --reset`,
		Args:              exactArgs("FILE"),
		ValidArgsFunction: clusterFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.Image != "" && len(f.Nodes) != 1 {
				return usageError{errors.New("--image is stamped for one node: name it with --node NAME")}
			}
			return a.renewTokens(cmd.Context(), args[0], f)
		},
	}
	fl := c.Flags()
	fl.StringVarP(&f.out, "output", "o", "out", "output folder of the build, with the cluster's keys")
	fl.StringSliceVar(&f.Nodes, "node", nil, "make a token for this node alone; may be given more than once")
	fl.StringVar(&f.Image, "image", "", "existing image or disk to stamp for the node, instead of those of the output folder")
	fl.StringVar(&f.Image, "device", "", "the same as --image")
	fl.BoolVar(&f.Reset, "reset", false, "stamp images that have been booted, too, and remove the state of the nodes that they are")
	fl.BoolVar(&f.apply, "apply", false, "make the token known to the running cluster, with secrets/admin.conf")
	fl.StringVar(&f.kubeconfig, "kubeconfig", "", "make the token known to the running cluster with this kubeconfig")
	a.jsonFlag(c)
	completeFolder(c, "output")
	return c
}

func (a *app) renewTokens(ctx context.Context, file string, f tokenFlags) error {
	cluster, _, err := a.load(file)
	if err != nil {
		return err
	}
	if f.kubeconfig == "" && f.apply {
		f.kubeconfig = filepath.Join(f.out, build.SecretsDir, build.AdminConf)
	}
	if f.kubeconfig != "" {
		f.Apply = func(ctx context.Context, list []tokens.Token) error { return createTokens(ctx, f.kubeconfig, list) }
	}
	progress := a.reporter()
	result, err := build.RenewTokens(ctx, build.Options{Cluster: cluster, Out: f.out, Now: time.Now(), Progress: progress}, f.TokenOptions)
	err = orInterrupted(ctx, err)
	progress.Finish(err)
	if errors.Is(err, context.Canceled) {
		return a.interrupted(err)
	}
	if errors.Is(err, nodeimage.ErrBooted) {
		return fmt.Errorf("%w. If it has not joined the cluster yet: imagegen stamp --image %s --reset, which removes the node's state", err, f.Image)
	}
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(result)
	}
	return a.reportTokens(result, f.out)
}

func createTokens(ctx context.Context, kubeconfig string, list []tokens.Token) error {
	file, err := kubeclient.Read(kubeconfig)
	if err != nil {
		return err
	}
	client, err := file.Client()
	if err != nil {
		return err
	}
	for _, t := range list {
		if err := tokens.Create(ctx, client, t); err != nil {
			return fmt.Errorf("cluster at %s: %w; no image was changed", file.Server(), err)
		}
	}
	return nil
}

func (a *app) reportTokens(r *build.RenewedTokens, out string) error {
	for _, t := range r.Tokens {
		whose, until := "for all nodes", "never expires"
		if t.Node != "" {
			whose = "for node " + t.Node
		}
		if t.Expires != nil {
			until = "expires " + t.Expires.Format(time.RFC3339)
		}
		fmt.Fprintf(a.Out, "token %s\t%s\t%s\n", t.ID, whose, until)
	}
	for _, s := range r.Stamped {
		fmt.Fprintf(a.Out, "%s\t%s\tstamped\n", s.Node, s.Image)
	}
	for _, s := range r.Skipped {
		fmt.Fprintf(a.Out, "%s\t%s\tnot stamped: %s\n", s.Node, s.Image, s.Why)
	}
	if r.Manifest != "" {
		fmt.Fprintf(a.Out, "\nA running cluster learns it by:\n  kubectl --kubeconfig %s apply -f %s\n", filepath.Join(out, build.SecretsDir, build.AdminConf), r.Manifest)
	}
	return nil
}
