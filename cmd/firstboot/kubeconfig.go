package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/kubeclient"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/pki"
)

func (a *app) kubeconfigCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "kubeconfig", Short: "Make kubeconfigs for users",
		Long: "Make kubeconfigs for users.", Example: "  firstboot kubeconfig user --client-name alice --org devs > alice.conf",
		Args: subcommand, RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.userCommand())
	return c
}

func (a *app) userCommand() *cobra.Command {
	var u pki.User
	var token, dir string
	c := &cobra.Command{
		Use: "user --client-name NAME", Short: "Print a kubeconfig for a user", Args: noArgs,
		Long: `Print a kubeconfig for a user of the cluster, with a certificate that this node's CA
signs. Name and server of the cluster are those of admin.conf. What the user may do is
said by RBAC: bind roles to the user's name or to its organizations, which are its
groups. A certificate cannot be taken back: give it a short life.`,
		Example: `  umask 077
  firstboot kubeconfig user --client-name alice --org devs --validity-period 720h > alice.conf
  kubectl create clusterrolebinding devs --clusterrole view --group devs`,
		RunE: func(c *cobra.Command, _ []string) error {
			if u.Name == "" {
				return usageError{fmt.Errorf("%s takes --client-name NAME: the user's name", c.CommandPath())}
			}
			u.Token = secret.FromString(token)
			if c.Flags().Changed("validity-period") && u.Validity <= 0 {
				return usageError{fmt.Errorf("--validity-period %s: give a duration such as 720h", u.Validity)}
			}
			if err := u.Validate(); err != nil {
				return usageError{err}
			}
			return a.userKubeconfig(u, dir)
		},
	}
	f := c.Flags()
	f.StringVar(&u.Name, "client-name", "", "name of the user: the certificate's CN")
	f.StringSliceVar(&u.Organizations, "org", nil, "organizations of the user, its groups: the certificate's O")
	f.DurationVar(&u.Validity, "validity-period", pki.LeafValidity, "life of the certificate from now on")
	f.StringVar(&token, "token", "", "token to put in instead of a certificate")
	f.StringVar(&dir, "cert-dir", "", "folder of the CA (default the boot plan's, else /etc/kubernetes/pki)")
	return c
}

func (a *app) userKubeconfig(u pki.User, dir string) error {
	n, err := a.certificates(dir)
	if err != nil {
		return err
	}
	admin, err := kubeclient.Read(n.Paths.Kubeconfig(kubeapi.AdminConf))
	if err != nil {
		return fmt.Errorf("%w: it names the cluster and its server, and control-plane nodes have it", err)
	}
	cert, err := os.ReadFile(n.Paths.PKI("ca.crt"))
	if err != nil {
		return fmt.Errorf("CA: %w", err)
	}
	var key []byte
	if u.Token.IsZero() {
		if key, err = os.ReadFile(n.Paths.PKI("ca.key")); err != nil {
			return fmt.Errorf("the CA's key signs the user's certificate: %w; where it is kept elsewhere, that is where to make it", err)
		}
	}
	ca, err := pki.LoadCA(cert, secret.New(key))
	if err != nil {
		return fmt.Errorf("%s: %w", n.Paths.PKI("ca"), err)
	}
	pins, err := admin.CAPins()
	if err != nil {
		return err
	}
	if pin, err := pki.CAPin(cert); err != nil {
		return err
	} else if !slices.Contains(pins, pin) {
		return fmt.Errorf("%s trusts another CA than %s: its cluster would not know the user", admin.Path, n.Paths.PKI("ca.crt"))
	}
	alg, err := ca.Algorithm()
	if err != nil {
		return err
	}
	warnUser(a.warn, u)
	out, err := ca.IssueUser(u, admin.ClusterName(), admin.Server(), cmp.Or(n.Algorithm, alg), time.Now())
	if err != nil {
		return err
	}
	_, err = a.Out.Write(out.Reveal())
	return err
}

// warnUser names what is allowed but seldom meant.
func warnUser(warn func(string, ...any), u pki.User) {
	if u.Validity > pki.LeafValidity {
		warn("the certificate is valid for %s, longer than the usual %s, and cannot be taken back", u.Validity, pki.LeafValidity)
	}
	if slices.Contains(u.Organizations, "system:masters") {
		warn("system:masters may do everything, whatever RBAC says, as long as the certificate is valid; kubeadm:cluster-admins can be taken back")
	}
}
