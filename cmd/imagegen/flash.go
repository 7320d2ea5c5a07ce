package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kiln-os/kiln/internal/flash"
	"github.com/kiln-os/kiln/internal/progress"
)

func (a *app) flashCommand() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "flash IMAGE [DISK]",
		Short: "Write an image to a disk or SD card, and read it back",
		Long: `Write the image of a node, or a base image, to a disk or SD card. IMAGE is a raw image,
or what zstd or xz made of one. Without DISK, print the disks of this machine: size,
model, and whether they are free.

The disk that this machine runs from, mounted disks and those that are too small for
the node are refused. What is on the disk is lost, so imagegen asks before it writes,
unless --yes is given. Only blocks that are used are written; all of them are read
back from the disk and compared. The partition table is written last: nothing starts
from a disk that was not finished. Run the command again then.

DISK may be a file in the place of a disk, such as one for a virtual machine. On Windows
disks are called \\.\PhysicalDriveN, and writing takes an administrator. A card or stick
that Windows has mounted is dismounted while it is written to, unless a file on it is open.`,
		Example: `  imagegen flash out/kiln-1.img                         # which disks there are
  sudo imagegen flash out/kiln-1.img /dev/sdX           # asks, writes, compares
  sudo imagegen flash out/kiln-1.img.zst /dev/sdX --yes
  sudo imagegen flash out/kiln-1.img /dev/sdX --yes --json   # for programs
  imagegen flash out/kiln-1.img \\.\PhysicalDrive3          # on Windows, as administrator
  truncate -s 8G card.img && imagegen flash out/kiln-1.img card.img --yes`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				return nil
			}
			return exactArgs("IMAGE", "DISK")(c, args)
		},
		ValidArgsFunction: completeFlash,
		RunE: func(cmd *cobra.Command, args []string) error {
			image, err := flash.Open(args[0])
			if err != nil {
				return err
			}
			defer image.Close()
			if len(args) == 1 {
				return a.listDisks(image)
			}
			if a.json && !yes {
				return usageError{errors.New("--json asks nothing: give --yes too, if what is on the disk may be lost")}
			}
			return a.flash(cmd.Context(), image, args[1], yes)
		},
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask: what is on the disk may be lost")
	a.jsonFlag(c)
	return c
}

// listDisks prints the disks of this machine.
func (a *app) listDisks(i *flash.Image) error {
	disks, err := flash.List()
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]any{"disks": slices.Concat([]flash.Disk{}, disks)})
	}
	if len(disks) == 0 {
		fmt.Fprintln(a.Err, "imagegen: this machine shows no disks here; is the card put in?")
		return nil
	}
	if err := flash.Print(a.Out, disks); err != nil {
		return err
	}
	fmt.Fprintf(a.Err, "\nTo write the image to one that is free: imagegen flash %s DISK\n", i.Path)
	return nil
}

func (a *app) flash(ctx context.Context, i *flash.Image, path string, yes bool) error {
	d, err := i.Check(path)
	if err != nil {
		return err
	}
	t, err := flash.OpenTarget(d)
	if err != nil {
		return err
	}
	defer t.Close()
	if !yes {
		what := i.Path
		if i.Node != "" {
			what += ", node " + i.Node
		}
		if err := a.confirm(ctx, fmt.Sprintf("All that is on %s will be lost.\nWrite %s to it?", d.Describe(), what)); err != nil {
			return err
		}
	}
	report := a.reporter()
	r, err := i.Write(ctx, t, report)
	err = orInterrupted(ctx, err)
	report.Finish(err)
	if errors.Is(err, context.Canceled) {
		text := fmt.Sprintf("interrupted: %s is not complete, and nothing starts from it; flash it again", path)
		if a.json {
			progress.WriteEvent(a.Err, progress.Event{Event: progress.EventError, Message: text})
		} else {
			fmt.Fprintf(a.Err, "imagegen: %s\n", text)
		}
		return shownError{err}
	}
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(r)
	}
	what := "base image, no node's yet: imagegen stamp --node NAME --device " + path
	if r.Node != "" {
		what = "node " + r.Node
	}
	fmt.Fprintf(a.Out, "%s\t%s\t%.1f MB written, %.1f MB/s, read back and compared\n", path, what, float64(r.Written)/1e6, float64(r.Written)/1e6/max(r.Seconds, 0.001))
	return nil
}

// confirm asks once. Anything but yes is no.
func (a *app) confirm(ctx context.Context, question string) error {
	fmt.Fprintf(a.Err, "%s [y/N] ", question)
	answer := make(chan string, 1)
	go func() {
		line, err := bufio.NewReader(a.In).ReadString('\n')
		if err == io.EOF && line == "" {
			fmt.Fprintln(a.Err) // nobody there to type it
		}
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case s := <-answer:
		if s == "y" || s == "yes" {
			return nil
		}
		return errors.New("nothing was written: answer y, or give --yes")
	case <-ctx.Done():
		fmt.Fprintln(a.Err)
		return a.interrupted(ctx.Err())
	}
}

// completeFlash completes the disk with those that are free.
func completeFlash(c *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) != 1 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return completeDisks(c, args, toComplete)
}

// completeDisks completes a disk that is free; files may stand in the place of one.
func completeDisks(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	disks, err := flash.List()
	if err != nil {
		return nil, cobra.ShellCompDirectiveDefault
	}
	var free []cobra.Completion
	for _, d := range disks {
		if d.Free() {
			free = append(free, cobra.CompletionWithDesc(d.Path, d.Describe()))
		}
	}
	return free, cobra.ShellCompDirectiveDefault
}
