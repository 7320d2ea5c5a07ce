package apitest

import (
	"net/netip"
	"time"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/nodeconfig"
)

// Config is the node cp1 of a plain one-node cluster at addr.
func Config(addr string) nodeconfig.Config {
	t := bootplan.Duration(time.Minute)
	return nodeconfig.Config{
		NodeName: "cp1", Hostname: "cp1", AdvertiseAddress: netip.MustParseAddr(addr),
		Plan: bootplan.Plan{
			Role: bootplan.RoleInit,
			Cluster: bootplan.Cluster{
				Name: "kiln", KubernetesVersion: "v1.37.2", DNSDomain: "cluster.local",
				PodSubnets: []string{"10.244.0.0/16"}, ServiceSubnets: []string{"10.96.0.0/12"},
				EncryptionAlgorithm: "ECDSA-P256", PodNetwork: "flannel",
			},
			Node:     bootplan.Node{Name: "cp1"},
			Timeouts: bootplan.Timeouts{Network: t, ContainerdUp: t, ControlPlane: 2 * t, KubernetesCall: t, NodeReady: t},
		},
	}
}
