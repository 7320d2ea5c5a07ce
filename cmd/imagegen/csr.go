package main

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/kiln-os/kiln/internal/build"
)

func (a *app) csrCommand() *cobra.Command {
	var out string
	var nodes []string
	c := &cobra.Command{
		Use:   "csr FILE",
		Short: "Make keys and certificate requests for control planes whose CA is kept elsewhere",
		Long: `Make keys and certificate requests for control planes, where the keys of the cluster's
CAs are kept elsewhere and are not given to imagegen (kubeadm's external CA). Put the
CAs' certificates into the folder secrets of the output folder first: ca.crt,
front-proxy-ca.crt and etcd/ca.crt; a CA that is not there is made by imagegen build.

The folder secrets/nodes/NODE then looks like /etc/kubernetes of the node: keys and
requests in pki, and kubeconfigs that lack their certificates. Have each NAME.csr signed
and put the certificate beside it: pki/apiserver.crt for pki/apiserver.csr,
admin.conf.crt for admin.conf.csr. imagegen build checks them and bakes them in.

Names and subjects are those of kubeadm certs generate-csr. Run again, the command
keeps the keys that are there and replaces the requests that the cluster file has
changed. The requests of a node that is added later are made the same way.`,
		Example: `  install -d -m 700 out/secrets out/secrets/etcd && cp ca.crt front-proxy-ca.crt out/secrets/ && cp etcd-ca.crt out/secrets/etcd/ca.crt
  imagegen csr cluster.yaml -o out/
  openssl req -in out/secrets/nodes/kiln-1/pki/apiserver.csr -noout -text
  imagegen csr cluster.yaml -o out/ --node kiln-2 --json`,
		Args:              exactArgs("FILE"),
		ValidArgsFunction: clusterFile,
		RunE:              func(_ *cobra.Command, args []string) error { return a.requestCertificates(args[0], out, nodes) },
	}
	c.Flags().StringVarP(&out, "output", "o", "out", "output folder of the build, with the CAs' certificates")
	c.Flags().StringSliceVar(&nodes, "node", nil, "make requests for this control plane alone; may be given more than once")
	a.jsonFlag(c)
	completeFolder(c, "output")
	return c
}

func (a *app) requestCertificates(file, out string, nodes []string) error {
	cluster, _, err := a.load(file)
	if err != nil {
		return err
	}
	made, err := build.Requests(build.Options{Cluster: cluster, Out: out, Now: time.Now()}, nodes)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]any{"nodes": made})
	}
	for _, n := range made {
		for _, r := range n.Requests {
			fmt.Fprintf(a.Out, "%s\t%s\n", n.Node, r)
		}
	}
	if !a.quiet {
		fmt.Fprintf(a.Err, "\nHave each request signed, put NAME.crt beside NAME.csr, and run:\n  imagegen build %s -o %s\nKeep %s: it holds the keys.\n", file, out, filepath.Join(out, build.SecretsDir))
	}
	return nil
}
