package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kiln-os/kiln/internal/certupload"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/internal/renewal"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/pki"
)

func (a *app) certsCommand() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "certs", Short: "Show when certificates expire, renew them, and request others",
		Long: `The certificates of this control-plane node, under kubeadm's names. The kubelet's is
not among them: the kubelet renews it by itself.`,
		Example: `  firstboot certs check-expiration
  firstboot certs renew all`,
		Args: subcommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.PersistentFlags().StringVar(&dir, "cert-dir", "", "folder of the certificates (default the boot plan's, else /etc/kubernetes/pki)")
	c.AddCommand(a.checkExpirationCommand(&dir), a.renewCommand(&dir), a.uploadCommand(&dir), a.generateCSRCommand(&dir), &cobra.Command{
		Use: "certificate-key", Short: "Print a random key to encrypt uploaded certificates with", Args: noArgs,
		Long:    "Print a random key of the form that kubeadm's --certificate-key takes.",
		Example: "  firstboot certs certificate-key",
		RunE: func(*cobra.Command, []string) error {
			key, err := certupload.NewKey()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.Out, key.RevealString())
			return err
		},
	})
	return c
}

// certificates returns the node for the certs commands.
func (a *app) certificates(dir string) (renewal.Node, error) {
	plan, err := a.nodePlan()
	if err != nil {
		return renewal.Node{}, err
	}
	var n renewal.Node
	if plan != nil {
		n.Validity = plan.Cluster.CertificateValidity()
		n.ExternalEtcd = plan.Cluster.Kubeadm.Etcd.External != nil
		if n.Algorithm, err = pki.ParseAlgorithm(plan.Cluster.EncryptionAlgorithm); err != nil {
			return renewal.Node{}, planError{err}
		}
	}
	if dir != "" {
		if a.paths.Root == "/" {
			if dir, err = filepath.Abs(dir); err != nil {
				return renewal.Node{}, err
			}
		}
		a.paths.CertificatesDir = dir
		if st, err := os.Stat(a.paths.PKI()); err != nil {
			return renewal.Node{}, usageError{fmt.Errorf("--cert-dir: %w", err)}
		} else if !st.IsDir() {
			return renewal.Node{}, usageError{fmt.Errorf("--cert-dir: %s is not a folder", a.paths.PKI())}
		}
	}
	n.Paths = a.paths
	return n, nil
}

func (a *app) checkExpirationCommand(dir *string) *cobra.Command {
	var o output
	c := &cobra.Command{
		Use: "check-expiration", Short: "Show when the node's certificates expire", Args: noArgs,
		Long: `Show when the certificates and CAs of this control-plane node expire, in kubeadm's
tables or, with -o, as its object (output.kubeadm.k8s.io/v1alpha3). EXTERNALLY MANAGED
are those whose CA's key is not on this node. Needs no cluster.`,
		Example: `  firstboot certs check-expiration
  firstboot certs check-expiration -o json | jq '.certificates[] | select(.residualTime < 2592000) | .name'
  firstboot certs check-expiration --root /mnt   # of a disk that is mounted there`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check(c); err != nil {
				return err
			}
			n, err := a.certificates(*dir)
			if err != nil {
				return err
			}
			e, err := n.Expiration(time.Now())
			if err != nil {
				return err
			}
			if o.text() {
				return e.WriteTable(a.Out)
			}
			return printObjects(a.Out, o, e)
		},
	}
	o.flags(c)
	return c
}

func (a *app) renewCommand(dir *string) *cobra.Command {
	var names []string
	for _, c := range (renewal.Node{}).Certificates() {
		names = append(names, "  "+c.Name)
	}
	return &cobra.Command{
		Use: "renew all|NAME...", Short: "Renew certificates", ValidArgs: append([]string{"all"}, trimmedNames(names)...),
		Long: `Put new certificates in the place of old ones, expired or not, with new keys and with
the subject, names and usages of the old. The CAs' keys must be on this node; what a
CA signs whose key is kept elsewhere is named and left as it is. The components read
them when they are started again.

` + strings.Join(names, "\n"),
		Example: `  firstboot certs renew all
  firstboot certs renew apiserver admin.conf
  kubectl --kubeconfig /etc/kubernetes/admin.conf get nodes   # admin.conf is a new one`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{fmt.Errorf("%s takes all, or names of certificates (see %s --help)", c.CommandPath(), c.CommandPath())}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			n, err := a.certificates(*dir)
			if err != nil {
				return err
			}
			return a.renew(n, args)
		},
	}
}

func trimmedNames(in []string) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = strings.TrimSpace(s)
	}
	return out
}

// renew renews what is named. One that is named and cannot be renewed is an error;
// with all, it is said.
func (a *app) renew(n renewal.Node, names []string) error {
	all := len(names) == 1 && names[0] == "all"
	list := n.Certificates()
	if !all {
		list = nil
		for _, name := range names {
			c, err := n.Find(name)
			if err != nil {
				return usageError{err}
			}
			list = append(list, c)
		}
	}
	var failed []error
	renewed := 0
	for _, c := range list {
		err := n.Renew(c, time.Now())
		var line string
		switch {
		case err == nil:
			renewed++
			line = c.LongName + " renewed"
		case !errors.Is(err, renewal.ErrMissing) && !errors.Is(err, renewal.ErrExternal):
			return fmt.Errorf("renew %s: %w", c.Name, err)
		case !all:
			failed = append(failed, fmt.Errorf("%s was not renewed: %w", c.Name, err))
			continue
		case errors.Is(err, renewal.ErrMissing):
			line = "MISSING! " + c.LongName
		default:
			line = fmt.Sprintf("Detected external %s, %s can't be renewed", c.CA(), c.LongName)
		}
		if _, err := fmt.Fprintln(a.Out, line); err != nil {
			return err
		}
	}
	if renewed > 0 {
		if _, err := fmt.Fprintln(a.Out, "\nDone renewing certificates. You must restart the kube-apiserver, kube-controller-manager, kube-scheduler and etcd, so that they can use the new certificates."); err != nil {
			return err
		}
	}
	if all && renewed == 0 {
		failed = append(failed, errors.New("nothing was renewed: this node has no certificate whose CA's key it has"))
	}
	return errors.Join(failed...)
}

func (a *app) uploadCommand(dir *string) *cobra.Command {
	cluster := &clusterFlags{app: a}
	var key string
	c := &cobra.Command{
		Use: "upload", Short: "Store the CAs, encrypted, in the cluster for two hours", Args: noArgs,
		Long: `Store the cluster's CAs and keys, encrypted, in the Secret kubeadm-certs for two hours,
and print the key: real kubeadm joins a control plane with it. It is what kubeadm init
phase upload-certs --upload-certs does. Control planes that Kiln makes have the CAs
already.`,
		Example: `  key=$(firstboot certs upload)
  firstboot token create --print-join-command --certificate-key $key`,
		RunE: func(c *cobra.Command, _ []string) error {
			value := secret.FromString(key)
			var err error
			if key == "" {
				if value, err = certupload.NewKey(); err != nil {
					return err
				}
			}
			if _, err := certupload.ParseKey(value); err != nil {
				return usageError{fmt.Errorf("--certificate-key: %w", err)}
			}
			plan, err := a.nodePlan()
			if err != nil {
				return err
			}
			n, err := a.certificates(*dir)
			if err != nil {
				return err
			}
			var external *kubeadmapi.ExternalEtcd
			if plan != nil {
				external = plan.Cluster.Kubeadm.Etcd.External
			}
			file, client, err := cluster.open()
			if err != nil {
				return err
			}
			if err := certupload.Upload(c.Context(), client, n.Paths, external, value, time.Now()); err != nil {
				return fmt.Errorf("cluster at %s: %w", file.Server(), err)
			}
			_, err = fmt.Fprintln(a.Out, value.RevealString())
			return err
		},
	}
	cluster.flags(c)
	c.Flags().StringVar(&key, "certificate-key", "", "key to encrypt with (default a random one)")
	return c
}
