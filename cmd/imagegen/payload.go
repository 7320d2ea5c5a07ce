package main

import (
	"context"
	"errors"
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
		Example: `  imagegen payload
  imagegen payload --arch amd64 --json`,
		Args:              exactArgs(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			target, err := arch.Get(goarch)
			if err != nil {
				return usageError{err}
			}
			p := a.reporter()
			p.Step("compile the payload for " + goarch)
			r, err := payload.Build(cmd.Context(), payload.Options{Arch: target, CacheDir: a.cacheDir, SourceDir: a.payloadDir, Progress: p.Log})
			err = orInterrupted(cmd.Context(), err)
			p.Finish(err)
			if errors.Is(err, context.Canceled) {
				return a.interrupted(err)
			}
			if err != nil {
				return err
			}
			if a.json {
				return a.printPayload(r)
			}
			for _, b := range r.Binaries {
				fmt.Fprintf(a.Out, "%s\t%s\t%s\n", b.Name, b.Version, b.Path)
			}
			return nil
		},
	}
	c.Flags().StringVar(&goarch, "arch", "amd64", "architecture, by its Go name")
	completeWords(c, "arch", arch.Names()...)
	a.jsonFlag(c)
	return c
}

// printPayload prints the list for programs.
func (a *app) printPayload(r payload.Result) error {
	type program struct {
		payload.Binary
		File string `json:"file"`
	}
	programs := make([]program, 0, len(r.Binaries))
	for _, b := range r.Binaries {
		programs = append(programs, program{b, b.Path})
	}
	return a.printJSON(programs)
}
