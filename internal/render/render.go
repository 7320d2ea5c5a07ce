// Package render turns a cluster, its secrets and one of its nodes into what the
// node is given: the boot plan for firstboot, and the Ignition config that
// delivers the plan, the node's share of the secrets and its network settings.
//
// INPUTS: spec.Cluster, pki.Authority, the files that the Butane snippets name. OUTPUTS: bootplan.Plan, Ignition JSON of
// spec 3.3.0. Same input, same bytes; nothing is fetched from anywhere.
package render

import (
	"fmt"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/pki"
)

// Rendered is what one node is given.
type Rendered struct {
	Plan bootplan.Plan
	// Ignition is the whole config; it holds the plan and, on control planes, the
	// cluster's private keys.
	Ignition secret.Value
}

// Node renders a node of c, whose Butane snippets it reads again. A worker gets the CA's pin and the bootstrap token,
// never a private key.
func Node(c *spec.Cluster, a *pki.Authority, n spec.Node) (Rendered, error) {
	plan, err := BootPlan(c, a, n)
	if err != nil {
		return Rendered{}, fmt.Errorf("node %s: %w", n.Name, err)
	}
	entries, err := contents(c, a, n, plan)
	if err != nil {
		return Rendered{}, fmt.Errorf("node %s: %w", n.Name, err)
	}
	user, err := userConfig(c, n)
	if err != nil {
		return Rendered{}, fmt.Errorf("node %s: %w", n.Name, err)
	}
	ign, err := ignition(entries, c.SSH.AuthorizedKeys, user)
	if err != nil {
		return Rendered{}, fmt.Errorf("node %s: %w", n.Name, err)
	}
	return Rendered{Plan: plan, Ignition: ign}, nil
}

// role picks what the node does: the first control plane of the file creates the
// cluster, everyone else joins it.
func role(c *spec.Cluster, n spec.Node) (bootplan.Role, error) {
	switch cps := c.ControlPlanes(); {
	case n.Role == spec.RoleWorker:
		return bootplan.RoleJoinWorker, nil
	case n.Role != spec.RoleControlPlane:
		return "", fmt.Errorf("unknown role %q", n.Role)
	case cps[0].Name == n.Name:
		return bootplan.RoleInit, nil
	}
	return bootplan.RoleJoinControlPlane, nil
}
