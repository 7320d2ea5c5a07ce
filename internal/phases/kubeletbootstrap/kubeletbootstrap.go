// Package kubeletbootstrap is the phase that gives the kubelet what it asks for its
// own certificate with.
//
// INPUTS: /var/lib/kiln/join/discovery.conf; the node's name, role and advertise
// address; the cluster's Node of that name, if there is one.
//
// OUTPUTS: /etc/kubernetes/bootstrap-kubelet.conf (0600) and /etc/kubernetes/pki/ca.crt
// (0644). On a control plane the kubelet is sent to the node's own API server. A kubelet
// that has a certificate already is left alone.
package kubeletbootstrap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/kubeletauth"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/pki"
)

const (
	unit     = "kubelet.service"
	interval = 5 * time.Second
)

// Run writes the files, after it made sure that no other machine has the node's name.
func Run(ctx context.Context, cfg nodeconfig.Config, paths host.Paths, units host.Units, api *kubeapi.API, r phase.Report) error {
	kc, cluster, err := load(paths.Join("discovery.conf"))
	if err != nil {
		return phase.Permanent(err)
	}
	if err := writeCA(paths, cluster.CertificateAuthorityData); err != nil {
		return err
	}
	why := kubeletauth.Check(paths, cfg.NodeName, cluster.CertificateAuthorityData, time.Now())
	if why == nil {
		r.Step("the kubelet has its certificate already")
		return nil
	}
	// A Node that is Ready is another machine: this one's kubelet has no certificate.
	err = phase.Poll(ctx, r, "the name "+cfg.NodeName+" to be free", interval, time.Duration(cfg.Plan.Timeouts.Discovery), func(ctx context.Context) error {
		return nameFree(ctx, cfg.NodeName, api)
	})
	if err != nil {
		return err
	}
	if !errors.Is(why, fs.ErrNotExist) {
		// With it the kubelet would not ask for another.
		r.Warn("%v; the kubelet gets a new certificate", why)
		if err := removeOld(ctx, paths, units); err != nil {
			return err
		}
	}
	if cfg.Plan.Role == bootplan.RoleJoinControlPlane {
		cluster.Server = "https://" + cfg.LocalAPIEndpoint()
	}
	data, err := clientcmd.Write(*kc)
	if err != nil {
		return phase.Permanent(errors.New("bootstrap-kubelet.conf cannot be rendered"))
	}
	path := paths.Kubeconfig("bootstrap-kubelet.conf")
	old, err := os.ReadFile(path)
	switch {
	case err == nil && bytes.Equal(old, data):
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case err == nil:
		// The kubelet reads it when it starts; the next phase starts it.
		if err := units.Stop(ctx, unit); err != nil {
			return err
		}
	}
	return atomicfile.WriteFile(path, data, 0o600)
}

// load reads the kubeconfig of an earlier phase and returns its cluster. Its errors
// quote nothing of it.
func load(path string) (*clientcmdapi.Config, *clientcmdapi.Cluster, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	kc, err := clientcmd.Load(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%s is not a kubeconfig", path)
	}
	current := kc.Contexts[kc.CurrentContext]
	if current == nil || kc.Clusters[current.Cluster] == nil {
		return nil, nil, fmt.Errorf("%s: its current context names no cluster", path)
	}
	return kc, kc.Clusters[current.Cluster], nil
}

// writeCA writes ca.crt. On a control plane it came with the node's configuration and
// must be that of the cluster: the node's certificates are signed with its key.
func writeCA(paths host.Paths, ca []byte) error {
	path := paths.PKI("ca.crt")
	old, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		return atomicfile.WriteFile(path, ca, 0o644)
	case err != nil:
		return err
	}
	have, err1 := pki.CAPin(old)
	want, err2 := pki.CAPin(ca)
	if err := errors.Join(err1, err2); err != nil {
		return phase.Permanent(fmt.Errorf("%s: %w", path, err))
	}
	if have != want {
		return phase.Permanent(fmt.Errorf("%s has the pin %s, the cluster's CA has %s: this node was made for another cluster", path, have, want))
	}
	return nil
}

// nameFree returns nil if no Node of the name does its work. One that does not is what
// is left of this machine's earlier life, or of the one that it replaces.
func nameFree(ctx context.Context, name string, api *kubeapi.API) error {
	n, err := api.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("the API server refuses this node's credentials for joining: the bootstrap token has expired or was deleted: %w", err)
	case err != nil:
		return err
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
			return fmt.Errorf("the cluster has a Node %s that is Ready: another machine has this name; delete that Node, or give this machine another name", name)
		}
	}
	return nil
}

// removeOld takes a certificate that is good for nothing from the kubelet.
func removeOld(ctx context.Context, paths host.Paths, units host.Units) error {
	if err := units.Stop(ctx, unit); err != nil {
		return err
	}
	for _, path := range []string{paths.Kubeconfig("kubelet.conf"), paths.Kubelet("pki", "kubelet-client-current.pem")} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
