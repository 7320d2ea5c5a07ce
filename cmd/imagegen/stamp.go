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
	"github.com/kiln-os/kiln/internal/flash"
	"github.com/kiln-os/kiln/internal/nodeimage"
	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/internal/version"
)

func (a *app) stampCommand() *cobra.Command {
	var out string
	var formats []string
	var device string
	var yes bool
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

With --image the identity is written into a raw image file that is there already, of
the node's profile and not in use.

With --device it is written into the image on a disk or SD card, such as one that
imagegen flash wrote a base image to: a card becomes another node in a second. As
flash does, it refuses the disk that this machine runs from and disks that are mounted
or otherwise in use, asks before it writes, unless --yes is given, and reads back what
it wrote. DISK may be a loop device, or a file in the place of a disk; on Windows it is
\\.\PhysicalDriveN.

A crash at any instant leaves the old identity or the new one whole; run the command
again then.

A machine reads its identity at its first boot only. An image that has been booted is
therefore refused, unless --reset says that all state of the node that it was is to
be removed; its next boot is a first boot.`,
		Example: `  imagegen stamp cluster.yaml --node kiln-1 -o out/                   # writes out/kiln-1.img
  imagegen stamp cluster.yaml --node kiln-1 -o out/ --image card.img  # an image that is there
  imagegen stamp cluster.yaml --node kiln-1 -o out/ --image card.img --reset
  sudo imagegen stamp --device /dev/sdX --node worker-7   # a card that was flashed; asks
  sudo imagegen stamp --device /dev/sdX --node worker-7 --yes --json
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
			if device == "" && flash.IsDisk(s.Image) {
				device, s.Image = s.Image, ""
			}
			switch {
			case device != "" && s.Image != "":
				return usageError{errors.New("--device and --image name the same thing: give one of them")}
			case s.Node == "":
				return usageError{errors.New("imagegen stamp takes --node NAME: which node of the cluster file")}
			case len(formats) > 0 && (s.Image != "" || device != ""):
				return usageError{errors.New("--format is for a new image, and there is one already: only raw images can be stamped")}
			case s.Reset && s.Image == "" && device == "":
				return usageError{errors.New("--reset is for an existing image: name it with --image FILE or --device DISK")}
			case yes && device == "":
				return usageError{errors.New("--yes is for --device DISK: without it nothing is asked")}
			case a.json && device != "" && !yes:
				return usageError{errors.New("--json asks nothing: give --yes too, if the disk may become another node")}
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
			if device != "" {
				if s.Card, err = a.openCard(cmd.Context(), build.Options{Cluster: cluster, Out: out}, s, device, yes); err != nil {
					return bootedHint(err)
				}
				defer s.Card.Close()
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
			if err != nil {
				return bootedHint(err)
			}
			if a.json {
				return a.printJSON(result)
			}
			kib := (result.Written.Base + result.Written.Stamp + 1023) >> 10
			if s.Card != nil {
				fmt.Fprintf(a.Out, "%s\tnode %s\t%d KiB written, read back and compared\n", result.Image, result.Node, kib)
				return nil
			}
			fmt.Fprintf(a.Out, "%s\t%s\t%d KiB written\n", result.Node, result.Image, kib)
			a.printCommands(result.Images)
			return nil
		},
	}
	f := c.Flags()
	f.StringVarP(&out, "output", "o", "out", "output folder of the build, with the cluster's keys")
	f.StringVar(&s.Node, "node", "", "the node's name in the cluster file")
	f.StringVar(&s.Image, "image", "", "existing image file to write the identity into")
	a.formatFlag(c, &formats)
	f.StringVar(&device, "device", "", "disk or SD card with an image to write the identity into, such as /dev/sdX")
	f.BoolVarP(&yes, "yes", "y", false, "with --device: do not ask")
	f.BoolVar(&s.Reset, "reset", false, "if the image has been booted, remove all state of the node that it was")
	a.jsonFlag(c)
	completeFolder(c, "output")
	register(c, "node", completeNodes)
	register(c, "device", completeDisks)
	return c
}

// openCard checks and holds the disk or card that is to become a node's, and asks.
func (a *app) openCard(ctx context.Context, o build.Options, s build.StampOptions, path string, yes bool) (*flash.Target, error) {
	node, err := build.FindNode(o, s.Node)
	if err != nil {
		return nil, err
	}
	d, err := flash.CheckCard(path)
	if err != nil {
		return nil, err
	}
	t, err := flash.OpenTarget(d)
	if err != nil {
		return nil, err
	}
	holds, err := t.Holds(node.Name, node.Profile, s.Reset)
	if err == nil && !yes {
		err = a.confirm(ctx, fmt.Sprintf("On %s is %s.\nMake it node %s?", d.Describe(), holds, node.Name))
	}
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

func bootedHint(err error) error {
	if errors.Is(err, nodeimage.ErrBooted) {
		return fmt.Errorf("%w. Write a new image to the disk and stamp that, or give --reset, which removes the node's state", err)
	}
	return err
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
