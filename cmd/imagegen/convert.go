package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kiln-os/kiln/images/format"
	"github.com/kiln-os/kiln/internal/build"
	"github.com/kiln-os/kiln/internal/sparse"
	"github.com/kiln-os/kiln/profiles"
)

func (a *app) convertCommand() *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:   "convert IMAGE FILE",
		Short: "Write a raw image in another format",
		Long: `Write a raw disk image in another format: the one that FILE's extension stands for,
or that --format names. FILE appears whole or not at all, readable by you alone, since
images of nodes hold keys. The same image and the same name give the same bytes; time
fields of the format are SOURCE_DATE_EPOCH, else 2000-01-01.`,
		Example: `  imagegen convert out/kiln-1.img kiln-1.vhd
  imagegen convert out/kiln-1.img kiln-1.qcow2 --format qcow2-compressed
  imagegen convert out/kiln-1.img kiln-1.img.zst --json   # for programs
  imagegen help formats`,
		Args:              exactArgs("IMAGE", "FILE"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			var f format.Format
			var err error
			if name == "" {
				f, err = format.ForFile(args[1])
			} else {
				f, err = format.Get(name)
			}
			if err != nil {
				return usageError{err}
			}
			return a.convert(cmd.Context(), args[0], args[1], f)
		},
	}
	c.ValidArgsFunction = func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveDefault
	}
	c.Flags().StringVar(&name, "format", "", "format of FILE (default: the one of its extension)")
	completeWords(c, "format", format.Names()...)
	a.jsonFlag(c)
	return c
}

func (a *app) convert(ctx context.Context, src, dst string, f format.Format) error {
	when, err := build.SourceDate(format.Epoch)
	if err != nil {
		return err
	}
	report := a.reporter()
	report.Step("write " + f.Name)
	err = func() error {
		total, err := dataSize(src)
		if err != nil {
			return err
		}
		done := int64(0)
		name := strings.TrimSuffix(filepath.Base(dst), f.Ext)
		return f.Convert(ctx, dst, src, format.Options{Name: name, Time: when, Progress: func(n int64) {
			done = min(done+n, total)
			report.Bytes(done, total)
		}})
	}()
	err = orInterrupted(ctx, err)
	report.Finish(err)
	if errors.Is(err, context.Canceled) {
		return a.interrupted(err)
	}
	if err != nil {
		return err
	}
	st, err := os.Stat(dst)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]any{"file": dst, "format": f.Name, "bytes": st.Size()})
	}
	fmt.Fprintf(a.Out, "%s\t%s\t%d MiB\n", dst, f.Name, (st.Size()+1<<20-1)>>20)
	return nil
}

func dataSize(file string) (int64, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	n, err := sparse.DataSize(f)
	return n, errors.Join(err, f.Close())
}

// formatFlag gives a command --format, for the images that it makes.
func (a *app) formatFlag(c *cobra.Command, formats *[]string) {
	c.Flags().StringSliceVar(formats, "format", nil, "formats of the images, instead of the cluster file's or the profile's; may be repeated (see imagegen help formats)")
	completeWords(c, "format", format.Names()...)
}

// checkFormats makes an unknown format a wrong command line.
func checkFormats(names []string) error {
	for _, n := range names {
		if _, err := format.Get(n); err != nil {
			return usageError{err}
		}
	}
	return nil
}

// formatHint is what a build must be told to make a raw image.
func formatHint(p profiles.Profile) string {
	if slices.Contains(p.Formats, format.Raw) {
		return ""
	}
	return " --format " + format.Raw
}

func formatsHelp() string {
	var b strings.Builder
	b.WriteString("Formats of disk images, as --format names them:\n\n")
	for _, f := range format.All() {
		fmt.Fprintf(&b, "  %-17s NODE%-10s %s\n", f.Name, f.Ext, f.About)
	}
	b.WriteString("\nWhat a profile's images have if neither --format nor the cluster file says otherwise:\n\n")
	for _, n := range profiles.Names() {
		// Profiles are part of the program, and a test loads all of them.
		if p, err := profiles.Load(n); err == nil {
			fmt.Fprintf(&b, "  %-17s %s\n", n, strings.Join(p.Formats, ", "))
		}
	}
	return b.String()
}
