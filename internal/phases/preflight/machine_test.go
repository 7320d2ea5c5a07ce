package preflight

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	criv1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/pki"
)

type fakeUnits struct {
	active  []string
	kubelet string
}

func (fakeUnits) Reload(context.Context) error { return errors.New("a check reloaded systemd") }
func (fakeUnits) Restart(context.Context, string) error {
	return errors.New("a check restarted a unit")
}
func (fakeUnits) Stop(context.Context, string) error { return errors.New("a check stopped a unit") }
func (u fakeUnits) Active(_ context.Context, unit string) (bool, error) {
	return slices.Contains(u.active, unit), nil
}
func (u fakeUnits) Enabled(context.Context, string) (string, error) { return u.kubelet, nil }

type fakeCRI struct {
	ready     bool
	configErr error
}

func (c fakeCRI) Status(context.Context) (*criv1.StatusResponse, error) {
	return &criv1.StatusResponse{Status: &criv1.RuntimeStatus{Conditions: []*criv1.RuntimeCondition{
		{Type: "RuntimeReady", Status: c.ready, Reason: "Starting"}, {Type: "NetworkReady"},
	}}}, nil
}
func (c fakeCRI) RuntimeConfig(context.Context) (*criv1.RuntimeConfigResponse, error) {
	return &criv1.RuntimeConfigResponse{}, c.configErr
}

// good is a machine that passes every check.
func good(t *testing.T) *Machine {
	t.Helper()
	p := host.Paths{Root: t.TempDir()}
	for name, text := range map[string]string{
		"/proc/swaps": "Filename Type Size Used Priority\n", "/proc/sys/net/ipv4/ip_forward": "1\n",
		"/proc/sys/net/ipv6/conf/default/forwarding": "1\n",
		"/sys/fs/cgroup/cgroup.controllers":          "cpuset cpu io memory hugetlb pids rdma\n",
		"/usr/lib/modules/6.12.0-cloud-amd64/config": kernelConfigText(),
		"/usr/lib/os-release":                        "ID=debian\n",
		"/usr/share/kiln/images/index.json":          layout("v1.37.2", "etcd:3.7.0-0", "coredns/coredns:v1.14.6", "pause:3.10.2"),
		"/sys/block/mmcblk0/device/life_time":        "0x01 0x02\n",
		"/sys/block/mmcblk0/device/pre_eol_info":     "0x01\n",
		"/sys/block/mmcblk1/device/type":             "SD\n",
		"/sys/block/vda/size":                        "1\n",
	} {
		write(t, p, name, text)
	}
	return &Machine{
		Config: nodeconfig.Config{
			Plan: bootplan.Plan{
				Role: bootplan.RoleInit,
				Cluster: bootplan.Cluster{
					KubernetesVersion: "v1.37.2", PodSubnets: []string{"10.244.0.0/16", "fd00:1::/56"}, ServiceSubnets: []string{"10.96.0.0/12"},
				},
				Timeouts: bootplan.Timeouts{ContainerdUp: bootplan.Duration(10 * time.Millisecond)},
			},
			NodeName: "kiln-1", AdvertiseAddress: netip.MustParseAddr("10.0.2.15"),
		},
		Paths: p, Units: fakeUnits{kubelet: "enabled"}, CPUs: 2,
		Memory:     func() (uint64, error) { return 2 << 30, nil },
		Kernel:     func() (string, error) { return "6.12.0-cloud-amd64", nil },
		Listen:     func(context.Context, string) error { return nil },
		LookPath:   func(name string) (string, error) { return "/usr/bin/" + name, nil },
		LookupHost: func(context.Context, string) error { return nil },
		Output:     func(context.Context, string, ...string) (string, error) { return "Kubernetes v1.37.2\n", nil },
		Proxy:      func(string) (string, error) { return "", nil },
		CRI:        fakeCRI{ready: true},
		Now:        time.Now,
		Space: func(string) (host.Space, error) {
			return host.Space{Bytes: 10 << 30, FreeBytes: 8 << 30, Inodes: 1000, FreeInodes: 900}, nil
		},
		Seeded:    func() (bool, error) { return true, nil },
		EtcdRetry: time.Millisecond,
	}
}

// kernelConfigText is the configuration of a kernel with all that is needed.
func kernelConfigText() string {
	var b strings.Builder
	b.WriteString("# Linux/x86 6.12 Kernel Configuration\nCONFIG_LOCALVERSION=\"\"\n# CONFIG_IP_NF_TARGET_REDIRECT is not set\n")
	for i, o := range kernelOptions {
		fmt.Fprintf(&b, "CONFIG_%s=%c\n", o[0], "ym"[i%2])
	}
	return b.String()
}

// layout is the index of a layout with the images of a Kubernetes version and others.
func layout(version string, others ...string) string {
	names := append([]string(nil), others...)
	for _, c := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"} {
		names = append(names, c+":"+version)
	}
	for i, n := range names {
		names[i] = `{"annotations":{"io.containerd.image.name":"registry.k8s.io/` + n + `"}}`
	}
	return `{"schemaVersion":2,"manifests":[` + strings.Join(names, ",") + "]}"
}

// as gives the machine another role, with what its configuration delivers.
func as(t *testing.T, m *Machine, role bootplan.Role) {
	t.Helper()
	p := &m.Config.Plan
	p.Role, p.Discovery = role, &bootplan.Discovery{Endpoint: "10.0.2.15:6443", CACertHashes: []string{"sha256:00"}}
	if role != bootplan.RoleJoinControlPlane {
		m.Config.AdvertiseAddress = netip.Addr{}
		return
	}
	p.Cluster.ControlPlaneEndpoint = "api.example.org"
	for _, ca := range []string{"ca", "front-proxy-ca", "etcd/ca"} {
		row, err := pki.CertificateFor(ca)
		if err != nil {
			t.Fatal(err)
		}
		made, err := pki.NewCA(row, pki.ECDSAP256, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		write(t, m.Paths, "/etc/kubernetes/pki/"+ca+".crt", string(made.CertPEM))
		write(t, m.Paths, "/etc/kubernetes/pki/"+ca+".key", "key")
	}
	write(t, m.Paths, "/etc/kubernetes/pki/sa.key", "key")
	write(t, m.Paths, "/etc/kubernetes/pki/sa.pub", "key")
}

func write(t *testing.T, p host.Paths, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(p.At(name)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.At(name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// run returns the names of the checks that failed and of those that warned.
func run(t *testing.T, m *Machine) (failed, warned []string) {
	t.Helper()
	var out bytes.Buffer
	err := Run(context.Background(), m, phase.NewPrinter(&out))
	var e *Error
	if errors.As(err, &e) {
		for _, f := range e.Failed {
			failed = append(failed, f.Check)
			if !strings.Contains(err.Error(), "[ERROR "+f.Check+"]: "+f.Err.Error()) {
				t.Errorf("the error does not show %s: %v", f.Check, err)
			}
		}
	} else if err != nil {
		t.Fatal(err)
	}
	for _, l := range strings.Split(out.String(), "\n") {
		if rest, ok := strings.CutPrefix(l, "warning: ["); ok {
			name, _, _ := strings.Cut(rest, "]")
			warned = append(warned, name)
		}
	}
	return failed, warned
}
