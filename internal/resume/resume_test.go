package resume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	criv1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// runtime answers as containerd does after a reboot: it knows what ran before.
type runtime struct {
	criv1.UnimplementedRuntimeServiceServer
	mu         sync.Mutex
	busy       int // so many questions are refused first
	pods       []*criv1.PodSandbox
	sandboxes  map[string]*criv1.PodSandboxConfig
	containers map[string][]*criv1.ContainerConfig // by pod, the oldest first
	started    []string
	reserved   string // the name of a pod that somebody else starts
}

func verbose(config any) map[string]string {
	text, err := json.Marshal(map[string]any{"sandboxID": "x", "config": config})
	if err != nil {
		panic(err)
	}
	return map[string]string{"info": string(text)}
}

func (r *runtime) ListPodSandbox(_ context.Context, in *criv1.ListPodSandboxRequest) (*criv1.ListPodSandboxResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy--; r.busy >= 0 {
		return nil, status.Error(codes.Unavailable, "server is not initialized yet")
	}
	var out []*criv1.PodSandbox
	for _, p := range r.pods {
		if p.Labels[namespaceLabel] == in.Filter.LabelSelector[namespaceLabel] && p.Labels["tier"] == in.Filter.LabelSelector["tier"] {
			out = append(out, p)
		}
	}
	return &criv1.ListPodSandboxResponse{Items: out}, nil
}

func (r *runtime) PodSandboxStatus(_ context.Context, in *criv1.PodSandboxStatusRequest) (*criv1.PodSandboxStatusResponse, error) {
	return &criv1.PodSandboxStatusResponse{Info: verbose(r.sandboxes[in.PodSandboxId])}, nil
}

func (r *runtime) ListContainers(_ context.Context, in *criv1.ListContainersRequest) (*criv1.ListContainersResponse, error) {
	var out []*criv1.Container
	for i, c := range r.containers[in.Filter.PodSandboxId] {
		out = append(out, &criv1.Container{Id: fmt.Sprintf("%s %d", in.Filter.PodSandboxId, i), Metadata: c.Metadata, CreatedAt: int64(i)})
	}
	slices.Reverse(out)
	return &criv1.ListContainersResponse{Containers: out}, nil
}

func (r *runtime) ContainerStatus(_ context.Context, in *criv1.ContainerStatusRequest) (*criv1.ContainerStatusResponse, error) {
	var i int
	pod, _, _ := strings.Cut(in.ContainerId, " ")
	if _, err := fmt.Sscanf(in.ContainerId, pod+" %d", &i); err != nil {
		return nil, err
	}
	return &criv1.ContainerStatusResponse{Info: verbose(r.containers[pod][i])}, nil
}

func (r *runtime) RunPodSandbox(_ context.Context, in *criv1.RunPodSandboxRequest) (*criv1.RunPodSandboxResponse, error) {
	m := in.Config.Metadata
	if m.Name == r.reserved {
		return nil, fmt.Errorf("failed to reserve sandbox name %q", m.Name)
	}
	return &criv1.RunPodSandboxResponse{PodSandboxId: fmt.Sprintf("%s_%d", m.Name, m.Attempt)}, nil
}

func (r *runtime) CreateContainer(_ context.Context, in *criv1.CreateContainerRequest) (*criv1.CreateContainerResponse, error) {
	c := in.Config
	return &criv1.CreateContainerResponse{ContainerId: fmt.Sprintf("%s/%s_%d restarts=%s log=%s hash=%s image=%s", in.PodSandboxId, c.Metadata.Name, c.Metadata.Attempt,
		c.Annotations[restartCountAnnotation], c.LogPath, c.Annotations["io.kubernetes.container.hash"], c.Image.Image)}, nil
}

func (r *runtime) StartContainer(_ context.Context, in *criv1.StartContainerRequest) (*criv1.StartContainerResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.started = append(r.started, in.ContainerId)
	return &criv1.StartContainerResponse{}, nil
}

// addPod adds a static pod that is down since the reboot, with containers of that many attempts.
func (r *runtime) addPod(component, id, annotation string, created time.Time, attempts int) *criv1.PodSandbox {
	p := &criv1.PodSandbox{
		Id: id, State: criv1.PodSandboxState_SANDBOX_NOTREADY, CreatedAt: created.UnixNano(),
		Labels:      map[string]string{namespaceLabel: "kube-system", "tier": "control-plane", "component": component},
		Annotations: map[string]string{sourceAnnotation: "file", components[component]: annotation},
	}
	r.pods = append(r.pods, p)
	r.sandboxes[id] = &criv1.PodSandboxConfig{
		Metadata: &criv1.PodSandboxMetadata{Name: component + "-cp", Attempt: 3},
		Linux: &criv1.LinuxPodSandboxConfig{
			CgroupParent: "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + id + ".slice",
			Resources:    &criv1.LinuxContainerResources{CpuShares: 256},
		},
	}
	for i := range attempts {
		r.containers[id] = append(r.containers[id], &criv1.ContainerConfig{
			Metadata:    &criv1.ContainerMetadata{Name: component, Attempt: uint32(i)},
			Annotations: map[string]string{restartCountAnnotation: fmt.Sprint(i), "io.kubernetes.container.hash": "h" + fmt.Sprint(i)},
			Image:       &criv1.ImageSpec{Image: "sha256:" + component}, LogPath: fmt.Sprintf("%s/%d.log", component, i),
		})
	}
	return p
}

func serve(t *testing.T, r *runtime) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	s := grpc.NewServer()
	criv1.RegisterRuntimeServiceServer(s, r)
	t.Cleanup(s.Stop)
	// It listens a while after the first question, as after a boot.
	time.AfterFunc(3*poll, func() {
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Error(err)
			return
		}
		_ = s.Serve(l)
	})
	return socket
}

func TestRun(t *testing.T) {
	booted := time.Now()
	dir := t.TempDir()
	for _, n := range []string{"etcd", "kube-apiserver"} {
		file := filepath.Join(dir, n+".yaml")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, booted, booted); err != nil {
			t.Fatal(err)
		}
	}
	const api, urls = "192.0.2.10:6443", "https://[2001:db8::10]:2379"
	later := booted.Add(time.Minute)
	for _, tc := range []struct {
		name    string
		change  func(*runtime)
		started []string
		logged  string // a part of what is said
		err     string // a part of the error
	}{
		{"both", func(*runtime) {}, []string{
			"etcd-cp_4/etcd_1 restarts=1 log=etcd/1.log hash=h0 image=sha256:etcd",
			"kube-apiserver-cp_4/kube-apiserver_2 restarts=2 log=kube-apiserver/2.log hash=h1 image=sha256:kube-apiserver",
		}, "kube-apiserver runs", ""},
		{"one runs already", func(r *runtime) { r.pods[0].State = criv1.PodSandboxState_SANDBOX_READY },
			[]string{"kube-apiserver-cp_4/kube-apiserver_2 restarts=2 log=kube-apiserver/2.log hash=h1 image=sha256:kube-apiserver"}, "", ""},
		{"an older pod is down", func(r *runtime) {
			r.addPod("etcd", "old", urls, booted.Add(time.Second), 1)
			r.pods[0].State = criv1.PodSandboxState_SANDBOX_READY
			r.pods = r.pods[:1:1]
		}, nil, "", ""},
		{"a pod of the API server's", func(r *runtime) {
			for _, p := range r.pods {
				p.Annotations[sourceAnnotation] = "api"
			}
		}, nil, "", ""},
		{"a newer manifest", func(r *runtime) {
			for _, p := range r.pods {
				p.CreatedAt = booted.Add(-time.Minute).UnixNano()
			}
		}, nil, "the manifest has been written after", ""},
		{"the kubelet was first", func(r *runtime) { r.reserved = "etcd-cp"; r.pods = r.pods[:1] }, nil, "", "etcd: start the pod: "},
		{"no address", func(r *runtime) { delete(r.pods[1].Annotations, components["kube-apiserver"]); r.pods = r.pods[1:] }, nil, "", "has no address, want HOST:PORT or a URL"},
		{"no container", func(r *runtime) { r.containers["a"] = nil; r.pods = r.pods[1:] }, nil, "", "pod a has no container"},
		{"two containers", func(r *runtime) { r.containers["a"][1].Metadata.Name = "sidecar"; r.pods = r.pods[1:] }, nil, "", "several containers"},
		{"an answer that tells nothing", func(r *runtime) { r.sandboxes["a"] = nil; r.pods = r.pods[1:] }, nil, "", "does not tell"},
		{"nothing ran before", func(r *runtime) { r.pods = nil }, nil, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := &runtime{sandboxes: map[string]*criv1.PodSandboxConfig{}, containers: map[string][]*criv1.ContainerConfig{}, busy: 2}
			r.addPod("etcd", "e", urls, later, 1)
			r.addPod("kube-apiserver", "a", api, later, 2)
			tc.change(r)
			conn, err := Dial(serve(t, r))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			var mu sync.Mutex
			var said, did []string
			note := func(list *[]string, s string) error {
				mu.Lock()
				defer mu.Unlock()
				*list = append(*list, s)
				return nil
			}
			err = Run(t.Context(), Machine{
				Runtime: criv1.NewRuntimeServiceClient(conn), Manifests: dir,
				Slice: func(_ context.Context, name string, weight uint64) error {
					return note(&did, fmt.Sprint(name, " ", weight))
				},
				Address: func(_ context.Context, host string) error { return note(&did, host) },
				Log:     func(format string, a ...any) { _ = note(&said, fmt.Sprintf(format, a...)) },
			})
			if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("error %v, want %q", err, tc.err)
			}
			slices.Sort(r.started)
			if !slices.Equal(r.started, tc.started) {
				t.Errorf("started %q, want %q", r.started, tc.started)
			}
			if all := strings.Join(said, "\n"); !strings.Contains(all, tc.logged) || tc.logged == "" && len(tc.started) == 0 && all != "" {
				t.Errorf("said %q, want %q", all, tc.logged)
			}
			if tc.name == "both" {
				slices.Sort(did)
				want := []string{"192.0.2.10", "2001:db8::10", "kubepods-burstable-poda.slice 10", "kubepods-burstable-pode.slice 10"}
				if !slices.Equal(did, want) {
					t.Errorf("before the start: %q, want %q", did, want)
				}
			}
		})
	}
}

func TestRunGivesUp(t *testing.T) {
	conn, err := Dial(filepath.Join(t.TempDir(), "nobody"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 4*poll)
	defer cancel()
	if err := Run(ctx, ThisMachine(conn, t.TempDir(), t.Logf)); err == nil {
		t.Error("no error without a container runtime")
	}
}

func TestWaitAddress(t *testing.T) {
	if err := waitAddress(t.Context(), "127.0.0.1"); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*poll)
	defer cancel()
	var op *net.OpError
	if err := waitAddress(ctx, "192.0.2.1"); !errors.As(err, &op) {
		t.Errorf("192.0.2.1, which no machine has: %v", err)
	}
}

// TestWeight has figures of kubepods' slices on a node.
func TestWeight(t *testing.T) {
	for shares, want := range map[int64]uint64{0: 1, 2: 1, 102: 4, 256: 10, 1024: 39, 262144: 10000, 1 << 40: 10000} {
		if got := weight(shares); got != want {
			t.Errorf("%d shares: %d, want %d", shares, got, want)
		}
	}
}

func TestParentSlice(t *testing.T) {
	for name, want := range map[string]string{
		"kubepods-burstable-pod0587f398d4c9b0182c8e1d631fad87b7.slice": "kubepods-burstable.slice",
		"kubepods-pod1.slice": "kubepods.slice", "kubepods.slice": "-.slice",
	} {
		if got := parentSlice(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}
