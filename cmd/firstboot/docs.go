//go:build docs

package main

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/kiln-os/kiln/internal/manpage"
)

// docsCommands is in the program only when the Makefile builds it to write the
// manual: a node has no use for a renderer of man pages.
func docsCommands() []*cobra.Command {
	return []*cobra.Command{{
		Use: "docs DIR", Short: "Write man pages", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			date, err := manpage.Date(os.Getenv)
			if err != nil {
				return err
			}
			return manpage.Write(c.Root(), filepath.Join(args[0], "man"), 8, date)
		},
	}}
}
