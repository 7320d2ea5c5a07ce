package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"time"

	"github.com/spf13/cobra"

	"github.com/kiln-os/kiln/internal/build"
	"github.com/kiln-os/kiln/internal/cache"
	"github.com/kiln-os/kiln/internal/version"
)

func (a *app) buildCommand() *cobra.Command {
	var out string
	var locked, offline bool
	c := &cobra.Command{
		Use:   "build FILE",
		Short: "Bake a bootable disk image for each node",
		Long: `Bake a bootable disk image for each node of a cluster file. The output folder gets

  NODE.img         a raw disk image for UEFI firmware
  secrets/         the cluster's keys, tokens and admin.conf (mode 0700); building
                   again with it gives the same cluster
  kiln.lock.yaml   the Debian packages, as they were resolved

What is the same for all nodes is kept in the cache. The first build compiles
Kubernetes, which takes minutes.`,
		Example: `  imagegen build cluster.yaml
  imagegen build cluster.yaml -o /srv/images --json       # for programs
  imagegen build cluster.yaml --quiet                     # for cron: only errors on standard error
  imagegen build cluster.yaml -o out --locked --offline   # the same packages again, without a network`,
		Args:              exactArgs("FILE"),
		ValidArgsFunction: clusterFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			cluster, manifest, err := a.load(args[0])
			if err != nil {
				return err
			}
			store, err := cache.Open(a.cacheDir)
			if err != nil {
				return err
			}
			progress := a.reporter()
			store.Log = progress.Log
			result, err := build.Run(cmd.Context(), build.Options{
				Cluster: cluster, Payload: manifest, Out: out, Mirror: a.mirror, Source: a.payloadDir, Cache: store,
				Release: version.Version, Locked: locked, Offline: offline, Now: time.Now(), Progress: progress,
			})
			err = orInterrupted(cmd.Context(), err)
			progress.Finish(err)
			if errors.Is(err, context.Canceled) {
				return a.interrupted(err)
			}
			if err != nil {
				return err
			}
			return a.reportBuild(result, args[0], out)
		},
	}
	c.Flags().StringVarP(&out, "output", "o", "out", "output folder")
	c.Flags().BoolVar(&locked, "locked", false, "take the packages of the output folder's kiln.lock.yaml; resolve nothing anew")
	c.Flags().BoolVar(&offline, "offline", false, "take everything from the caches; fetch nothing")
	a.jsonFlag(c)
	completeFolder(c, "output")
	return c
}

func (a *app) reportBuild(r *build.Result, file, out string) error {
	if a.json {
		return a.printJSON(map[string]any{"images": r.Images, "adminConf": r.Admin, "lock": r.Lock, "steps": r.Times})
	}
	nodes := make([]string, 0, len(r.Images))
	for n := range r.Images {
		nodes = append(nodes, n)
	}
	sort.Strings(nodes)
	for _, n := range nodes {
		st, err := os.Stat(r.Images[n])
		if err != nil {
			return err
		}
		fmt.Fprintf(a.Out, "%s\t%s\t%d MiB\n", n, r.Images[n], st.Size()>>20)
	}
	fmt.Fprintf(a.Out, "\nKeys and kubeconfig: %s (keep this folder)\nTo run it here:      imagegen boot %s -o %s\n", filepath.Join(out, build.SecretsDir), file, out)
	return nil
}
