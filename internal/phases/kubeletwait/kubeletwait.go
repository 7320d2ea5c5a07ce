// Package kubeletwait is the phase that waits until the cluster has given the kubelet
// its certificate.
//
// INPUTS: a started kubelet with bootstrap-kubelet.conf; ca.crt; the controller manager
// of the cluster, which approves and signs.
//
// OUTPUTS: /etc/kubernetes/kubelet.conf, written by the kubelet, on the disk;
// bootstrap-kubelet.conf removed.
package kubeletwait

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/kubeletauth"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
)

const (
	unit     = "kubelet.service"
	interval = time.Second
	// askEvery is how often the cluster is asked what is wrong: rarely, it is a bystander.
	askEvery = 15 * time.Second
)

// Run waits for at most the plan's Timeouts.TLSBootstrap. api has the credentials that
// the kubelet bootstraps with. The kubelet goes on trying by itself.
func Run(ctx context.Context, cfg nodeconfig.Config, paths host.Paths, units host.Units, api *kubeapi.API, r phase.Report) error {
	ca, err := os.ReadFile(paths.PKI("ca.crt"))
	if err != nil {
		return phase.Permanent(err)
	}
	var asked time.Time
	var trouble error
	err = phase.Poll(ctx, r, "the kubelet's certificate", interval, time.Duration(cfg.Plan.Timeouts.TLSBootstrap), func(ctx context.Context) error {
		err := kubeletauth.Check(paths, cfg.NodeName, ca, time.Now())
		if err == nil {
			return nil
		}
		if time.Since(asked) >= askEvery {
			asked, trouble = time.Now(), explain(ctx, units, api)
		}
		if trouble != nil {
			return trouble
		}
		if errors.Is(err, fs.ErrNotExist) {
			return errors.New("it has asked for one, or is about to")
		}
		return err
	})
	if err != nil {
		return err
	}
	// The kubelet flushes neither; without them the node could never come back.
	if err := host.Flush(paths.Kubeconfig("kubelet.conf")); err != nil {
		return err
	}
	if err := host.Flush(paths.Kubelet()); err != nil {
		return err
	}
	r.Step("the kubelet has its certificate")
	if err := os.Remove(paths.Kubeconfig("bootstrap-kubelet.conf")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// explain says what keeps the kubelet from getting its certificate; nil if nothing is
// known to.
func explain(ctx context.Context, units host.Units, api *kubeapi.API) error {
	running, err := units.Active(ctx, unit)
	if err != nil {
		return err
	}
	if !running {
		return fmt.Errorf("%s does not run; see journalctl -u kubelet", unit)
	}
	_, err = api.Client.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	switch {
	case err == nil:
		return nil
	case apierrors.IsUnauthorized(err):
		return errors.New("the API server refuses the kubelet's credentials for joining: the bootstrap token has expired or was deleted")
	}
	return fmt.Errorf("the API server cannot be reached: %w", err)
}
