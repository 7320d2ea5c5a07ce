// Package kubeconfig is the phase that makes the kubeconfigs of a control plane.
//
// INPUTS: /etc/kubernetes/pki/ca.{crt,key}; the node's name and advertise address;
// the cluster's name and endpoint.
//
// OUTPUTS: /etc/kubernetes/{admin,super-admin,kubelet,controller-manager,scheduler}.conf
// (0600). admin and super-admin name the cluster's endpoint, the others this
// node's own API server. A control plane that joins has neither super-admin.conf nor,
// from here, kubelet.conf.
//
// A file that exists is kept if it names the right server, trusts the right CA and
// holds a certificate of that CA that is valid now for the right user. kubelet.conf
// may hold its certificate by reference: the kubelet rewrites it so. Without ca.key the
// CA is an external one: then all files must be provided, with whatever server.
package kubeconfig

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/nodecerts"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/pki"
)

// Run makes what is missing or does not fit.
func Run(ctx context.Context, cfg nodeconfig.Config, paths host.Paths, r phase.Report) error {
	alg, err := pki.ParseAlgorithm(cfg.Plan.Cluster.EncryptionAlgorithm)
	if err != nil {
		return phase.Permanent(err)
	}
	cert, err := os.ReadFile(paths.PKI("ca.crt"))
	if err != nil {
		return phase.Permanent(err)
	}
	key, err := os.ReadFile(paths.PKI("ca.key"))
	external := errors.Is(err, fs.ErrNotExist)
	if err != nil && !external {
		return phase.Permanent(err)
	}
	ca, err := pki.LoadCA(cert, secret.New(key))
	if err != nil {
		return phase.Permanent(fmt.Errorf("%s: %w", paths.PKI("ca"), err))
	}
	now := time.Now()
	var missing []string
	var issues []func() error
	node := nodecerts.Node{Plan: cfg.Plan, Name: cfg.NodeName, Address: cfg.AdvertiseAddress}
	for _, row := range nodecerts.Kubeconfigs(cfg.Plan.Role) {
		server := node.Server(row)
		if external {
			server = ""
		}
		path := paths.Kubeconfig(row.File)
		why := unfit(path, server, row.Leaf(cfg.NodeName), ca, now)
		if why == nil {
			continue
		}
		if external {
			if errors.Is(why, fs.ErrNotExist) {
				why = errors.New("missing")
			}
			missing = append(missing, fmt.Sprintf("%s: %v", path, why))
			continue
		}
		if !errors.Is(why, fs.ErrNotExist) {
			r.Warn("%s does not fit this node: %v", row.File, why)
		}
		issues = append(issues, func() error {
			r.Step("issuing %s", row.File)
			out, err := ca.IssueKubeconfig(row, cfg.NodeName, cfg.Plan.Cluster.Name, server, alg, cfg.Plan.Cluster.CertificateValidity(), now)
			if err != nil {
				return err
			}
			return atomicfile.WriteFile(path, out.Reveal(), 0o600)
		})
	}
	if err := phase.Parallel(ctx, issues); err != nil {
		return err
	}
	if len(missing) > 0 {
		return phase.Permanent(fmt.Errorf("the cluster's CA is external (%s is not here), so its kubeconfigs must come with the node's configuration; %d do not fit:\n\t%s",
			paths.PKI("ca.key"), len(missing), strings.Join(missing, "\n\t")))
	}
	return nil
}

// unfit says why an existing kubeconfig cannot be kept; nil means it can.
func unfit(path, server string, spec pki.LeafSpec, ca *pki.CA, now time.Time) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return nodecerts.CheckKubeconfig(data, server, spec, ca, now)
}
