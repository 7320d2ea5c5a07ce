package preflight

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/net/http/httpproxy"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	criv1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
)

// Machine is what the checks look at. Tests replace single fields.
type Machine struct {
	Config nodeconfig.Config
	Paths  host.Paths
	Units  host.Units
	UID    int
	CPUs   int
	// Memory returns the RAM in bytes.
	Memory func() (uint64, error)
	// Kernel returns what uname -r prints.
	Kernel     func() (string, error)
	Listen     func(ctx context.Context, address string) error
	LookPath   func(name string) (string, error)
	LookupHost func(ctx context.Context, name string) error
	// Output runs a program and returns its standard output.
	Output func(ctx context.Context, name string, args ...string) (string, error)
	// Proxy returns the proxy a request to url would go through, "" for none.
	Proxy func(url string) (string, error)
	CRI   CRI
	Now   func() time.Time
	// Space returns the room of a file system.
	Space func(path string) (host.Space, error)
	// Seeded reports whether the kernel can make keys without waiting.
	Seeded func() (bool, error)
	// EtcdRetry is the pause between tries to reach an external etcd.
	EtcdRetry time.Duration

	report phase.Report
}

// CRI is the part of the container runtime's interface that the checks use.
type CRI interface {
	Status(ctx context.Context) (*criv1.StatusResponse, error)
	RuntimeConfig(ctx context.Context) (*criv1.RuntimeConfigResponse, error)
}

// ThisMachine is the machine that firstboot runs on.
func ThisMachine(cfg nodeconfig.Config, paths host.Paths, units host.Units) *Machine {
	return &Machine{
		Config: cfg, Paths: paths, Units: units,
		UID: os.Getuid(), CPUs: runtime.NumCPU(), Memory: host.Memory, Kernel: host.KernelRelease,
		Listen: listen, LookPath: exec.LookPath, LookupHost: lookupHost, Output: output, Proxy: proxy,
		CRI: socketCRI(paths.Containerd()), Now: time.Now, Space: host.SpaceOf, Seeded: host.Seeded, EtcdRetry: 5 * time.Second,
	}
}

func listen(ctx context.Context, address string) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return l.Close()
}

func lookupHost(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := net.DefaultResolver.LookupHost(ctx, name)
	return err
}

func output(ctx context.Context, name string, args ...string) (string, error) {
	// Starting a program of 150 MB from a slow SD card takes a while.
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return string(out), nil
}

func proxy(rawURL string) (string, error) {
	req, err := http.NewRequest(http.MethodGet, rawURL, nil)
	if err != nil {
		return "", err
	}
	u, err := httpproxy.FromEnvironment().ProxyFunc()(req.URL)
	if err != nil || u == nil {
		return "", err
	}
	return u.Redacted(), nil
}

// socketCRI is the CRI at a unix socket.
type socketCRI string

func (s socketCRI) with(ctx context.Context, f func(context.Context, criv1.RuntimeServiceClient) error) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := grpc.NewClient("unix://"+string(s), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	return f(ctx, criv1.NewRuntimeServiceClient(conn))
}

func (s socketCRI) Status(ctx context.Context) (out *criv1.StatusResponse, err error) {
	err = s.with(ctx, func(ctx context.Context, c criv1.RuntimeServiceClient) (err error) {
		out, err = c.Status(ctx, &criv1.StatusRequest{})
		return err
	})
	return out, err
}

func (s socketCRI) RuntimeConfig(ctx context.Context) (out *criv1.RuntimeConfigResponse, err error) {
	err = s.with(ctx, func(ctx context.Context, c criv1.RuntimeServiceClient) (err error) {
		out, err = c.RuntimeConfig(ctx, &criv1.RuntimeConfigRequest{})
		return err
	})
	return out, err
}

func hostPort(address string, port int) string { return net.JoinHostPort(address, portName(port)) }

func portName(port int) string { return strconv.Itoa(port) }
