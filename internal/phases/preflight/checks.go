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

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/internal/skew"
)

const (
	minCPUs   = 2
	minMemory = 1700 << 20 // bytes
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
	return skew.Newer(m.Config.Plan.Cluster.KubernetesVersion)
}

// controlPlaneVersion is no check of kubeadm's: it does not read a configuration
// with a version that is too old.
func controlPlaneVersion(_ context.Context, m *Machine) error {
	return skew.TooOld(m.Config.Plan.Cluster.KubernetesVersion)
}

func firewalld(ctx context.Context, m *Machine) error {
	active, err := m.Units.Active(ctx, "firewalld.service")
	if err != nil {
		return err
	}
	if active {
		return fmt.Errorf("firewalld is active; ensure that ports %d and 10250 are open", m.Config.Plan.Node.Port())
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

// proxyEndpoints looks at the API servers that this node speaks to: its own, and the
// one at which it finds the cluster.
func proxyEndpoints(_ context.Context, m *Machine) error {
	var errs []error
	if roles[m.Config.Plan.Role]&control != 0 {
		errs = append(errs, proxied(m, "https://"+m.Config.LocalAPIEndpoint(), "connection to the API server at "+m.Config.LocalAPIEndpoint()))
	}
	if d := m.Config.Plan.Discovery; d != nil && d.Endpoint != "" {
		host, port, err := bootplan.SplitEndpoint(d.Endpoint)
		if err != nil {
			return err
		}
		errs = append(errs, proxied(m, "https://"+hostPort(host, port), "connection to the cluster at "+hostPort(host, port)))
	}
	return errors.Join(errs...)
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

// swap passes over the memory that the machine swaps to where the kubelet is configured
// for it: see kubeletconfig.ForNode.
func swap(_ context.Context, m *Machine) error {
	swaps, err := os.Open(m.Paths.At("/proc/swaps"))
	if errors.Is(err, fs.ErrNotExist) { // a kernel without swap
		return nil
	}
	if err != nil {
		return err
	}
	defer swaps.Close()
	s := bufio.NewScanner(swaps)
	s.Scan() // the heading
	var on []string
	for s.Scan() {
		f := strings.Fields(s.Text())
		if len(f) > 0 && (!m.Config.Plan.Node.Zram || !strings.HasPrefix(f[0], "/dev/zram")) {
			on = append(on, f[0])
		}
	}
	if len(on) > 0 {
		return fmt.Errorf("swap is on (%s); the kubelet must be configured for it", strings.Join(on, ", "))
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
	if m.Config.Plan.Role != bootplan.RoleInit {
		// The cluster's own version is compared when it has been found.
		return skew.Supported(match[1])
	}
	return skew.Kubelet(match[1], m.Config.Plan.Cluster.KubernetesVersion)
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
	if d := cfg.Plan.Discovery; d != nil {
		if host, _, err := bootplan.SplitEndpoint(d.Endpoint); err == nil {
			if a, err := netip.ParseAddr(host); err == nil {
				addrs = append(addrs, a)
			}
		}
	}
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
