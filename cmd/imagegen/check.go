package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/kiln-os/kiln/internal/render"
	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/payload"
	"github.com/kiln-os/kiln/profiles"
)

func (a *app) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Print everything that is wrong with a cluster file",
		Long: `Print everything that is wrong with a cluster file, with kubeadm's documents and the
Butane snippets in it, and with the files that it names: each mistake with its line
and column, and what would be right. Nothing is built and nothing is written.`,
		Example:           "  imagegen check cluster.yaml",
		Args:              exactArgs("FILE"),
		ValidArgsFunction: clusterFile,
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := a.load(args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(a.Out, "%s: cluster %q, %d node(s), Kubernetes %s: no mistakes\n", args[0], c.Name, len(c.Nodes), c.KubernetesVersion)
			return nil
		},
	}
}

// load reads a cluster file and prints its mistakes.
func (a *app) load(file string) (*spec.Cluster, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w; imagegen init writes a cluster file to start from", err)
	}
	if err != nil {
		return nil, err
	}
	c, mistakes := spec.Parse(file, data, spec.Known{Profiles: profiles.Names(), Versions: []string{payload.KubernetesVersion}})
	mistakes = append(mistakes, render.CheckSnippets(c)...)
	if mistakes.Sort(); len(mistakes) == 0 {
		return c, nil
	}
	return nil, a.showMistakes(file, mistakes)
}
