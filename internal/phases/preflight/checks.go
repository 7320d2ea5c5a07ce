package preflight

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
)

const (
	minCPUs   = 2
	minMemory = 1700 << 20 // bytes
	// ownMinor is the minor version of Kubernetes whose kubeadm these checks are.
	ownMinor = 37
	// kubeletSkew is how many minor versions a kubelet may be older than its API server.
	kubeletSkew = 3
)

func numCPU(_ context.Context, m *Machine) error {
	if m.CPUs < minCPUs {
		return fmt.Errorf("the number of available CPUs %d is less than the required %d", m.CPUs, minCPUs)
	}
	return nil
}

func memory(_ context.Context, m *Machine) error {
	got, err := m.Memory()
	if err != nil {
		return err
	}
	if got < minMemory {
		return fmt.Errorf("the system RAM (%d MB) is less than the minimum %d MB", got>>20, minMemory>>20)
	}
	return nil
}

func kubernetesVersion(_ context.Context, m *Machine) error {
	v, err := version.ParseSemantic(m.Config.Plan.Cluster.KubernetesVersion)
	if err != nil {
		return err
	}
	if v.Minor() > ownMinor {
		return fmt.Errorf("the boot plan asks for %s, newer than the 1.%d that this firstboot knows", v, ownMinor)
	}
	return nil
}

func firewalld(ctx context.Context, m *Machine) error {
	active, err := m.Units.Active(ctx, "firewalld.service")
	if err != nil {
		return err
	}
	if active {
		return errors.New("firewalld is active; ensure that ports 6443 and 10250 are open")
	}
	return nil
}

// portFree checks that a TCP port can be bound; without an address, on all.
func portFree(port int, address string) func(context.Context, *Machine) error {
	return func(ctx context.Context, m *Machine) error {
		if err := m.Listen(ctx, hostPort(address, port)); err != nil {
			return fmt.Errorf("port %d is in use: %w", port, err)
		}
		return nil
	}
}

func absent(path string) func(context.Context, *Machine) error {
	return func(_ context.Context, m *Machine) error {
		_, err := os.Lstat(m.Paths.At(path))
		switch {
		case err == nil:
			return fmt.Errorf("%s already exists", path)
		case errors.Is(err, fs.ErrNotExist):
			return nil
		}
		return err
	}
}

func emptyDir(path string) func(context.Context, *Machine) error {
	return func(_ context.Context, m *Machine) error {
		entries, err := os.ReadDir(m.Paths.At(path))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case len(entries) > 0:
			return fmt.Errorf("%s is not empty", path)
		}
		return nil
	}
}

// proxyEndpoint looks at the API server that the node speaks to first.
func proxyEndpoint(_ context.Context, m *Machine) error {
	endpoint := m.Config.LocalAPIEndpoint()
	if d := m.Config.Plan.Discovery; d != nil && d.Endpoint != "" {
		host, port, err := bootplan.SplitEndpoint(d.Endpoint)
		if err != nil {
			return err
		}
		endpoint = hostPort(host, port)
	}
	return proxied(m, "https://"+endpoint, "connection to the API server at "+endpoint)
}

func proxySubnets(_ context.Context, m *Machine) error {
	var errs []error
	for _, cidr := range append(append([]string(nil), m.Config.Plan.Cluster.ServiceSubnets...), m.Config.Plan.Cluster.PodSubnets...) {
		p, err := netip.ParsePrefix(cidr)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, proxied(m, "https://"+hostPort(p.Masked().Addr().Next().String(), 443), "connections into "+cidr))
	}
	return errors.Join(errs...)
}

func proxied(m *Machine, url, what string) error {
	p, err := m.Proxy(url)
	if err != nil {
		return err
	}
	if p != "" {
		return fmt.Errorf("%s would go through the proxy %s; put it into no_proxy", what, p)
	}
	return nil
}

// criReady waits for the runtime, which starts at the same time as firstboot.
func criReady(ctx context.Context, m *Machine) error {
	bound := time.Duration(m.Config.Plan.Timeouts.ContainerdUp)
	return phase.Poll(ctx, m.report, "the container runtime at "+m.Paths.Containerd(), time.Second, bound, func(ctx context.Context) error {
		s, err := m.CRI.Status(ctx)
		if err != nil {
			return err
		}
		// NetworkReady comes with the pod network, long after.
		for _, c := range s.GetStatus().GetConditions() {
			if c.GetType() == "RuntimeReady" {
				if c.GetStatus() {
					return nil
				}
				return fmt.Errorf("RuntimeReady is false: %s: %s", c.GetReason(), c.GetMessage())
			}
		}
		return errors.New("it reports no condition RuntimeReady")
	})
}

func criConfig(ctx context.Context, m *Machine) error {
	_, err := m.CRI.RuntimeConfig(ctx)
	if status.Code(err) == codes.Unimplemented {
		return asWarning{errors.New("the container runtime does not implement the CRI call RuntimeConfig; kubelet 1.38 will need it")}
	}
	return err
}

func swap(_ context.Context, m *Machine) error {
	f, err := os.Open(m.Paths.At("/proc/swaps"))
	if errors.Is(err, fs.ErrNotExist) { // a kernel without swap
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	lines := 0
	for s.Scan() {
		lines++
	}
	if lines > 1 {
		return errors.New("swap is on; the kubelet must be configured for it")
	}
	return s.Err()
}

func inPath(name string) func(context.Context, *Machine) error {
	return func(_ context.Context, m *Machine) error {
		if _, err := m.LookPath(name); err != nil {
			return fmt.Errorf("%s not found in system path", name)
		}
		return nil
	}
}

// supportedKernels are the kernels that Kubernetes is validated with.
var supportedKernels = regexp.MustCompile(`^(5\.4|5\.10|5\.15|([6-9]|[1-9][0-9]+)\.[0-9]+)(\D|$)`)

// systemVerification checks kernel and cgroups as system-validators does.
func systemVerification(_ context.Context, m *Machine) error {
	data, err := os.ReadFile(m.Paths.At("/sys/fs/cgroup/cgroup.controllers"))
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("cgroups are not version 2 (no /sys/fs/cgroup/cgroup.controllers); the kubelet does not start without")
	}
	if err != nil {
		return err
	}
	have := map[string]bool{}
	for _, c := range strings.Fields(string(data)) {
		have[c] = true
	}
	// devices and freezer are part of cgroup v2 without a controller of their own.
	for _, c := range []string{"cpu", "cpuset", "memory", "pids"} {
		if !have[c] {
			return fmt.Errorf("cgroup controller %s is missing", c)
		}
	}
	release, err := m.Kernel()
	if err != nil {
		return err
	}
	var warnings []error
	if !supportedKernels.MatchString(release) {
		warnings = append(warnings, fmt.Errorf("kernel release %s is not one of 5.4, 5.10, 5.15, 6 and later", release))
	}
	for _, c := range []string{"hugetlb", "io"} {
		if !have[c] {
			warnings = append(warnings, fmt.Errorf("optional cgroup controller %s is missing", c))
		}
	}
	if len(warnings) > 0 {
		return asWarning{errors.Join(warnings...)}
	}
	return nil
}

func hostname(ctx context.Context, m *Machine) error {
	if e := validation.IsQualifiedName(m.Config.NodeName); len(e) > 0 {
		return fmt.Errorf("node name %q: %s", m.Config.NodeName, strings.Join(e, "; "))
	}
	if err := m.LookupHost(ctx, m.Config.NodeName); err != nil {
		return fmt.Errorf("node name %q could not be reached: %w", m.Config.NodeName, err)
	}
	return nil
}

var kubeletVersionLine = regexp.MustCompile(`^Kubernetes (v\S+)\s*$`)

func kubeletVersion(ctx context.Context, m *Machine) error {
	out, err := m.Output(ctx, "kubelet", "--version")
	if err != nil {
		return err
	}
	match := kubeletVersionLine.FindStringSubmatch(out)
	if match == nil {
		return fmt.Errorf("kubelet --version printed %q, want Kubernetes v1.x.y", out)
	}
	got, err := version.ParseSemantic(match[1])
	if err != nil {
		return fmt.Errorf("kubelet version: %w", err)
	}
	want, err := version.ParseSemantic(m.Config.Plan.Cluster.KubernetesVersion)
	if err != nil {
		return fmt.Errorf("the boot plan's Kubernetes version: %w", err)
	}
	if want.LessThan(got) {
		return fmt.Errorf("the kubelet is %s, newer than the control plane's %s", got, want)
	}
	if got.Major() != want.Major() || got.Minor()+kubeletSkew < want.Minor() {
		return fmt.Errorf("the kubelet is %s, more than %d minor versions older than the control plane's %s", got, kubeletSkew, want)
	}
	return nil
}

func kubeletService(ctx context.Context, m *Machine) error {
	state, err := m.Units.Enabled(ctx, "kubelet.service")
	if err != nil {
		return err
	}
	switch state {
	case "":
		return errors.New("kubelet.service does not exist")
	case "enabled", "enabled-runtime", "static", "indirect":
		return nil
	}
	return fmt.Errorf("kubelet.service is %s; it would not start after a reboot: systemctl enable kubelet.service", state)
}

func startsWithOne(path string) func(context.Context, *Machine) error {
	return func(_ context.Context, m *Machine) error {
		data, err := os.ReadFile(m.Paths.At(path))
		if err != nil {
			return err
		}
		if !strings.HasPrefix(string(data), "1") {
			return fmt.Errorf("%s contents are not set to 1", path)
		}
		return nil
	}
}

// families reports which address families the node must forward.
func families(cfg nodeconfig.Config) (v4, v6 bool) {
	addrs := []netip.Addr{cfg.AdvertiseAddress}
	for _, cidr := range append(append([]string(nil), cfg.Plan.Cluster.ServiceSubnets...), cfg.Plan.Cluster.PodSubnets...) {
		if p, err := netip.ParsePrefix(cidr); err == nil {
			addrs = append(addrs, p.Addr())
		}
	}
	for _, a := range addrs {
		v4 = v4 || a.Is4()
		v6 = v6 || a.Is6()
	}
	return v4, v6
}
