// Package cluster talks to a Kiln node that runs in a virtual machine on this
// host: to its API server and its SSH server, both through forwarded ports of
// 127.0.0.1. It waits for the cluster to become ready and gathers what is needed
// to understand why it does not.
package cluster

import (
	"fmt"
	"net"
	"strconv"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kiln-os/kiln/internal/secret"
)

// serverName is a name that every API server's certificate has. The address
// 127.0.0.1 is none of its subject alternative names, so a client that comes
// through a forwarded port has to be told what to expect.
const serverName = "kubernetes"

// Kubeconfig returns adminConf with every cluster's server replaced by
// 127.0.0.1:hostPort, checked against the API server's real certificate.
func Kubeconfig(adminConf secret.Value, hostPort int) (secret.Value, error) {
	cfg, err := clientcmd.Load(adminConf.Reveal())
	if err != nil {
		return secret.Value{}, fmt.Errorf("admin.conf: %w", err)
	}
	if len(cfg.Clusters) == 0 {
		return secret.Value{}, fmt.Errorf("admin.conf names no cluster")
	}
	for _, c := range cfg.Clusters {
		c.Server = "https://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(hostPort))
		c.TLSServerName = serverName
		// The address is this host itself; a proxy could not reach it.
		c.ProxyURL = ""
	}
	out, err := clientcmd.Write(*cfg)
	if err != nil {
		return secret.Value{}, fmt.Errorf("admin.conf: %w", err)
	}
	return secret.New(out), nil
}

// Client returns a client for the cluster behind 127.0.0.1:hostPort with the
// rights of adminConf.
func Client(adminConf secret.Value, hostPort int) (kubernetes.Interface, *rest.Config, error) {
	kc, err := Kubeconfig(adminConf, hostPort)
	if err != nil {
		return nil, nil, err
	}
	cfg, err := clientcmd.RESTConfigFromKubeConfig(kc.Reveal())
	if err != nil {
		return nil, nil, fmt.Errorf("admin.conf: %w", err)
	}
	// Nothing here is worth waiting for in a client-side queue.
	cfg.QPS, cfg.Burst = 100, 200
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, nil, fmt.Errorf("admin.conf: %w", err)
	}
	return client, cfg, nil
}
