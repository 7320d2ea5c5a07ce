// Package nodetest makes the file system of a control-plane node for tests: what
// Ignition delivers, and what firstboot's own phases issue from it.
package nodetest

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/internal/phases/certs"
	"github.com/kiln-os/kiln/internal/phases/kubeconfig"
	"github.com/kiln-os/kiln/pki"
)

// Delivered are the files that Ignition writes into the folder of certificates.
func Delivered() []string {
	return []string{"ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "etcd/ca.crt", "etcd/ca.key", "sa.key", "sa.pub"}
}

// Config is the node cp1 of a plain one-node cluster.
func Config() nodeconfig.Config {
	return nodeconfig.Config{
		NodeName: "cp1", Hostname: "cp1", AdvertiseAddress: netip.MustParseAddr("192.0.2.1"),
		Plan: bootplan.Plan{
			Role: bootplan.RoleInit,
			Cluster: bootplan.Cluster{
				Name: "demo", KubernetesVersion: "v1.37.2", DNSDomain: "cluster.local",
				PodSubnets: []string{"10.244.0.0/16"}, ServiceSubnets: []string{"10.96.0.0/12"},
				EncryptionAlgorithm: "ECDSA-P256", PodNetwork: "flannel",
			},
			Node:     bootplan.Node{Name: "cp1", AdvertiseAddress: "192.0.2.1"},
			Timeouts: bootplan.DefaultTimeouts(),
		},
	}
}

// Deliver writes the boot plan and the cluster's keys below paths.Root.
func Deliver(cfg nodeconfig.Config, paths host.Paths) (err error) {
	secrets, err := os.MkdirTemp("", "kiln-nodetest-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(secrets)) }()
	if _, err := pki.LoadOrCreate(filepath.Join(secrets, "secrets"), pki.Options{
		Algorithm: pki.Algorithm(cfg.Plan.Cluster.EncryptionAlgorithm), ClusterName: cfg.Plan.Cluster.Name,
		Endpoint: cfg.ControlPlaneEndpoint(), Now: time.Now(),
	}); err != nil {
		return err
	}
	for _, name := range Delivered() {
		data, err := os.ReadFile(filepath.Join(secrets, "secrets", name))
		if err != nil {
			return err
		}
		if err := write(paths.PKI(name), data); err != nil {
			return err
		}
	}
	plan, err := cfg.Plan.Marshal()
	if err != nil {
		return err
	}
	return write(paths.BootPlan(), plan)
}

// ControlPlane is Deliver, and then the phases that issue certificates and
// kubeconfigs.
func ControlPlane(ctx context.Context, cfg nodeconfig.Config, paths host.Paths, r phase.Report) error {
	if err := Deliver(cfg, paths); err != nil {
		return err
	}
	if err := certs.Run(ctx, cfg, paths, r); err != nil {
		return err
	}
	return kubeconfig.Run(ctx, cfg, paths, r)
}

func write(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}
