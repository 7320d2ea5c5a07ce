package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/version"
)

// Streams are the program's standard streams; scripts and tests replace them.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// app is what every verb shares.
type app struct {
	Streams
	paths host.Paths
}

// Run executes one command line. Results go to s.Out, progress and messages to s.Err.
func Run(ctx context.Context, args []string, s Streams) error {
	root := newRoot(s)
	root.SetArgs(args)
	return root.ExecuteContext(ctx)
}

// newRoot makes the program's commands.
func newRoot(s Streams) *cobra.Command {
	a := &app{Streams: s}
	root := &cobra.Command{
		Use:   "firstboot",
		Short: "Make this machine a Kubernetes node",
		Long: `firstboot makes this machine the Kubernetes node that its boot plan,
` + bootplan.Path + `, describes. It does what kubeadm does, in phases; what is
done is recorded, and an interrupted run continues where it was.

The phases of init:
` + phaseTable(bootplan.RoleInit) + `

The phases of a worker that joins:
` + phaseTable(bootplan.RoleJoinWorker) + `

The phases of a control plane that joins:
` + phaseTable(bootplan.RoleJoinControlPlane),
		Example: `  firstboot status          # how far it is, and the last error
  firstboot status --json   # the same for programs`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version.Version,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q (see firstboot --help)", args[0])}
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w (see %s --help)", err, c.CommandPath())}
	})
	root.PersistentFlags().StringVar(&a.paths.Root, "root", "/", "folder that stands for /, to look at the disk of another node")
	root.AddCommand(
		a.runCommand("run", nil, &cobra.Command{
			Short: "Carry out the boot plan; what firstboot.service starts",
			Long: `Carry out the boot plan, whatever role it gives this machine. Returns at once if
that is done. How far it is stands on the console, on the login screen, in the
journal, and in firstboot status.

With --dry-run it says what each phase would do and changes nothing: the files and API
objects are written into a folder of /run, which it names at the end. A joining node
reads from its cluster, and goes by the boot plan if there is no answer for 12 s.`,
			Example: `  systemctl restart firstboot   # by hand only if the unit gave up
  firstboot run
  firstboot run --dry-run`,
		}),
		a.runCommand("init", []bootplan.Role{bootplan.RoleInit}, &cobra.Command{
			Short:   "Carry out a boot plan that creates a cluster",
			Long:    "Like run, but refuses a boot plan whose role is not init.",
			Example: "  firstboot init\n  firstboot init --dry-run",
		}),
		a.runCommand("join", []bootplan.Role{bootplan.RoleJoinWorker, bootplan.RoleJoinControlPlane}, &cobra.Command{
			Short: "Carry out a boot plan that joins a cluster",
			Long: `Like run, but refuses a boot plan whose role is neither join-worker nor
join-control-plane. The cluster may be switched on long after this machine; what
is waited for, and what is wrong with it, stands in firstboot status.`,
			Example: "  firstboot join\n  firstboot join --dry-run",
		}),
		a.statusCommand(),
		a.identifyCommand(), a.resumeCommand(), a.releaseLeasesCommand(),
		a.tokenCommand(),
		a.certsCommand(),
		a.kubeconfigCommand(),
		a.configCommand(),
		a.resetCommand(),
		&cobra.Command{
			Use: "version", Short: "Print the version", Args: noArgs,
			Long: "Print the version of Kiln that this program is part of.", Example: "  firstboot version",
			RunE: func(*cobra.Command, []string) error {
				_, err := fmt.Fprintln(s.Out, version.Version)
				return err
			},
		},
		&cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exitCodesHelp},
	)
	root.AddCommand(docsCommands()...)
	return root
}

// runCommand completes a command that carries out boot plans of a role, "" for any.
func (a *app) runCommand(name string, want []bootplan.Role, c *cobra.Command) *cobra.Command {
	var dry bool
	c.Use, c.Args = name, noArgs
	c.RunE = func(c *cobra.Command, _ []string) error {
		if dry {
			return a.dryRun(c.Context(), want...)
		}
		return a.run(c.Context(), want...)
	}
	c.Flags().BoolVar(&dry, "dry-run", false, "say what would be done, and do nothing")
	return c
}

func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no arguments; got %q (see %s --help)", c.CommandPath(), args, c.CommandPath())}
	}
	return nil
}
