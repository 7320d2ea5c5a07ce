package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

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
	json, quiet bool

	cacheDir   string
	mirror     string
	payloadDir string
}

// Run executes one command line. Results go to s.Out, progress and messages to s.Err.
func Run(ctx context.Context, args []string, s Streams) error {
	a := &app{Streams: s}
	root := a.rootCommand()
	root.SetArgs(args)
	return a.showError(root.ExecuteContext(ctx))
}

// rootCommand makes the program's commands.
func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "imagegen",
		Short: "Turn one YAML file into a Kubernetes cluster in disk images",
		Long: `imagegen turns one YAML file into a whole Kubernetes cluster in disk images. It makes
the certificate authorities, keys and tokens offline and bakes them, with the
operating system and Kubernetes, into images that boot to a Ready node without a
network.`,
		Example: `  imagegen init                         # write a commented cluster.yaml
  imagegen check cluster.yaml           # print everything that is wrong with it
  imagegen build cluster.yaml -o out/   # bake an image for each node
  imagegen boot cluster.yaml -o out/    # run the cluster in QEMU until Ctrl-C`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version.Version,
	}
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w (see %s --help)", err, c.CommandPath())}
	})
	f := root.PersistentFlags()
	f.BoolVarP(&a.quiet, "quiet", "q", false, "print nothing but errors on standard error")
	f.StringVar(&a.cacheDir, "cache", "", "folder for downloads and built parts (default $KILN_CACHE, else ~/.cache/kiln)")
	f.StringVar(&a.mirror, "mirror", "", "Debian mirror, the URL above dists/ (default $KILN_MIRROR, else from the host's apt configuration)")
	f.StringVar(&a.payloadDir, "payload-dir", "", "folder payload of Kiln's source tree, which is compiled (default $KILN_PAYLOAD, else found from the program and the current folder)")
	root.AddCommand(a.initCommand(), a.checkCommand(), a.buildCommand(), a.stampCommand(), a.convertCommand(), a.inspectCommand(), a.flashCommand(), a.tokenCommand(), a.kubeconfigCommand(), a.csrCommand(), a.bootCommand(), a.payloadCommand(), docsCommand())
	root.AddCommand(
		&cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exitCodesHelp},
		&cobra.Command{Use: "formats", Short: "Which image formats there are", Long: formatsHelp()},
		&cobra.Command{Use: "environment", Short: "Which environment variables are read", Long: environmentHelp},
	)
	setUpCompletion(root)
	return root
}

const environmentHelp = `Environment variables of imagegen:

  KILN_CACHE         folder for downloads and built parts, like --cache
  KILN_MIRROR        Debian mirror, like --mirror
  KILN_PAYLOAD       folder payload of Kiln's source tree, like --payload-dir
  HTTPS_PROXY        proxy for https, as HTTP_PROXY for http; NO_PROXY lists exceptions
  SSL_CERT_FILE      certificate authorities of servers, instead of the system's
  DOCKER_CONFIG      folder of config.json with registries' credentials (default ~/.docker)
  SOURCE_DATE_EPOCH  time on everything in an image, in seconds since 1970
  NO_COLOR           if set, no colours on a terminal
  TERM               if dumb, progress is plain lines, as it is in files and pipes
`

// printJSON prints a command's result for programs.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.Out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// exactArgs is cobra.ExactArgs with a usage error that names what is missing.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		return usageError{fmt.Errorf("%s takes %d argument(s): %v; got %d (see %s --help)", c.CommandPath(), len(names), names, len(args), c.CommandPath())}
	}
}
