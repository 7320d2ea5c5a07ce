package preflight

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func inUse(addresses ...string) func(context.Context, string) error {
	return func(_ context.Context, a string) error {
		if slices.Contains(addresses, a) {
			return errors.New("address already in use")
		}
		return nil
	}
}

func TestTable(t *testing.T) {
	output := func(text string) func(*testing.T, *Machine) {
		return func(_ *testing.T, m *Machine) {
			m.Output = func(context.Context, string, ...string) (string, error) { return text, nil }
		}
	}
	kernel := func(release string) func(*testing.T, *Machine) {
		return func(t *testing.T, m *Machine) {
			m.Kernel = func() (string, error) { return release, nil }
			write(t, m.Paths, "/boot/config-"+release, kernelConfigText())
		}
	}
	for _, c := range []struct {
		name   string
		breaks func(t *testing.T, m *Machine)
		failed []string
		warned []string
	}{
		{"good", func(*testing.T, *Machine) {}, nil, nil},
		{"not root", func(_ *testing.T, m *Machine) { m.UID, m.CPUs = 1000, 1 }, []string{"IsPrivilegedUser"}, nil},
		{"all errors together", func(_ *testing.T, m *Machine) {
			m.CPUs = 1
			m.Memory = func() (uint64, error) { return 1 << 30, nil }
		}, []string{"NumCPU", "Mem"}, nil},
		{"newer Kubernetes", func(t *testing.T, m *Machine) {
			m.Config.Plan.Cluster.KubernetesVersion = "v1.38.0"
			write(t, m.Paths, "/usr/share/kiln/images/index.json", layout("v1.38.0", "etcd:3.7.0-0", "coredns/coredns:v1.14.6", "pause:3.10.2"))
		}, nil, []string{"KubernetesVersion"}},
		{"firewalld", func(_ *testing.T, m *Machine) {
			m.Units = fakeUnits{kubelet: "enabled", active: []string{"firewalld.service"}}
		}, nil, []string{"Firewalld"}},
		{"ports of the control plane", func(_ *testing.T, m *Machine) { m.Listen = inUse(":6443", ":10257", ":10259", ":10250") },
			[]string{"Port-6443", "Port-10259", "Port-10257", "Port-10250"}, nil},
		{"etcd's ports, on the advertise address", func(_ *testing.T, m *Machine) { m.Listen = inUse("10.0.2.15:2379", "10.0.2.15:2380", ":2379") },
			[]string{"Port-2379", "Port-2380"}, nil},
		{"a manifest", func(t *testing.T, m *Machine) { write(t, m.Paths, "/etc/kubernetes/manifests/etcd.yaml", "") },
			[]string{"FileAvailable--etc-kubernetes-manifests-etcd.yaml"}, nil},
		{"old etcd data", func(t *testing.T, m *Machine) { write(t, m.Paths, "/var/lib/etcd/member/wal", "") }, []string{"DirAvailable--var-lib-etcd"}, nil},
		{"empty etcd folder", func(t *testing.T, m *Machine) {
			if err := os.MkdirAll(m.Paths.EtcdData(), 0o700); err != nil {
				t.Fatal(err)
			}
		}, nil, nil},
		{"proxy", func(_ *testing.T, m *Machine) {
			m.Proxy = func(string) (string, error) { return "http://proxy:3128", nil }
		}, nil, []string{"HTTPProxy", "HTTPProxyCIDR"}},
		{"runtime not ready", func(_ *testing.T, m *Machine) { m.CRI = fakeCRI{} }, []string{"CRI"}, nil},
		{"old runtime", func(_ *testing.T, m *Machine) {
			m.CRI = fakeCRI{true, status.Error(codes.Unimplemented, "unknown method")}
		}, nil, []string{"ContainerRuntimeVersion"}},
		{"broken runtime", func(_ *testing.T, m *Machine) { m.CRI = fakeCRI{true, status.Error(codes.Internal, "boom")} }, []string{"ContainerRuntimeVersion"}, nil},
		{"swap", func(t *testing.T, m *Machine) {
			write(t, m.Paths, "/proc/swaps", "Filename\n/dev/vda5 partition 1 0 -2\n")
		}, nil, []string{"Swap"}},
		{"swap in memory", func(t *testing.T, m *Machine) {
			m.Config.Plan.Node.Zram = true
			write(t, m.Paths, "/proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n/dev/zram0                              partition\t475132\t\t0\t\t100\n")
		}, nil, nil},
		{"swap in memory that nobody has asked for", func(t *testing.T, m *Machine) {
			write(t, m.Paths, "/proc/swaps", "Filename\n/dev/zram0 partition 1 0 100\n")
		}, nil, []string{"Swap"}},
		{"swap in memory and on a disk", func(t *testing.T, m *Machine) {
			m.Config.Plan.Node.Zram = true
			write(t, m.Paths, "/proc/swaps", "Filename\n/dev/zram0 partition 1 0 100\n/dev/sda1 partition 1 0 -2\n")
		}, nil, []string{"Swap"}},
		{"no tools", func(_ *testing.T, m *Machine) {
			m.LookPath = func(string) (string, error) { return "", errors.New("not found") }
		}, []string{"FileExisting-losetup", "FileExisting-mount", "FileExisting-cp"}, nil},
		{"cgroup v1", func(t *testing.T, m *Machine) {
			if err := os.Remove(m.Paths.At("/sys/fs/cgroup/cgroup.controllers")); err != nil {
				t.Fatal(err)
			}
		}, []string{"SystemVerification"}, nil},
		{"no memory controller", func(t *testing.T, m *Machine) {
			write(t, m.Paths, "/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io pids hugetlb")
		}, []string{"SystemVerification"}, nil},
		{"no hugetlb", func(t *testing.T, m *Machine) {
			write(t, m.Paths, "/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids")
		}, nil, []string{"SystemVerification"}},
		{"kernel 5.15", kernel("5.15.0-1"), nil, nil},
		{"kernel 5.150", kernel("5.150.0"), nil, []string{"SystemVerification"}},
		{"kernel 10.1", kernel("10.1.2"), nil, nil},
		{"kernel 4.19", kernel("4.19.0"), nil, []string{"SystemVerification"}},
		{"unknown host", func(_ *testing.T, m *Machine) {
			m.LookupHost = func(context.Context, string) error { return errors.New("no such host") }
		}, nil, []string{"Hostname"}},
		{"kubelet older by three", output("Kubernetes v1.34.9\n"), nil, nil},
		{"kubelet too old", output("Kubernetes v1.33.0\n"), []string{"KubeletVersion"}, nil},
		{"kubelet newer", output("Kubernetes v1.37.3\n"), []string{"KubeletVersion"}, nil},
		{"kubelet of another minor version", output("Kubernetes v1.38.0\n"), []string{"KubeletVersion"}, nil},
		{"kubelet says something else", output("flag provided but not defined\n"), []string{"KubeletVersion"}, nil},
		{"kubelet disabled", func(_ *testing.T, m *Machine) { m.Units = fakeUnits{kubelet: "disabled"} }, nil, []string{"Service-kubelet"}},
		{"no kubelet unit", func(_ *testing.T, m *Machine) { m.Units = fakeUnits{} }, nil, []string{"Service-kubelet"}},
		{"no forwarding", func(t *testing.T, m *Machine) {
			write(t, m.Paths, "/proc/sys/net/ipv4/ip_forward", "0\n")
			write(t, m.Paths, "/proc/sys/net/ipv6/conf/default/forwarding", "0\n")
		}, []string{"FileContent--proc-sys-net-ipv4-ip_forward", "FileContent--proc-sys-net-ipv6-conf-default-forwarding"}, nil},
		{"no IPv6 in the cluster", func(t *testing.T, m *Machine) {
			m.Config.Plan.Cluster.PodSubnets = m.Config.Plan.Cluster.PodSubnets[:1]
			write(t, m.Paths, "/proc/sys/net/ipv6/conf/default/forwarding", "0\n")
		}, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := good(t)
			c.breaks(t, m)
			failed, warned := run(t, m)
			if !slices.Equal(failed, c.failed) || !slices.Equal(warned, c.warned) {
				t.Errorf("failed %v, warned %v; want %v and %v", failed, warned, c.failed, c.warned)
			}
		})
	}
}

// TestThisMachine runs the real probes: nothing in them may panic or hang, and a
// port that is taken is found.
func TestThisMachine(t *testing.T) {
	m := good(t)
	real := ThisMachine(m.Config, m.Paths, m.Units)
	if err := real.Listen(context.Background(), "127.0.0.1:0"); err != nil {
		t.Error(err)
	}
	if err := real.Listen(context.Background(), "192.0.2.1:80"); err == nil {
		t.Error("an address that is not this machine's can be bound")
	}
	if _, err := real.LookPath("cp"); err != nil {
		t.Error(err)
	}
	if out, err := real.Output(context.Background(), "echo", "x"); err != nil || out != "x\n" {
		t.Errorf("%q, %v", out, err)
	}
	if _, err := real.CRI.Status(context.Background()); err == nil {
		t.Error("a socket that does not exist answers")
	}
	t.Setenv("HTTPS_PROXY", "http://user:hunter2@proxy.example:3128")
	t.Setenv("NO_PROXY", "10.0.2.15")
	if p, err := real.Proxy("https://10.0.2.15:6443"); err != nil || p != "" {
		t.Errorf("no_proxy: %q, %v", p, err)
	}
	if p, err := real.Proxy("https://10.96.0.1:443"); err != nil || p == "" || strings.Contains(p, "hunter2") {
		t.Errorf("proxy: %q, %v", p, err)
	}
}
