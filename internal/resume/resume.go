// Package resume starts the API server and its etcd again after a reboot, as soon as
// the container runtime answers. The kubelet, which would do it ten seconds later on
// a small machine, finds them running and takes them over.
package resume

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	criv1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What the kubelet writes on pods and containers, see k8s.io/kubelet/pkg/types and
// its kuberuntime package.
const (
	namespaceLabel         = "io.kubernetes.pod.namespace"
	sourceAnnotation       = "kubernetes.io/config.source"
	restartCountAnnotation = "io.kubernetes.container.restartCount"
)

// components are the static pods that others wait for, by the label component, with
// the annotation in which kubeadm notes the address that they listen on. The
// controller manager and the scheduler can do nothing before these.
var components = map[string]string{
	"etcd":           "kubeadm.kubernetes.io/etcd.advertise-client-urls",
	"kube-apiserver": "kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint",
}

// Machine is what Run needs of the node.
type Machine struct {
	Runtime   criv1.RuntimeServiceClient
	Manifests string // the kubelet's staticPodPath
	// Slice makes the control group of a pod, with a weight as of systemd's CPUWeight=,
	// or does nothing if there is one. The kubelet sets nothing of a group that exists.
	Slice func(ctx context.Context, name string, weight uint64) error
	// Address waits until the machine has the address.
	Address func(ctx context.Context, host string) error
	Log     func(format string, a ...any)
}

// addressTime is how long the network may take once the container runtime answers: where
// a lease is late, the kubelet may as well load meanwhile.
const addressTime = 10 * time.Second

// Run starts the pods of the API server and of etcd, as they were before the reboot,
// as far as they are down and their manifests are the same. Each is tried once: what
// fails, or is not as expected, is left to the kubelet and returned.
func Run(ctx context.Context, m Machine) error {
	list, err := m.pods(ctx)
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	failed := make(chan error)
	names := slices.Sorted(maps.Keys(components))
	for _, component := range names {
		go func() {
			err := m.resume(ctx, component, newest(list, component))
			if err != nil {
				err = fmt.Errorf("%s: %w", component, err)
			}
			failed <- err
		}()
	}
	var errs []error
	for range names {
		errs = append(errs, <-failed)
	}
	return errors.Join(errs...)
}

// pods are the control plane's, as soon as the container runtime tells them. containerd
// refuses to for a moment after it listens.
func (m Machine) pods(ctx context.Context) ([]*criv1.PodSandbox, error) {
	for {
		list, err := m.Runtime.ListPodSandbox(ctx, &criv1.ListPodSandboxRequest{Filter: &criv1.PodSandboxFilter{
			LabelSelector: map[string]string{namespaceLabel: "kube-system", "tier": "control-plane"},
		}}, grpc.WaitForReady(true))
		if status.Code(err) != codes.Unavailable {
			return list.GetItems(), err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(poll):
		}
	}
}

// newest is the last pod of a component that came from a manifest; nil if there is none.
func newest(pods []*criv1.PodSandbox, component string) *criv1.PodSandbox {
	pods = slices.DeleteFunc(slices.Clone(pods), func(p *criv1.PodSandbox) bool {
		return p.Labels["component"] != component || p.Annotations[sourceAnnotation] != "file"
	})
	if len(pods) == 0 {
		return nil
	}
	return slices.MaxFunc(pods, func(a, b *criv1.PodSandbox) int { return cmp.Compare(a.CreatedAt, b.CreatedAt) })
}

func (m Machine) resume(ctx context.Context, component string, pod *criv1.PodSandbox) error {
	if pod == nil || pod.State == criv1.PodSandboxState_SANDBOX_READY {
		return nil
	}
	manifest, err := os.Stat(filepath.Join(m.Manifests, component+".yaml"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if created := time.Unix(0, pod.CreatedAt); !manifest.ModTime().Before(created) {
		m.Log("%s: the manifest has been written after the pod was made; the kubelet makes it anew", component)
		return nil
	}
	sandbox, container, err := m.configs(ctx, pod.Id)
	if err != nil {
		return err
	}
	again(sandbox, container)
	host, err := addressOf(pod.Annotations[components[component]])
	if err != nil {
		return fmt.Errorf("annotation %s: %w", components[component], err)
	}
	if slice := path.Base(sandbox.GetLinux().GetCgroupParent()); strings.HasSuffix(slice, ".slice") {
		if err := m.Slice(ctx, slice, weight(sandbox.GetLinux().GetResources().GetCpuShares())); err != nil {
			return err
		}
	}
	return m.start(ctx, component, host, sandbox, container)
}

// start starts the pod and, once the machine has the address, its container. Runtimes
// reserve names, so the kubelet and this cannot both start the same attempt.
func (m Machine) start(ctx context.Context, component, host string, sandbox *criv1.PodSandboxConfig, container *criv1.ContainerConfig) error {
	pod, err := m.Runtime.RunPodSandbox(ctx, &criv1.RunPodSandboxRequest{Config: sandbox})
	if err != nil {
		return fmt.Errorf("start the pod: %w", err)
	}
	wait, cancel := context.WithTimeout(ctx, addressTime)
	defer cancel()
	if err := m.Address(wait, host); err != nil {
		return err
	}
	c, err := m.Runtime.CreateContainer(ctx, &criv1.CreateContainerRequest{PodSandboxId: pod.PodSandboxId, Config: container, SandboxConfig: sandbox})
	if err != nil {
		return fmt.Errorf("create the container: %w", err)
	}
	if _, err := m.Runtime.StartContainer(ctx, &criv1.StartContainerRequest{ContainerId: c.ContainerId}); err != nil {
		return fmt.Errorf("start the container: %w", err)
	}
	m.Log("%s runs: container %s, attempt %d", component, c.ContainerId, container.Metadata.Attempt)
	return nil
}

// configs are what the kubelet has made the pod and its container of, which containerd
// tells in verbose answers.
func (m Machine) configs(ctx context.Context, pod string) (*criv1.PodSandboxConfig, *criv1.ContainerConfig, error) {
	state, err := m.Runtime.PodSandboxStatus(ctx, &criv1.PodSandboxStatusRequest{PodSandboxId: pod, Verbose: true})
	if err != nil {
		return nil, nil, fmt.Errorf("state of pod %s: %w", pod, err)
	}
	sandbox, err := config[criv1.PodSandboxConfig](state.Info)
	if err != nil {
		return nil, nil, fmt.Errorf("configuration of pod %s: %w", pod, err)
	}
	list, err := m.Runtime.ListContainers(ctx, &criv1.ListContainersRequest{Filter: &criv1.ContainerFilter{PodSandboxId: pod}})
	if err != nil {
		return nil, nil, fmt.Errorf("containers of pod %s: %w", pod, err)
	}
	if len(list.Containers) == 0 {
		return nil, nil, fmt.Errorf("pod %s has no container", pod)
	}
	last := slices.MaxFunc(list.Containers, func(a, b *criv1.Container) int { return cmp.Compare(a.CreatedAt, b.CreatedAt) })
	if slices.ContainsFunc(list.Containers, func(c *criv1.Container) bool { return c.GetMetadata().GetName() != last.GetMetadata().GetName() }) {
		return nil, nil, fmt.Errorf("pod %s has several containers, want the component's alone", pod)
	}
	answer, err := m.Runtime.ContainerStatus(ctx, &criv1.ContainerStatusRequest{ContainerId: last.Id, Verbose: true})
	if err != nil {
		return nil, nil, fmt.Errorf("state of container %s: %w", last.Id, err)
	}
	container, err := config[criv1.ContainerConfig](answer.Info)
	if err != nil {
		return nil, nil, fmt.Errorf("configuration of container %s: %w", last.Id, err)
	}
	if sandbox.Metadata == nil || container.Metadata == nil {
		return nil, nil, fmt.Errorf("pod %s: the configuration has no metadata", pod)
	}
	return sandbox, container, nil
}

// config reads the part config of a verbose answer's part info.
func config[T any](info map[string]string) (*T, error) {
	var v struct {
		Config *T `json:"config"`
	}
	if err := json.Unmarshal([]byte(info["info"]), &v); err != nil {
		return nil, err
	}
	if v.Config == nil {
		return nil, errors.New("the container runtime does not tell it")
	}
	return v.Config, nil
}

// again makes configurations those of the next attempt, as the kubelet counts: the
// container's attempt is its restart count, and names its log file.
func again(sandbox *criv1.PodSandboxConfig, container *criv1.ContainerConfig) {
	sandbox.Metadata.Attempt++
	container.Metadata.Attempt++
	count := strconv.FormatUint(uint64(container.Metadata.Attempt), 10)
	if container.Annotations == nil {
		container.Annotations = map[string]string{}
	}
	container.Annotations[restartCountAnnotation] = count
	container.LogPath = path.Join(path.Dir(container.LogPath), count+".log")
}

// addressOf is the host in HOST:PORT or in a URL.
func addressOf(s string) (string, error) {
	if !strings.Contains(s, "://") {
		s = "https://" + s
	}
	u, err := url.Parse(s)
	if err != nil {
		return "", err
	}
	if u.Hostname() == "" {
		return "", fmt.Errorf("%q has no address, want HOST:PORT or a URL", s)
	}
	return u.Hostname(), nil
}

// weight is the control group weight, 1 to 10000, for CPU shares, 2 to 262144, as the
// kubelet of this version calculates it: its libcontainer's formula.
func weight(shares int64) uint64 {
	shares = min(max(shares, 2), 262144)
	return uint64(1 + (shares-2)*9999/262142)
}
