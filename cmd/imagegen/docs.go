package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/manpage"
)

// docsCommand is for the Makefile, and hidden: it writes what packagers install.
func docsCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "docs DIR",
		Short:  "Write man pages and completions",
		Long:   "Write man/man1/*.1, and completions for bash, zsh and fish, below DIR.",
		Hidden: true,
		Args:   exactArgs("DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			date, err := manpage.Date(os.Getenv)
			if err != nil {
				return err
			}
			if err := writeCompletions(c.Root(), filepath.Join(args[0], "completions")); err != nil {
				return err
			}
			return manpage.Write(c.Root(), filepath.Join(args[0], "man"), 1, date)
		},
	}
}

// writeCompletions writes each shell's script under the name by which the shell finds it.
func writeCompletions(root *cobra.Command, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, s := range []struct {
		file  string
		write func(*bytes.Buffer) error
	}{
		{"imagegen", func(b *bytes.Buffer) error { return root.GenBashCompletionV2(b, true) }},
		{"_imagegen", func(b *bytes.Buffer) error { return root.GenZshCompletion(b) }},
		{"imagegen.fish", func(b *bytes.Buffer) error { return root.GenFishCompletion(b, true) }},
	} {
		var b bytes.Buffer
		if err := s.write(&b); err != nil {
			return fmt.Errorf("completion %s: %w", s.file, err)
		}
		if err := atomicfile.WriteFile(filepath.Join(dir, s.file), b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}
