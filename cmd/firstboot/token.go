package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"

	"github.com/kiln-os/kiln/internal/certupload"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/kubeclient"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/internal/tokens"
	"github.com/kiln-os/kiln/pki"
)

// clusterFlags say which cluster a command speaks to.
type clusterFlags struct {
	app        *app
	kubeconfig string
}

func (f *clusterFlags) flags(c *cobra.Command) {
	c.PersistentFlags().StringVar(&f.kubeconfig, "kubeconfig", "",
		"kubeconfig to speak to the cluster with (default $KUBECONFIG, ~/.kube/config or /etc/kubernetes/admin.conf, the first that exists)")
}

func (f *clusterFlags) open() (*kubeclient.File, kubernetes.Interface, error) {
	path, admin := f.kubeconfig, f.app.paths.Kubeconfig(kubeapi.AdminConf)
	if path == "" {
		path = kubeclient.DefaultPath(admin)
	}
	file, err := kubeclient.Read(path)
	if f.kubeconfig == "" && errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("there is no kubeconfig at %s, nor %s, which control-plane nodes have: name one with --kubeconfig", path, admin)
	}
	if err != nil {
		return nil, nil, err
	}
	client, err := file.Client()
	return file, client, err
}

func (a *app) tokenCommand() *cobra.Command {
	cluster := &clusterFlags{app: a}
	c := &cobra.Command{
		Use: "token", Short: "Create, list and delete bootstrap tokens",
		Long: `Bootstrap tokens let a machine join: it knows the cluster by one, and the cluster
lets it ask for a certificate. A token is ID.SECRET; the id is public. These are
kubeadm's tokens and commands: kubeadm token sees and deletes them too.`,
		Example: `  firstboot token create --ttl 2h --print-join-command
  firstboot token list
  firstboot token delete abcdef`,
		Args: subcommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	cluster.flags(c)
	c.AddCommand(a.tokenCreateCommand(cluster), a.tokenListCommand(cluster), a.tokenDeleteCommand(cluster), &cobra.Command{
		Use: "generate", Short: "Print a random token without creating it", Args: noArgs,
		Long: "Print a random token. No cluster knows it before firstboot token create TOKEN.", Example: "  firstboot token generate",
		RunE: func(*cobra.Command, []string) error {
			t, err := pki.NewToken(time.Now(), 0)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.Out, t.Value().RevealString())
			return err
		},
	})
	return c
}

func (a *app) tokenCreateCommand(cluster *clusterFlags) *cobra.Command {
	var t tokens.Token
	var ttl time.Duration
	var join bool
	var certKey string
	c := &cobra.Command{
		Use: "create [TOKEN]", Short: "Create a token and print it",
		Long: `Create a bootstrap token, random unless one is given, and print it. A token that is
given as - is read from standard input, so that it stands in no process list.

Only a token with the usage signing can be used to find the cluster, and only one
with authentication to ask for a certificate: kubeadm join needs both.`,
		Example: `  firstboot token create
  firstboot token create --ttl 0 --description "rack 7"   # never expires
  firstboot token create --print-join-command
  firstboot token generate | firstboot token create -`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{fmt.Errorf("%s takes at most one token; got %d arguments (see %s --help)", c.CommandPath(), len(args), c.CommandPath())}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if !c.Flags().Changed("groups") && !slices.Contains(t.Usages, tokens.Authentication) {
				t.Groups = nil // nobody is its user
			}
			var err error
			if t, err = a.newToken(t, args, ttl); err != nil {
				return err
			}
			switch {
			case certKey != "" && !join:
				return usageError{errors.New("--certificate-key is for --print-join-command")}
			case certKey != "":
				if _, err := certupload.ParseKey(secret.FromString(certKey)); err != nil {
					return usageError{fmt.Errorf("--certificate-key: %w", err)}
				}
			}
			file, client, err := cluster.open()
			if err != nil {
				return err
			}
			line := t.Value().RevealString()
			if join { // first: nothing is created if it cannot be made
				pins, err := file.CAPins()
				if err != nil {
					return err
				}
				if line, err = tokens.JoinCommand(t, file.Server(), pins, certKey); err != nil {
					return err
				}
			}
			if err := tokens.Create(c.Context(), client, t); err != nil {
				return fmt.Errorf("cluster at %s: %w", file.Server(), err)
			}
			_, err = fmt.Fprintln(a.Out, line)
			return err
		},
	}
	f := c.Flags()
	f.DurationVar(&ttl, "ttl", tokens.DefaultTTL, "life of the token, such as 90m or 24h; 0 for one that never expires")
	f.StringSliceVar(&t.Usages, "usages", tokens.Usages(), "what it may be used for")
	f.StringSliceVar(&t.Groups, "groups", []string{tokens.NodeGroup}, "groups that its user is in besides system:bootstrappers")
	f.StringVar(&t.Description, "description", "", "what it is for, for people")
	f.BoolVar(&join, "print-join-command", false, "print the kubeadm join command line that uses the token")
	f.StringVar(&certKey, "certificate-key", "", "with --print-join-command: join as a control plane, with the certificates uploaded under this key")
	return c
}

// newToken completes a token by the command line. All mistakes are usage errors.
func (a *app) newToken(t tokens.Token, args []string, ttl time.Duration) (tokens.Token, error) {
	now := time.Now()
	made, err := pki.NewToken(now, 0)
	if err != nil {
		return t, err
	}
	if len(args) == 1 {
		text := args[0]
		if text == "-" {
			line, err := bufio.NewReader(a.In).ReadString('\n')
			if err != nil && line == "" {
				return t, fmt.Errorf("token on standard input: %w", err)
			}
			text = strings.TrimSpace(line)
		}
		if made, err = pki.ParseToken(secret.FromString(text)); err != nil {
			return t, usageError{err}
		}
	}
	t.ID, t.Secret = made.ID, made.Secret
	if len(t.Usages) == 0 {
		return t, usageError{fmt.Errorf("--usages is empty: a token is for %s", strings.Join(tokens.Usages(), ", for ")+", or for both")}
	}
	if t.Expires, err = tokens.Expiry(now, ttl); err != nil {
		return t, usageError{fmt.Errorf("--ttl: %w", err)}
	}
	if err := t.Validate(); err != nil {
		return t, usageError{err}
	}
	return t, nil
}

func (a *app) tokenListCommand(cluster *clusterFlags) *cobra.Command {
	var o output
	c := &cobra.Command{
		Use: "list", Short: "List the cluster's tokens", Args: noArgs,
		Long: `List the cluster's bootstrap tokens in kubeadm's columns or, with -o, as its objects
(output.kubeadm.k8s.io/v1alpha3). The list shows the secrets too.`,
		Example: `  firstboot token list
  firstboot token list -o json | jq -r .token`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check(c); err != nil {
				return err
			}
			file, client, err := cluster.open()
			if err != nil {
				return err
			}
			list, unreadable, err := tokens.List(c.Context(), client)
			if err != nil {
				return fmt.Errorf("cluster at %s: %w", file.Server(), err)
			}
			for _, e := range unreadable {
				a.warn("%v", e)
			}
			if o.text() {
				return tokens.WriteTable(a.Out, list, time.Now())
			}
			out := make([]tokens.Output, len(list))
			for i, t := range list {
				out[i] = t.Output()
			}
			return printObjects(a.Out, o, out...)
		},
	}
	o.flags(c)
	return c
}

func (a *app) tokenDeleteCommand(cluster *clusterFlags) *cobra.Command {
	return &cobra.Command{
		Use: "delete TOKEN...", Short: "Delete tokens, by id or as a whole",
		Long: `Delete bootstrap tokens, each given by its id or as a whole. Machines that have
joined with one stay in the cluster.`,
		Example: "  firstboot token delete abcdef 07401b.f395accd246ae52d",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{fmt.Errorf("%s takes the tokens or ids to delete (see %s --help)", c.CommandPath(), c.CommandPath())}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			ids := make([]string, len(args))
			for i, arg := range args {
				id, err := tokens.ParseID(arg)
				if err != nil {
					// Not quoted: it may be a mistyped token.
					return usageError{fmt.Errorf("argument %d: %w", i+1, err)}
				}
				ids[i] = id
			}
			file, client, err := cluster.open()
			if err != nil {
				return err
			}
			var errs []error
			for _, id := range ids {
				if err := tokens.Delete(c.Context(), client, id); err != nil {
					errs = append(errs, fmt.Errorf("cluster at %s: %w", file.Server(), err))
					continue
				}
				if _, err := fmt.Fprintf(a.Out, "bootstrap token %q deleted\n", id); err != nil {
					return err
				}
			}
			return errors.Join(errs...)
		},
	}
}

// subcommand refuses words that are no subcommand.
func subcommand(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unknown command %q of %s (see %s --help)", args[0], c.CommandPath(), c.CommandPath())}
	}
	return nil
}
