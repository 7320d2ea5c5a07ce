package preflight

import (
	"compress/gzip"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/internal/phase"
)

const (
	initRole = bootplan.RoleInit
	cpRole   = bootplan.RoleJoinControlPlane
	worker   = bootplan.RoleJoinWorker
)

// TestRoles: which checks are made of whom.
func TestRoles(t *testing.T) {
	for role, want := range map[bootplan.Role]struct{ has, hasNot string }{
		initRole: {"NumCPU Mem Port-6443 Port-10250 Port-2379 DirAvailable--var-lib-etcd HTTPProxyCIDR ImagePull Clock Swap",
			"FileAvailable--etc-kubernetes-kubelet.conf FileAvailable--etc-kubernetes-pki-ca.crt SharedCertificates ControlPlaneEndpoint ExternalEtcdVersion"},
		cpRole: {"NumCPU Mem Port-6443 Port-10257 Port-10259 Port-2380 FileAvailable--etc-kubernetes-kubelet.conf FileAvailable--etc-kubernetes-manifests-etcd.yaml SharedCertificates ControlPlaneEndpoint ImagePull",
			"FileAvailable--etc-kubernetes-pki-ca.crt ExternalEtcdVersion"},
		worker: {"FileAvailable--etc-kubernetes-kubelet.conf FileAvailable--etc-kubernetes-bootstrap-kubelet.conf FileAvailable--etc-kubernetes-pki-ca.crt CRI KubeletVersion Port-10250 HTTPProxy DiskSpace",
			"NumCPU Mem KubernetesVersion Firewalld Port-6443 Port-2379 DirAvailable--var-lib-etcd HTTPProxyCIDR ImagePull SharedCertificates FileAvailable--etc-kubernetes-manifests-etcd.yaml"},
	} {
		m := good(t)
		if role != initRole {
			as(t, m, role)
		}
		var names []string
		for _, c := range checks(m.Config) {
			if slices.Contains(names, c.name) {
				t.Errorf("%s: %s is made twice", role, c.name)
			}
			if !kubeadmapi.KnownCheck(c.name) {
				t.Errorf("%s cannot be named in ignorePreflightErrors", c.name)
			}
			names = append(names, c.name)
		}
		for _, n := range strings.Fields(want.has) {
			if !slices.Contains(names, n) {
				t.Errorf("%s: no check %s among %v", role, n, names)
			}
		}
		for _, n := range strings.Fields(want.hasNot) {
			if slices.Contains(names, n) {
				t.Errorf("%s: check %s", role, n)
			}
		}
	}
	if err := Run(context.Background(), &Machine{}, phase.NewPrinter(&strings.Builder{})); err == nil || !strings.Contains(err.Error(), "role") {
		t.Errorf("a plan without a role: %v", err)
	}
}

func external(m *Machine, endpoints ...string) {
	m.Config.Plan.Cluster.Kubeadm.Etcd.External = &kubeadmapi.ExternalEtcd{Endpoints: endpoints}
}

func TestJoinTable(t *testing.T) {
	remove := func(path string) func(*testing.T, *Machine) {
		return func(t *testing.T, m *Machine) {
			if err := os.Remove(m.Paths.At(path)); err != nil {
				t.Fatal(err)
			}
		}
	}
	put := func(path, text string) func(*testing.T, *Machine) {
		return func(t *testing.T, m *Machine) { write(t, m.Paths, path, text) }
	}
	plan := func(f func(*bootplan.Plan)) func(*testing.T, *Machine) {
		return func(_ *testing.T, m *Machine) { f(&m.Config.Plan) }
	}
	for _, c := range []struct {
		name   string
		role   bootplan.Role
		breaks func(t *testing.T, m *Machine)
		failed []string
		warned []string
	}{
		{"good control plane", cpRole, plan(func(*bootplan.Plan) {}), nil, nil},
		{"good worker", worker, plan(func(*bootplan.Plan) {}), nil, nil},
		{"a small worker", worker, func(_ *testing.T, m *Machine) {
			m.CPUs, m.Memory = 1, func() (uint64, error) { return 512 << 20, nil }
		}, nil, nil},
		{"joined already", worker, put("/etc/kubernetes/kubelet.conf", "x"), []string{"FileAvailable--etc-kubernetes-kubelet.conf"}, nil},
		{"half joined", cpRole, put("/etc/kubernetes/bootstrap-kubelet.conf", "x"), []string{"FileAvailable--etc-kubernetes-bootstrap-kubelet.conf"}, nil},
		{"a CA on a worker", worker, put("/etc/kubernetes/pki/ca.crt", "x"), []string{"FileAvailable--etc-kubernetes-pki-ca.crt", "Clock"}, nil},
		{"no shared endpoint", cpRole, plan(func(p *bootplan.Plan) { p.Cluster.ControlPlaneEndpoint = "" }), []string{"ControlPlaneEndpoint"}, nil},
		{"no CA of etcd", cpRole, remove("/etc/kubernetes/pki/etcd/ca.crt"), []string{"SharedCertificates"}, nil},
		{"no service-account key", cpRole, remove("/etc/kubernetes/pki/sa.key"), []string{"SharedCertificates"}, nil},
		{"no key of a CA", cpRole, remove("/etc/kubernetes/pki/ca.key"), nil, []string{"SharedCertificates"}},
		{"a CA that is none", cpRole, put("/etc/kubernetes/pki/front-proxy-ca.crt", "x"), []string{"SharedCertificates"}, nil},
		{"no CA of etcd, an external one", cpRole, func(t *testing.T, m *Machine) {
			external(m)
			remove("/etc/kubernetes/pki/etcd/ca.crt")(t, m)
		}, nil, nil},
		{"external etcd without its certificates", cpRole, func(_ *testing.T, m *Machine) {
			external(m)
			m.Config.Plan.Cluster.Kubeadm.Etcd.External.CAFile = "/etc/etcd/ca.crt"
		}, []string{"ExternalEtcdClientCertificates"}, nil},
		{"etcd's port of a joining member", cpRole, func(_ *testing.T, m *Machine) { m.Listen = inUse("10.0.2.15:2379") }, []string{"Port-2379"}, nil},
		{"another port", cpRole, func(_ *testing.T, m *Machine) {
			m.Config.Plan.Node.APIPort = 443
			m.Listen = inUse(":443", ":6443")
		}, []string{"Port-443"}, nil},
		{"bind-address", cpRole, func(_ *testing.T, m *Machine) {
			m.Config.Plan.Cluster.Kubeadm.Scheduler.ExtraArgs = []kubeadmapi.Arg{{Name: "bind-address", Value: "::1"}}
			m.Listen = inUse(":10259")
		}, nil, nil},
		{"the cluster behind a proxy", worker, func(_ *testing.T, m *Machine) {
			m.Proxy = func(url string) (string, error) {
				if url != "https://10.0.2.15:6443" {
					t.Errorf("a worker does not speak to %s", url)
				}
				return "http://proxy", nil
			}
		}, nil, []string{"HTTPProxy"}},
		{"old kubelet", worker, func(_ *testing.T, m *Machine) {
			m.Output = func(context.Context, string, ...string) (string, error) { return "Kubernetes v1.33.0\n", nil }
		}, []string{"KubeletVersion"}, nil},
		{"kubelet newer than the plan", worker, func(_ *testing.T, m *Machine) {
			m.Output = func(context.Context, string, ...string) (string, error) { return "Kubernetes v1.37.9\n", nil }
		}, nil, nil},
		{"an old cluster", worker, plan(func(p *bootplan.Plan) { p.Cluster.KubernetesVersion = "v1.35.1" }), []string{"ControlPlaneVersion"}, nil},
		{"images of another version", cpRole, put("/usr/share/kiln/images/index.json", layout("v1.36.4", "etcd:3.7.0-0", "coredns/coredns:v1.14.6", "pause:3.10.2")), []string{"ImagePull"}, nil},
		{"no IPv6 forwarding for an IPv6 endpoint", worker, func(t *testing.T, m *Machine) {
			p := &m.Config.Plan
			p.Cluster.PodSubnets = p.Cluster.PodSubnets[:1]
			p.Discovery.Endpoint = "[fd00::101]:6443"
			write(t, m.Paths, "/proc/sys/net/ipv6/conf/default/forwarding", "0\n")
		}, []string{"FileContent--proc-sys-net-ipv6-conf-default-forwarding"}, nil},
		{"no IPv4 forwarding in an IPv6 cluster", cpRole, func(t *testing.T, m *Machine) {
			p := &m.Config.Plan
			p.Cluster.PodSubnets, p.Cluster.ServiceSubnets = []string{"fd00:1::/56"}, []string{"fd00:2::/112"}
			p.Discovery.Endpoint, m.Config.AdvertiseAddress = "[fd00::101]:6443", netip.MustParseAddr("fd00::102")
			write(t, m.Paths, "/proc/sys/net/ipv4/ip_forward", "0\n")
		}, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := good(t)
			as(t, m, c.role)
			c.breaks(t, m)
			failed, warned := run(t, m)
			if !slices.Equal(failed, c.failed) || !slices.Equal(warned, c.warned) {
				t.Errorf("failed %v, warned %v; want %v and %v", failed, warned, c.failed, c.warned)
			}
		})
	}
}

func TestDeviceTable(t *testing.T) {
	put := func(path, text string) func(*testing.T, *Machine) {
		return func(t *testing.T, m *Machine) { write(t, m.Paths, path, text) }
	}
	space := func(s host.Space) func(*testing.T, *Machine) {
		return func(_ *testing.T, m *Machine) { m.Space = func(string) (host.Space, error) { return s, nil } }
	}
	at := func(d time.Duration) func(*testing.T, *Machine) {
		return func(t *testing.T, m *Machine) {
			as(t, m, cpRole)
			m.Now = func() time.Time { return time.Now().Add(d) }
		}
	}
	const life, eol = "/sys/block/mmcblk0/device/life_time", "/sys/block/mmcblk0/device/pre_eol_info"
	for _, c := range []struct {
		name   string
		breaks func(t *testing.T, m *Machine)
		failed []string
		warned []string
	}{
		{"clock before the image was built", func(_ *testing.T, m *Machine) { m.Now = func() time.Time { return time.Unix(0, 0) } }, []string{"Clock"}, nil},
		{"clock before the cluster was made", func(_ *testing.T, m *Machine) { m.Config.Plan.Cluster.NotBefore = time.Now().Add(time.Hour) }, []string{"Clock"}, nil},
		{"clock before the CA", func(t *testing.T, m *Machine) {
			at(-25*time.Hour)(t, m)
			long := time.Now().Add(-48 * time.Hour)
			if err := os.Chtimes(m.Paths.At("/usr/lib/os-release"), long, long); err != nil {
				t.Fatal(err)
			}
		}, []string{"Clock"}, nil},
		{"clock after the CA", at(20 * 365 * 24 * time.Hour), nil, []string{"Clock"}},
		{"small disk", space(host.Space{Bytes: 600 << 20, FreeBytes: 400 << 20}), []string{"DiskSpace"}, nil},
		{"nearly full disk", space(host.Space{Bytes: 100 << 30, FreeBytes: 9 << 30}), nil, []string{"DiskSpace"}},
		{"few inodes", space(host.Space{Bytes: 10 << 30, FreeBytes: 9 << 30, Inodes: 100, FreeInodes: 4}), nil, []string{"DiskSpace"}},
		{"no /var/lib", func(_ *testing.T, m *Machine) {
			m.Space = func(string) (host.Space, error) { return host.Space{}, errors.New("no such file") }
		}, []string{"DiskSpace"}, nil},
		{"worn card", put(life, "0x01 0x0a"), nil, []string{"StorageHealth"}},
		{"card past its life", put(life, "0x0B 0x01"), nil, []string{"StorageHealth"}},
		{"card in middle age", put(life, "0x05 0x09"), nil, nil},
		{"few spare blocks", put(eol, "0x02"), nil, []string{"StorageHealth"}},
		{"no spare blocks", put(eol, "0x03"), nil, []string{"StorageHealth"}},
		{"not defined", put(eol, "0x00"), nil, nil},
		{"no entropy", func(t *testing.T, m *Machine) {
			m.Seeded = func() (bool, error) { return false, nil }
			write(t, m.Paths, "/proc/sys/kernel/random/entropy_avail", "17\n")
		}, nil, []string{"Entropy"}},
		{"kernel without REDIRECT", func(t *testing.T, m *Machine) {
			text := strings.Replace(kernelConfigText(), "CONFIG_NETFILTER_XT_TARGET_REDIRECT=", "# CONFIG_NETFILTER_XT_TARGET_REDIRECT=", 1)
			write(t, m.Paths, "/usr/lib/modules/6.12.0-cloud-amd64/config", text)
		}, []string{"SystemVerification"}, nil},
		{"its older name", func(t *testing.T, m *Machine) {
			text := strings.Replace(kernelConfigText(), "CONFIG_NETFILTER_XT_TARGET_REDIRECT=", "CONFIG_IP_NF_TARGET_REDIRECT=", 1)
			write(t, m.Paths, "/usr/lib/modules/6.12.0-cloud-amd64/config", text)
		}, nil, nil},
		{"no kernel configuration", func(t *testing.T, m *Machine) {
			if err := os.Remove(m.Paths.At("/usr/lib/modules/6.12.0-cloud-amd64/config")); err != nil {
				t.Fatal(err)
			}
		}, []string{"SystemVerification"}, nil},
		{"kernel with its own configuration", func(t *testing.T, m *Machine) {
			var b strings.Builder
			z := gzip.NewWriter(&b)
			fmt.Fprint(z, kernelConfigText())
			if err := z.Close(); err != nil {
				t.Fatal(err)
			}
			write(t, m.Paths, "/proc/config.gz", b.String())
		}, nil, nil},
		{"no image of CoreDNS", put("/usr/share/kiln/images/index.json", layout("v1.37.2", "etcd:3.7.0-0", "pause:3.10.2")), []string{"ImagePull"}, nil},
		{"CoreDNS is not wanted", func(t *testing.T, m *Machine) {
			write(t, m.Paths, "/usr/share/kiln/images/index.json", layout("v1.37.2", "etcd:3.7.0-0", "pause:3.10.2"))
			m.Config.Plan.Cluster.Kubeadm.DNS.Disabled = true
		}, nil, nil},
		{"no images", put("/usr/share/kiln/images/index.json", "{"), []string{"ImagePull"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := good(t)
			c.breaks(t, m)
			failed, warned := run(t, m)
			if m.Config.Plan.Role == cpRole { // and not what it would report of the certificates
				failed = slices.DeleteFunc(failed, func(s string) bool { return s == "SharedCertificates" })
			}
			if !slices.Equal(failed, c.failed) || !slices.Equal(warned, c.warned) {
				t.Errorf("failed %v, warned %v; want %v and %v", failed, warned, c.failed, c.warned)
			}
		})
	}
}

func TestIgnored(t *testing.T) {
	for _, tc := range []struct {
		ignore         []string
		failed, warned []string
	}{
		{[]string{"numcpu"}, []string{"Mem"}, []string{"NumCPU"}},
		{[]string{"NumCPU", "Mem", "Swap"}, nil, []string{"NumCPU", "Mem"}},
		{[]string{"ALL"}, nil, []string{"NumCPU", "Mem"}},
	} {
		m := good(t)
		m.CPUs, m.Memory = 1, func() (uint64, error) { return 1 << 30, nil }
		m.Config.Plan.Node.IgnorePreflightErrors = tc.ignore
		failed, warned := run(t, m)
		if !slices.Equal(failed, tc.failed) || !slices.Equal(warned, tc.warned) {
			t.Errorf("%v: failed %v, warned %v", tc.ignore, failed, warned)
		}
	}
	m := good(t)
	m.UID, m.Config.Plan.Node.IgnorePreflightErrors = 1000, []string{"IsPrivilegedUser"}
	if failed, warned := run(t, m); failed != nil || !slices.Equal(warned, []string{"IsPrivilegedUser"}) {
		t.Errorf("not root, and ignored: %v, %v", failed, warned)
	}
}

func TestExternalEtcd(t *testing.T) {
	answer := `{"etcdserver":"3.6.1","etcdcluster":"3.6.0"}`
	fails := 0
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fails > 0 {
			fails--
			http.Error(w, "starting", http.StatusServiceUnavailable)
			return
		}
		if r.URL.Path != "/version" {
			t.Errorf("asked for %s", r.URL)
		}
		_, _ = w.Write([]byte(answer))
	}))
	defer server.Close()
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	for _, tc := range []struct {
		name, answer string
		fails        int
		ca           bool
		failed       []string
	}{
		{"new enough", `{"etcdserver":"3.5.24"}`, 0, true, nil},
		{"answers late", answer, 2, true, nil},
		{"too old", `{"etcdserver":"3.5.23"}`, 0, true, []string{"ExternalEtcdVersion"}},
		{"no version", `{}`, 0, true, []string{"ExternalEtcdVersion"}},
		{"no JSON", `etcd`, 0, true, []string{"ExternalEtcdVersion"}},
		{"never answers", answer, 1 << 20, true, []string{"ExternalEtcdVersion"}},
		{"not trusted", answer, 0, false, []string{"ExternalEtcdVersion"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := good(t)
			m.EtcdRetry = 20 * time.Millisecond
			external(m, server.URL+"/")
			if tc.ca {
				m.Config.Plan.Cluster.Kubeadm.Etcd.External.CAFile = "/etc/etcd/ca.crt"
				write(t, m.Paths, "/etc/etcd/ca.crt", ca)
			}
			answer, fails = tc.answer, tc.fails
			if failed, warned := run(t, m); !slices.Equal(failed, tc.failed) || warned != nil {
				t.Errorf("failed %v, warned %v", failed, warned)
			}
		})
	}
	m := good(t)
	external(m, server.URL)
	m.Config.Plan.Cluster.Kubeadm.Etcd.External.CAFile = "/etc/etcd/none"
	if failed, _ := run(t, m); !slices.Equal(failed, []string{"ExternalEtcdVersion", "ExternalEtcdClientCertificates"}) {
		t.Errorf("without files: %v", failed)
	}
}

// TestDevices runs the real probes.
func TestDevices(t *testing.T) {
	m := ThisMachine(good(t).Config, host.Paths{Root: "/"}, nil)
	if s, err := m.Space("/"); err != nil || s.Bytes == 0 || s.FreeBytes > s.Bytes || s.FreeInodes > s.Inodes {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := m.Space("/nowhere"); err == nil {
		t.Error("a folder that does not exist has room")
	}
	if ok, err := m.Seeded(); !ok || err != nil {
		t.Errorf("seeded %t, %v", ok, err)
	}
	if err := storageHealth(context.Background(), m); err != nil {
		t.Logf("this machine: %v", err)
	}
}

func FuzzWear(f *testing.F) {
	f.Add("0x01 0x0a", "0x02")
	f.Add("", "")
	f.Fuzz(func(_ *testing.T, life, eol string) { wear(life, eol) })
}

func FuzzKernelConfig(f *testing.F) {
	f.Add([]byte(kernelConfigText()), false)
	f.Add([]byte{0x1f, 0x8b}, true)
	f.Fuzz(func(_ *testing.T, data []byte, compressed bool) {
		_, _ = missingOptions(strings.NewReader(string(data)), compressed)
	})
}
