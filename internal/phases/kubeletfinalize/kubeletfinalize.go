// Package kubeletfinalize is the phase that lets the kubelet renew its client
// certificate.
//
// INPUTS: kubelet.conf with an embedded certificate; the file
// kubelet-client-current.pem, which the running kubelet makes from it.
//
// OUTPUTS: kubelet.conf (0600) that refers to kubelet-client-current.pem, which the
// kubelet replaces before it expires. With an embedded certificate the node would be
// lost after a year.
//
// kubeadm restarts the kubelet after it. There is no need to: a kubelet that rotates
// its certificate uses kubelet-client-current.pem from its start on, and reads
// kubelet.conf the next time that it starts (kubelet's buildKubeletClientConfig).
// On a small machine a restart takes the processor from the pods that are starting.
package kubeletfinalize

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
)

// currentPEM is a link that the kubelet keeps pointing to its newest certificate
// and key: as seen by the kubelet, whatever root firstboot works below.
const currentPEM = "/var/lib/kubelet/pki/kubelet-client-current.pem"

// Run waits for the kubelet's certificate and refers to it.
func Run(ctx context.Context, cfg nodeconfig.Config, paths host.Paths, r phase.Report) error {
	bound := time.Duration(cfg.Plan.Timeouts.KubernetesCall)
	err := phase.Poll(ctx, r, "the kubelet's own certificate", kubeapi.Interval, bound, func(context.Context) error {
		_, err := os.Stat(paths.At(currentPEM))
		return err
	})
	if err != nil {
		return err
	}
	// The kubelet does not flush it, and without it kubelet.conf is good for nothing.
	if err := host.Flush(paths.At(currentPEM)); err != nil {
		return err
	}
	changed, err := refer(paths.Kubeconfig("kubelet.conf"))
	if err != nil {
		return phase.Permanent(err)
	}
	if changed {
		r.Step("kubelet.conf refers to %s now", currentPEM)
	}
	return nil
}

// refer replaces the certificate and key in a kubeconfig by references to
// currentPEM. Its errors quote nothing of the file.
func refer(path string) (changed bool, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	kc, err := clientcmd.Load(data)
	if err != nil {
		return false, fmt.Errorf("%s is not a kubeconfig", path)
	}
	current := kc.Contexts[kc.CurrentContext]
	if current == nil || kc.AuthInfos[current.AuthInfo] == nil {
		return false, fmt.Errorf("%s: its current context names no user", path)
	}
	user := kc.AuthInfos[current.AuthInfo]
	if user.ClientCertificate == currentPEM && user.ClientKey == currentPEM && len(user.ClientCertificateData)+len(user.ClientKeyData) == 0 {
		return false, nil
	}
	user.ClientCertificate, user.ClientKey = currentPEM, currentPEM
	user.ClientCertificateData, user.ClientKeyData = nil, nil
	out, err := clientcmd.Write(*kc)
	if err != nil {
		return false, errors.New(path + " cannot be rendered")
	}
	return true, atomicfile.WriteFile(path, out, 0o600)
}
