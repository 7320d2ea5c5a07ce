package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/payload"
)

func (a *app) payloadCommand() *cobra.Command {
	var goarch string
	c := &cobra.Command{
		Use:   "payload",
		Short: "Compile what the nodes run, and list it",
		Long: `Compile Kubernetes, etcd, containerd, CoreDNS, the CNI plugins, flannel and pause
into the cache, as build does when they are missing, and list name, version and
file of each program.`,
		Example: "  imagegen payload --arch amd64",
		Args:    exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			target, err := arch.Get(goarch)
			if err != nil {
				return usageError{err}
			}
			p := newProgress(a.Err, false)
			p.Step("compile the payload for " + goarch)
			r, err := payload.Build(cmd.Context(), payload.Options{Arch: target, CacheDir: a.cacheDir, SourceDir: a.payloadDir, Progress: p.Log})
			p.finish(err)
			if err != nil {
				return err
			}
			for _, b := range r.Binaries {
				fmt.Fprintf(a.Out, "%s\t%s\t%s\n", b.Name, b.Version, b.Path)
			}
			return nil
		},
	}
	c.Flags().StringVar(&goarch, "arch", "amd64", "architecture, by its Go name")
	return c
}
