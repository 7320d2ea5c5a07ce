package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// clusterFile completes the one argument FILE.
func clusterFile(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return []cobra.Completion{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
}

// completeFolder completes a flag's value with folders.
func completeFolder(c *cobra.Command, flag string) {
	register(c, flag, func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveFilterDirs
	})
}

// completeWords completes a flag's value with the words, and never with files.
// Without words there is nothing to offer, as for a number.
func completeWords(c *cobra.Command, flag string, words ...string) {
	register(c, flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

func register(c *cobra.Command, flag string, f cobra.CompletionFunc) {
	if err := c.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic(err) // the flag is not there, or has a function already
	}
}

// setUpCompletion completes the global flags, and gives cobra's own command
// examples: how a shell is told for good is in its subcommands' texts.
func setUpCompletion(root *cobra.Command) {
	completeFolder(root, "cache")
	completeFolder(root, "payload-dir")
	completeWords(root, "mirror")
	root.InitDefaultCompletionCmd()
	c, _, err := root.Find([]string{"completion"})
	if err != nil {
		panic(err)
	}
	c.Example = fmt.Sprintf("  source <(%s completion bash)   # for this shell", root.Name())
	for _, shell := range c.Commands() {
		shell.Example = fmt.Sprintf("  %s completion %s", root.Name(), shell.Name())
	}
}
