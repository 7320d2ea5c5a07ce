package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kiln-os/kiln/images/deb"
	"github.com/kiln-os/kiln/images/format"
	"github.com/kiln-os/kiln/images/osbase"
	"github.com/kiln-os/kiln/internal/build"
	"github.com/kiln-os/kiln/internal/cache"
	"github.com/kiln-os/kiln/internal/version"
)

func (a *app) buildCommand() *cobra.Command {
	var out, suite, archiveDate string
	var formats []string
	var locked, offline bool
	c := &cobra.Command{
		Use:   "build FILE",
		Short: "Bake a bootable disk image for each node",
		Long: `Bake a bootable disk image for each node of a cluster file. The output folder gets

  NODE.img         a disk image for UEFI firmware, of ppc64le for Open Firmware; in
                   other formats than raw it has another extension, see imagegen
                   help formats
  secrets/         the cluster's keys, tokens and admin.conf (mode 0700); building
                   again with it gives the same cluster
  kiln.lock.yaml   the Debian packages, as they were resolved

A profile of a cloud has that cloud's format, and for each image the commands are
printed that upload and register it with the cloud's own program: imagegen itself
talks to no cloud. The commands are for a POSIX shell; what is yours to choose is a
variable in them, such as $BUCKET.

What is the same for all nodes is kept in the cache. The first build compiles
Kubernetes, which takes minutes.`,
		Example: `  imagegen build cluster.yaml
  imagegen build cluster.yaml -o /srv/images --json       # for programs
  imagegen build cluster.yaml --quiet                     # for cron: only errors on standard error
  imagegen build cluster.yaml --format raw,qcow2          # instead of those of cluster file and profile
  imagegen build cluster.yaml --archive-date 2026-11-01   # from a mirror that stands still since
  imagegen build cluster.yaml -o out --locked --offline   # the same packages again, without a network`,
		Args:              exactArgs("FILE"),
		ValidArgsFunction: clusterFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormats(formats); err != nil {
				return err
			}
			if suite != "" {
				if _, err := osbase.GetSuite(suite); err != nil {
					return usageError{err}
				}
			}
			if archiveDate != "" {
				if _, err := deb.ParseDay(archiveDate); err != nil {
					return usageError{fmt.Errorf("--archive-date: %w", err)}
				}
			}
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
			for _, n := range cluster.Nodes {
				if note := nameServerNote(n); note != "" {
					progress.Log("note: " + note)
				}
			}
			result, err := build.Run(cmd.Context(), build.Options{
				Cluster: cluster, Payload: manifest, Out: out, Mirror: a.mirror, Suite: suite, ArchiveDate: archiveDate, Source: a.payloadDir, Cache: store,
				Release: version.Version, Formats: formats, Locked: locked, Offline: offline, Now: time.Now(), Progress: progress,
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
	a.formatFlag(c, &formats)
	c.Flags().StringVar(&suite, "suite", "", "release of Debian for all nodes (default: that of the cluster file, the profile, or "+osbase.DefaultSuite+")")
	completeWords(c, "suite", osbase.Suites()...)
	c.Flags().StringVar(&archiveDate, "archive-date", "", "day such as 2026-11-01 as of which the archive must be valid, for a mirror that stands still (default: that of the cluster file, or now)")
	c.Flags().BoolVar(&locked, "locked", false, "take the packages of the output folder's kiln.lock.yaml; resolve nothing anew")
	c.Flags().BoolVar(&offline, "offline", false, "take everything from the caches; fetch nothing")
	a.jsonFlag(c)
	completeFolder(c, "output")
	return c
}

func (a *app) reportBuild(r *build.Result, file, out string) error {
	if a.json {
		first := map[string]string{}
		for _, i := range r.Images {
			if first[i.Node] == "" {
				first[i.Node] = i.File
			}
		}
		return a.printJSON(map[string]any{"images": first, "files": r.Images, "adminConf": r.Admin, "lock": r.Lock, "steps": r.Times})
	}
	images := slices.Clone(r.Images)
	slices.SortStableFunc(images, func(x, y build.Image) int { return strings.Compare(x.Node, y.Node) })
	bootable := false
	for _, i := range images {
		if err := a.printImage(i); err != nil {
			return err
		}
		bootable = bootable || i.Format == format.Raw
	}
	a.printCommands(images)
	if r.Admin == "" {
		return nil // workers of a cluster that there is
	}
	fmt.Fprintf(a.Out, "\nKeys and kubeconfig: %s (keep this folder)\n", filepath.Join(out, build.SecretsDir))
	if bootable {
		fmt.Fprintf(a.Out, "To run it here:      imagegen boot %s -o %s\n", file, out)
	}
	return nil
}

// printImage prints the line of an image: its node, file and size. Raw images are as
// large as the disk, the others as their files.
func (a *app) printImage(i build.Image) error {
	st, err := os.Stat(i.File)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.Out, "%s\t%s\t%d MiB\n", i.Node, i.File, (st.Size()+1<<20-1)>>20)
	return nil
}

// printCommands prints what takes the images to their platforms.
func (a *app) printCommands(images []build.Image) {
	for _, i := range images {
		if len(i.Commands) > 0 {
			fmt.Fprintf(a.Out, "\n# %s, profile %s\n%s\n", i.File, i.Profile, strings.Join(i.Commands, "\n"))
		}
	}
}
