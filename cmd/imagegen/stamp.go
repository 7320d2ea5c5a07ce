package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/kiln-os/kiln/internal/build"
	"github.com/kiln-os/kiln/internal/cache"
	"github.com/kiln-os/kiln/internal/nodeimage"
	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/internal/version"
)

func (a *app) stampCommand() *cobra.Command {
	var out string
	var formats []string
	var device string
	var s build.StampOptions
	c := &cobra.Command{
		Use:   "stamp [FILE] --node NAME",
		Short: "Make the image of one node, or make an existing image that node's",
		Long: `Make the image of one node of a cluster file, cluster.yaml by default. The node's
identity (its Ignition config with name, addresses and keys) is written into a copy of
the base image that the last build into the output folder used; without one, it is
made as build does.

The image has the formats of the cluster file or the profile, unless --format names
others.

With --image the identity is written into an image that is there already: a raw image
file, or a disk such as an SD card that an image of the node's profile was written to,
which --device names. It must not be in use. A crash at any instant leaves the old
identity or the new one whole; run the command again then.

A machine reads its identity at its first boot only. An image that has been booted is
therefore refused, unless --reset says that all state of the node that it was is to
be removed; its next boot is a first boot.`,
		Example: `  imagegen stamp cluster.yaml --node kiln-1 -o out/                   # writes out/kiln-1.img
  imagegen stamp cluster.yaml --node kiln-1 -o out/ --image card.img  # an image that is there
  sudo imagegen stamp cluster.yaml --node kiln-1 -o out/ --device /dev/sdX  # a card that was flashed
  imagegen stamp cluster.yaml --node kiln-1 -o out/ --image card.img --reset
  sudo imagegen stamp --device /dev/sdX --node worker-7
  imagegen stamp cluster.yaml --node kiln-1 --json                    # for programs`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return exactArgs("FILE")(c, args)
		},
		ValidArgsFunction: clusterFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			file := defaultClusterFile
			if len(args) > 0 {
				file = args[0]
			}
			switch {
			case device != "" && s.Image != "":
				return usageError{errors.New("--device and --image name the same thing: give one of them")}
			case device != "":
				if st, err := os.Stat(device); err != nil {
					return err
				} else if st.Mode()&os.ModeDevice == 0 {
					return usageError{fmt.Errorf("%s is no disk: an image file is named with --image", device)}
				}
				s.Image = device
			}
			switch {
			case s.Node == "":
				return usageError{errors.New("imagegen stamp takes --node NAME: which node of the cluster file")}
			case len(formats) > 0 && s.Image != "":
				return usageError{errors.New("--format is for a new image, and --image names one that is there: only raw images can be stamped")}
			case s.Reset && s.Image == "":
				return usageError{errors.New("--reset is for an existing image: name it with --image FILE or --device DISK")}
			}
			if err := checkFormats(formats); err != nil {
				return err
			}
			cluster, manifest, err := a.load(file)
			if err != nil {
				return err
			}
			store, err := cache.Open(a.cacheDir)
			if err != nil {
				return err
			}
			progress := a.reporter()
			store.Log = progress.Log
			result, err := build.Stamp(cmd.Context(), build.Options{
				Cluster: cluster, Payload: manifest, Out: out, Mirror: a.mirror, Source: a.payloadDir, Cache: store,
				Release: version.Version, Formats: formats, Now: time.Now(), Progress: progress,
			}, s)
			err = orInterrupted(cmd.Context(), err)
			progress.Finish(err)
			if errors.Is(err, context.Canceled) {
				return a.interrupted(err)
			}
			if errors.Is(err, nodeimage.ErrBooted) {
				return fmt.Errorf("%w. Write a new image to the disk and stamp that, or give --reset, which removes the node's state", err)
			}
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(result)
			}
			fmt.Fprintf(a.Out, "%s\t%s\t%d KiB written\n", result.Node, result.Image, (result.Written.Base+result.Written.Stamp+1023)>>10)
			a.printCommands(result.Images)
			return nil
		},
	}
	f := c.Flags()
	f.StringVarP(&out, "output", "o", "out", "output folder of the build, with the cluster's keys")
	f.StringVar(&s.Node, "node", "", "the node's name in the cluster file")
	f.StringVar(&s.Image, "image", "", "existing image file or disk to write the identity into")
	a.formatFlag(c, &formats)
	f.StringVar(&device, "device", "", "disk or SD card with an image to write the identity into, such as /dev/sdX")
	f.BoolVar(&s.Reset, "reset", false, "if the image has been booted, remove all state of the node that it was")
	a.jsonFlag(c)
	completeFolder(c, "output")
	register(c, "node", completeNodes)
	return c
}

// completeNodes completes the names of the cluster file's nodes.
func completeNodes(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	file := defaultClusterFile
	if len(args) > 0 {
		file = args[0]
	}
	var names []cobra.Completion
	if data, err := os.ReadFile(file); err == nil {
		// A file with mistakes may still name its nodes.
		cluster, _ := spec.Parse(file, data, spec.Known{})
		for _, n := range cluster.Nodes {
			names = append(names, n.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
