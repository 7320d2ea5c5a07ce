// Package waitcontrolplane is the phase that waits until the control plane is
// healthy and its administrator has rights.
//
// INPUTS: a started kubelet, its configuration and the static pod manifests, which
// say where the components answer; admin.conf and super-admin.conf.
//
// OUTPUTS: the ClusterRoleBinding kubeadm:cluster-admins, without which admin.conf
// is good for nothing; /etc/kubernetes/manifests/{kube-controller-manager,kube-scheduler}.yaml
// (0600), once the API server answers. Started before, as kubeadm does, both take
// the processor from it, give up and restart: the controller manager after 10 s and
// with its lease held, so that the next one waits until that expires.
package waitcontrolplane

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/internal/staticpod"
)

// probeTimeout is how long a health endpoint may take. The components' own probes
// allow 15 s.
const probeTimeout = 15 * time.Second

// Run waits for the kubelet, then for the API server, the controller manager and
// the scheduler, each for the plan's Timeouts.ControlPlane.
func Run(ctx context.Context, cfg nodeconfig.Config, paths host.Paths, api *kubeapi.API, r phase.Report) error {
	kubelet, err := kubeletEndpoint(paths)
	if err != nil {
		return phase.Permanent(err)
	}
	super, err := kubeapi.Load(cfg, paths, kubeapi.SuperAdminConf, r)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return phase.Permanent(err)
	}
	bound := time.Duration(cfg.Plan.Timeouts.ControlPlane)
	// The components' certificates are self-signed and made at their start. Nothing
	// but a status is read, from the loopback.
	client := &http.Client{Timeout: probeTimeout, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()

	err = phase.Poll(ctx, r, "the kubelet", kubeapi.Interval, bound, func(ctx context.Context) error {
		if kubelet == "" {
			return nil
		}
		return probe(ctx, client, kubelet)
	})
	if err != nil {
		return fmt.Errorf("%w; see journalctl -u kubelet", err)
	}
	check := func(name string) (component, error) {
		url, err := componentEndpoint(paths, name)
		return component{name, func(ctx context.Context) error { return probe(ctx, client, url) }}, err
	}
	components := []component{{staticpod.APIServer, func(ctx context.Context) error { return ready(ctx, api, super) }}}
	var later []string // have no manifest yet
	for _, name := range []string{staticpod.ControllerManager, staticpod.Scheduler} {
		c, err := check(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			later = append(later, name)
		case err != nil:
			return phase.Permanent(err)
		default:
			components = append(components, c)
		}
	}
	start := time.Now()
	return phase.Poll(ctx, r, "the control plane", kubeapi.Interval, bound, func(ctx context.Context) error {
		errs := checkAll(ctx, components)
		var left []component
		var why []string
		for i, c := range components {
			if errs[i] == nil {
				r.Step("%s is healthy after %.0fs", c.name, time.Since(start).Seconds())
				continue
			}
			left, why = append(left, c), append(why, fmt.Sprintf("%s: %v", c.name, errs[i]))
		}
		if len(later) > 0 && !slices.ContainsFunc(left, func(c component) bool { return c.name == staticpod.APIServer }) {
			if err := writeManifests(cfg, paths, later, r); err != nil {
				return phase.Permanent(err)
			}
			for _, name := range later {
				c, err := check(name)
				if err != nil {
					return phase.Permanent(err)
				}
				left, why = append(left, c), append(why, name+": starting")
			}
			later = nil
		}
		components = left
		if len(left) == 0 {
			return nil
		}
		waiting := errors.New(strings.Join(why, "; "))
		if slices.ContainsFunc(errs, phase.IsPermanent) {
			return phase.Permanent(waiting)
		}
		return waiting
	})
}

// writeManifests lets the kubelet start the named components.
func writeManifests(cfg nodeconfig.Config, paths host.Paths, names []string, r phase.Report) error {
	pods, err := staticpod.ControlPlane(cfg, paths)
	if err != nil {
		return err
	}
	for _, pod := range pods {
		if !slices.Contains(names, pod.Name) {
			continue
		}
		if _, err := staticpod.Write(paths, pod); err != nil {
			return err
		}
		r.Step("wrote the manifest of %s", pod.Name)
	}
	return nil
}

type component struct {
	name  string
	check func(context.Context) error
}

// checkAll asks all components at the same time: one that hangs does not hide
// what the others say.
func checkAll(ctx context.Context, components []component) []error {
	errs := make([]error, len(components))
	var wg sync.WaitGroup
	for i, c := range components {
		wg.Go(func() { errs[i] = c.check(ctx) })
	}
	wg.Wait()
	return errs
}

// ready returns nil once the API server is alive and admin may do everything in
// it. The right is a ClusterRoleBinding that admin itself cannot create before it
// has it; on the node that creates the cluster super does.
func ready(ctx context.Context, admin, super *kubeapi.API) error {
	binding := kubeapi.BindClusterRole(kubeapi.AdminsGroup, "cluster-admin", kubeapi.Group(kubeapi.AdminsGroup))
	_, err := admin.Client.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{})
	switch {
	case err == nil || apierrors.IsAlreadyExists(err):
		return alive(ctx, admin)
	case !apierrors.IsForbidden(err):
		return err
	case super == nil:
		return phase.Permanent(fmt.Errorf("the user of %s has no rights: the ClusterRoleBinding %s is missing, and so is %s to create it with", kubeapi.AdminConf, binding.Name, kubeapi.SuperAdminConf))
	}
	if _, err := super.Client.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("with %s: %w", kubeapi.SuperAdminConf, err)
	}
	// The authorizer learns of the binding, and of the role cluster-admin, a moment later.
	return fmt.Errorf("the ClusterRoleBinding %s has no effect yet", binding.Name)
}

func alive(ctx context.Context, api *kubeapi.API) error {
	body, err := api.Client.Discovery().RESTClient().Get().AbsPath("/livez").DoRaw(ctx)
	if err != nil && len(body) > 0 {
		return fmt.Errorf("it is not alive: %s", summary(string(body)))
	}
	return err
}

// probe asks a health endpoint; any status but 200 is an error that quotes the answer.
func probe(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, summary(string(body)))
	}
	return nil
}

// summary is the part of a health report that says what is wrong: the names of
// the checks that failed, or its last line.
func summary(report string) string {
	var failed []string
	for line := range strings.Lines(report) {
		if check, ok := strings.CutPrefix(line, "[-]"); ok {
			failed = append(failed, strings.TrimSpace(check))
		}
	}
	if len(failed) > 0 {
		return strings.Join(failed, ", ")
	}
	report = strings.TrimSpace(report)
	return report[strings.LastIndexByte(report, '\n')+1:]
}
