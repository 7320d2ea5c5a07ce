package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"

	"github.com/kiln-os/kiln/internal/kubeclient"
	"github.com/kiln-os/kiln/internal/resume"
)

// leasesTime is how long the API server has; the leases run out in about this time.
const leasesTime = time.Minute

func (a *app) releaseLeasesCommand() *cobra.Command {
	return &cobra.Command{
		Use: "release-leases", Short: "Give back the leases of before a reboot; what kiln-start-order.service starts", Args: noArgs,
		Long: `Give back the leader-election leases that this node's controller manager and scheduler
held when it went down, so that those that start now need not wait until they have run
out. It must run while neither of them does: kiln-start-order.service has them wait.
Leases that others hold stay as they are.`,
		Example: `  firstboot release-leases`,
		RunE: func(c *cobra.Command, _ []string) error {
			if a.paths.Root != "/" {
				return usageError{fmt.Errorf("--root %s: only the running machine's leases can be given back", a.paths.Root)}
			}
			node, err := os.Hostname() // as the components do
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context(), leasesTime)
			defer cancel()
			client := func(component string) (kubernetes.Interface, error) {
				f, err := kubeclient.Read(a.paths.Kubeconfig(strings.TrimPrefix(component, "kube-") + ".conf"))
				if err != nil {
					return nil, err
				}
				return f.Client()
			}
			return resume.ReleaseLeases(ctx, client, node, func(format string, v ...any) { fmt.Fprintf(c.OutOrStdout(), format+"\n", v...) })
		},
	}
}
