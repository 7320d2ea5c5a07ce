package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
)

// scrub removes the credentials with which a node has joined: the token in the boot
// plan, and the kubeconfigs made of it. What identifies the node stays. A node that
// creates a cluster keeps its tokens: it has the keys that are worth more.
func scrub(paths host.Paths) error {
	for _, path := range []string{paths.Join("discovery.conf"), paths.Kubeconfig("bootstrap-kubelet.conf")} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the credentials for joining: %w", err)
		}
	}
	data, err := os.ReadFile(paths.BootPlan())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	plan, err := bootplan.Parse(data)
	if err != nil {
		// A node that is set up needs no plan; one that cannot be read is not made worse.
		return nil
	}
	used := len(plan.Tokens) > 0 || plan.Discovery != nil && !plan.Discovery.Kubeconfig.IsZero()
	if plan.Role == bootplan.RoleInit || !used {
		return nil
	}
	plan.Tokens, plan.TokensRemoved = nil, true
	if !plan.Discovery.Kubeconfig.IsZero() {
		plan.Discovery = nil
	}
	if data, err = plan.Marshal(); err != nil {
		return fmt.Errorf("remove the bootstrap token from the boot plan: %w", err)
	}
	return atomicfile.WriteFile(paths.BootPlan(), data, 0o600)
}
