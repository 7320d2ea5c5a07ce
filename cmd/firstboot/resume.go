package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/kiln-os/kiln/internal/resume"
)

// resumeTime is how long the container runtime and the network have. The kubelet waits
// for this, and starts everything that is not up by then.
const resumeTime = time.Minute

func (a *app) resumeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "resume", Short: "Start the API server and etcd after a reboot; what kiln-resume.service starts", Args: noArgs,
		Long: `Start the static pods of the API server and of etcd as they were before the reboot, as
soon as the container runtime answers. The kubelet, which is not up by then, finds them
running and takes them over. A pod that runs, has a newer manifest, or cannot be started
is left to the kubelet, which the output says; the exit code is 0 all the same.`,
		Example: `  firstboot resume`,
		RunE: func(c *cobra.Command, _ []string) error {
			if a.paths.Root != "/" {
				return usageError{fmt.Errorf("--root %s: only the running machine's pods can be started", a.paths.Root)}
			}
			ctx, cancel := context.WithTimeout(c.Context(), resumeTime)
			defer cancel()
			conn, err := resume.Dial(a.paths.Containerd())
			if err != nil {
				return err
			}
			defer conn.Close()
			m := resume.ThisMachine(conn, a.paths.Manifests(), func(format string, v ...any) { fmt.Fprintf(c.OutOrStdout(), format+"\n", v...) })
			if err := resume.Run(ctx, m); err != nil {
				m.Log("left to the kubelet: %v", err)
			}
			return nil
		},
	}
}
