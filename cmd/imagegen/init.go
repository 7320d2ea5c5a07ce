package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/kiln-os/kiln/internal/spec"
)

func (a *app) initCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "init [FILE]",
		Short: "Write a commented cluster file to start from",
		Long:  "Write a commented cluster file, cluster.yaml unless FILE is given. A file that exists is never overwritten.",
		Example: `  imagegen init
  imagegen init clusters/home.yaml`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{fmt.Errorf("imagegen init takes one file at most, got %d", len(args))}
			}
			return nil
		},
		ValidArgsFunction: clusterFile,
		RunE: func(_ *cobra.Command, args []string) error {
			name := defaultClusterFile
			if len(args) == 1 {
				name = args[0]
			}
			// O_EXCL: the check and the creation are one step.
			f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
			if errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("%s exists already and is not overwritten; give another name, or move it away", name)
			}
			if err != nil {
				return err
			}
			_, err = f.Write(spec.Example())
			if err = errors.Join(err, f.Close()); err != nil {
				_ = os.Remove(name)
				return err
			}
			fmt.Fprintf(a.Out, "Wrote %s. Next: edit it, then run\n  imagegen build %s -o out/\n", name, name)
			return nil
		},
	}
}
