package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/build"
	"github.com/kiln-os/kiln/pki"
)

func (a *app) kubeconfigCommand() *cobra.Command {
	var u pki.User
	var out, to string
	c := &cobra.Command{
		Use:   "kubeconfig FILE --client-name NAME",
		Short: "Make a kubeconfig for a user of a built cluster, offline",
		Long: `Make a kubeconfig for a user of a cluster whose keys are in the output folder, and
print it or write it to a file. The cluster need not run. What the user may do is said
by RBAC: bind roles to the user's name or to its organizations, which are its groups.
A certificate cannot be taken back: give it a short life.

On a control-plane node, firstboot kubeconfig user does the same.`,
		Example: `  imagegen kubeconfig cluster.yaml -o out/ --client-name alice --org devs --file alice.conf
  imagegen kubeconfig cluster.yaml -o out/ --client-name ci --validity-period 720h > ci.conf`,
		Args:              exactArgs("FILE"),
		ValidArgsFunction: clusterFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			if u.Name == "" {
				return usageError{errors.New("imagegen kubeconfig takes --client-name NAME: the user's name")}
			}
			if cmd.Flags().Changed("validity-period") && u.Validity <= 0 {
				return usageError{fmt.Errorf("--validity-period %s: give a duration such as 720h", u.Validity)}
			}
			if err := u.Validate(); err != nil {
				return usageError{err}
			}
			return a.userKubeconfig(args[0], out, to, u)
		},
	}
	f := c.Flags()
	f.StringVarP(&out, "output", "o", "out", "output folder of the build, with the cluster's keys")
	f.StringVar(&to, "file", "", "file to write the kubeconfig to, with mode 0600 (default standard output)")
	f.StringVar(&u.Name, "client-name", "", "name of the user: the certificate's CN")
	f.StringSliceVar(&u.Organizations, "org", nil, "organizations of the user, its groups: the certificate's O")
	f.DurationVar(&u.Validity, "validity-period", pki.LeafValidity, "life of the certificate from now on")
	completeFolder(c, "output")
	return c
}

func (a *app) userKubeconfig(file, out, to string, u pki.User) error {
	cluster, _, err := a.load(file)
	if err != nil {
		return err
	}
	if u.Validity > pki.LeafValidity && !a.quiet {
		fmt.Fprintf(a.Err, "warning: the certificate is valid for %s, longer than the usual %s, and cannot be taken back\n", u.Validity, pki.LeafValidity)
	}
	if slices.Contains(u.Organizations, "system:masters") && !a.quiet {
		fmt.Fprintln(a.Err, "warning: system:masters may do everything, whatever RBAC says, as long as the certificate is valid; kubeadm:cluster-admins can be taken back")
	}
	kubeconfig, err := build.UserKubeconfig(build.Options{Cluster: cluster, Out: out, Now: time.Now()}, u)
	if err != nil {
		return err
	}
	if to != "" {
		return atomicfile.WriteFile(to, kubeconfig.Reveal(), 0o600)
	}
	_, err = a.Out.Write(kubeconfig.Reveal())
	return err
}
