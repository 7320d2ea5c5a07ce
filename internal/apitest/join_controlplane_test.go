//go:build integration

package apitest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/etcdcluster"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/internal/phases/addonflannel"
	"github.com/kiln-os/kiln/internal/phases/certs"
	"github.com/kiln-os/kiln/internal/phases/checketcd"
	"github.com/kiln-os/kiln/internal/phases/clusterconfig"
	"github.com/kiln-os/kiln/internal/phases/controlplane"
	"github.com/kiln-os/kiln/internal/phases/discovery"
	"github.com/kiln-os/kiln/internal/phases/etcdjoin"
	"github.com/kiln-os/kiln/internal/phases/kubeconfig"
	"github.com/kiln-os/kiln/internal/phases/kubeletbootstrap"
	"github.com/kiln-os/kiln/internal/phases/kubeletstart"
	"github.com/kiln-os/kiln/internal/phases/kubeletwait"
	"github.com/kiln-os/kiln/internal/phases/markcontrolplane"
	"github.com/kiln-os/kiln/internal/phases/ready"
	"github.com/kiln-os/kiln/internal/phases/waitcontrolplane"
	"github.com/kiln-os/kiln/internal/staticpod"
)

// balancer is a TCP load balancer in front of API servers: it takes the first that answers.
type balancer struct {
	l        net.Listener
	mu       sync.Mutex
	backends []string
}

func newBalancer(t *testing.T) *balancer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &balancer{l: l}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go b.serve(in)
		}
	}()
	return b
}

func (b *balancer) add(addr string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.backends = append(b.backends, addr)
}

func (b *balancer) serve(in net.Conn) {
	defer in.Close()
	b.mu.Lock()
	backends := slices.Clone(b.backends)
	b.mu.Unlock()
	for _, addr := range backends {
		out, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			continue
		}
		defer out.Close()
		go func() { _, _ = io.Copy(out, in); _ = out.Close() }()
		_, _ = io.Copy(in, out)
		return
	}
}

// controlPlane is a machine that joins as a control plane, with its kubelet.
type controlPlane struct {
	*Cluster
	kubelet *kubelet
}

// prepare carries out the phases of a joining control plane up to the start of its kubelet.
func (n controlPlane) prepare(t *testing.T) {
	t.Helper()
	ctx, cfg, paths, r := t.Context(), n.Config, n.Paths, n.Report
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("phase %s of %s: %v", what, cfg.NodeName, err)
		}
	}
	must("discovery", discovery.Run(ctx, cfg, paths, r))
	must("cluster-config", clusterconfig.Run(ctx, cfg, paths, apiOf(t, n.Cluster, paths.Join("discovery.conf"), r), r))
	cfg = n.joined(t)
	must("certs", certs.Run(ctx, cfg, paths, r))
	must("kubeconfig", kubeconfig.Run(ctx, cfg, paths, r))
	must("check-etcd", checketcd.Run(ctx, cfg, paths, n.admin(t), r))
	must("kubelet-bootstrap", kubeletbootstrap.Run(ctx, cfg, paths, n.kubelet, apiOf(t, n.Cluster, paths.Join("discovery.conf"), r), r))
	must("pod-network", addonflannel.Prepare(ctx, cfg, paths, r))
}

func (n controlPlane) admin(t *testing.T) *kubeapi.API {
	t.Helper()
	return apiOf(t, n.Cluster, n.Paths.Kubeconfig(kubeapi.AdminConf), n.Report)
}

// etcdJoin carries out the phase until it reports stop, "" for its end.
func (n controlPlane) etcdJoin(t *testing.T, stop string) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	rec := &recorder{stop: stop, cancel: cancel}
	err := etcdjoin.Run(ctx, n.joined(t), n.Paths, n.admin(t), rec.report(t))
	if stop != "" && !strings.Contains(rec.String(), stop) {
		t.Errorf("the phase never said %q", stop)
	}
	if stop == "" && err != nil {
		t.Fatal(err)
	}
	return err
}

// etcdClient is the cluster's etcd as an administrator sees it.
func etcdClient(t *testing.T, c *Cluster) *clientv3.Client {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(c.Paths.PKI("etcd/healthcheck-client.crt"), c.Paths.PKI("etcd/healthcheck-client.key"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(file(t, c.Paths.PKI("etcd/ca.crt"))))
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{staticpod.EtcdClientURL(c.Config)}, TLS: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots}, Logger: zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// membersOf describes the members: "cp1", "cp2 learner", "- learner" for one that
// never started.
func membersOf(t *testing.T, client *clientv3.Client) []string {
	t.Helper()
	resp, err := client.MemberList(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range resp.Members {
		s := m.Name
		if s == "" {
			s = "-"
		}
		if m.IsLearner {
			s += " learner"
		}
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

// TestJoinControlPlane makes three control planes of one, behind a load balancer, with
// power cuts at every point of joining etcd, and then takes the first one away.
func TestJoinControlPlane(t *testing.T) {
	health := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(health.Close)
	lb := newBalancer(t)
	c := New(t, func(p *bootplan.Plan) {
		p.Cluster.ControlPlaneEndpoint = lb.l.Addr().String()
		p.Cluster.Kubelet = fmt.Appendf(nil, `{"healthzPort":%d}`, health.Listener.Addr().(*net.TCPAddr).Port)
	})
	lb.add(c.Config.LocalAPIEndpoint())
	ctx := t.Context()
	k1 := newKubelet(t, c)
	if err := k1.Restart(ctx, "kubelet.service"); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"wait-control-plane", "upload-config", "mark-control-plane", "bootstrap-token", "addon-kube-proxy", "addon-flannel"} {
		run(t, c, p)
	}
	member := func(name string) controlPlane {
		n := joining(t, c, name, bootplan.RoleJoinControlPlane)
		n.Config.Plan.Discovery.Endpoint = lb.l.Addr().String()
		return controlPlane{n, newKubelet(t, n)}
	}
	cp2, cp3 := member("cp2"), member("cp3")
	older := within(cp2.Config, moment)
	older.Plan.Cluster.KubernetesVersion = "v1.37.1"
	if err := discovery.Run(ctx, cp2.Config, cp2.Paths, cp2.Report); err != nil {
		t.Fatal(err)
	}
	wants(t, c, clusterconfig.Run(ctx, older, cp2.Paths, apiOf(t, cp2.Cluster, cp2.Paths.Join("discovery.conf"), cp2.Report), cp2.Report),
		"the cluster's control plane is Kubernetes v1.37.2, this image holds v1.37.1")

	cp2.prepare(t)
	gone(t, cp2.Paths.Kubeconfig("super-admin.conf"))
	if conf := file(t, cp2.Paths.Kubeconfig("bootstrap-kubelet.conf")); !strings.Contains(conf, "https://"+cp2.Config.LocalAPIEndpoint()) {
		t.Errorf("the kubelet is not sent to its own API server:\n%s", conf)
	}
	etcd := etcdClient(t, c)
	t.Run("etcd", func(t *testing.T) { checkEtcdJoin(t, cp2, etcd) })
	t.Run("control plane", func(t *testing.T) { checkControlPlane(t, c, cp2) })
	lb.add(cp2.Config.LocalAPIEndpoint())

	// etcd takes in one member at a time.
	var other *clientv3.MemberAddResponse
	eventually(t, time.Minute, "etcd to add a learner", func() (ok bool, err error) {
		other, err = etcd.MemberAddAsLearner(ctx, []string{"https://127.1.2.3:2380"})
		return err == nil, err
	})
	cp3.prepare(t)
	err := etcdjoin.Run(ctx, within(cp3.joined(t), 3*moment), cp3.Paths, cp3.admin(t), cp3.Report)
	wants(t, c, err, "etcd takes in one member at a time, and another is joining")
	if _, err := etcd.MemberRemove(ctx, other.Member.ID); err != nil {
		t.Fatal(err)
	}
	if err := kubeletstart.Run(ctx, cp3.joined(t), cp3.Paths, cp3.kubelet, cp3.Report); err != nil {
		t.Fatal(err)
	}
	cp3.etcdJoin(t, "")
	if got := membersOf(t, etcd); !slices.Equal(got, []string{"cp1", "cp2", "cp3"}) {
		t.Errorf("members %v", got)
	}
	if err := controlplane.Run(ctx, cp3.joined(t), cp3.Paths, cp3.Report); err != nil {
		t.Fatal(err)
	}
	if err := kubeletwait.Run(ctx, cp3.joined(t), cp3.Paths, cp3.kubelet, apiOf(t, cp3.Cluster, cp3.Paths.Join("discovery.conf"), cp3.Report), cp3.Report); err != nil {
		t.Fatal(err)
	}

	// Without the first control plane the API answers, and takes writes.
	k1.stop()
	shared := cp2.admin(t).Client
	note := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "written-without-cp1"}}
	eventually(t, 2*time.Minute, "a write through the load balancer", func() (bool, error) {
		_, err := shared.CoreV1().ConfigMaps("default").Create(ctx, note, metav1.CreateOptions{})
		return err == nil, err
	})
	if err := k1.Restart(ctx, "kubelet.service"); err != nil {
		t.Fatal(err)
	}
	first := clientOf(t, c, kubeapi.AdminConf)
	eventually(t, 2*time.Minute, "the first control plane to come back with what was written", func() (bool, error) {
		_, err := first.CoreV1().ConfigMaps("default").Get(ctx, note.Name, metav1.GetOptions{})
		return err == nil, err
	})
}

// checkEtcdJoin cuts the power at each step of joining etcd.
func checkEtcdJoin(t *testing.T, n controlPlane, etcd *clientv3.Client) {
	ctx, manifest := t.Context(), filepath.Join(n.Paths.Manifests(), "etcd.yaml")
	is := func(when string, want ...string) {
		t.Helper()
		if got := membersOf(t, etcd); !slices.Equal(got, want) {
			t.Errorf("%s: members %v, want %v", when, got, want)
		}
	}
	// Before the member is added: no trace.
	if n.etcdJoin(t, "adding https://") == nil {
		t.Error("the cut did not end the phase")
	}
	is("before it was added", "cp1")
	gone(t, manifest)
	// Added, but not started: the manifest may be there or not.
	if n.etcdJoin(t, "wrote the manifest of etcd") == nil {
		t.Error("the cut did not end the phase")
	}
	is("before it was started", "- learner", "cp1")
	if err := os.Remove(manifest); err != nil {
		t.Fatal(err)
	}
	if err := kubeletstart.Run(ctx, n.joined(t), n.Paths, n.kubelet, n.Report); err != nil {
		t.Fatal(err)
	}
	// Started, without a vote.
	if n.etcdJoin(t, "this node's etcd has started") == nil {
		t.Error("the cut did not end the phase")
	}
	is("before it was promoted", "cp1", "cp2 learner")
	initial, err := staticpod.InitialCluster(n.Paths)
	if want := "cp2=" + staticpod.EtcdPeerURL(n.Config); err != nil || !strings.HasPrefix(initial, "cp1=https://") || !strings.HasSuffix(initial, ","+want) {
		t.Errorf("initial cluster %q, %v", initial, err)
	}
	if st, err := os.Stat(n.Paths.EtcdData()); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("etcd's data folder: %v, %v", st, err)
	}
	// With its vote, not yet seen to be healthy.
	_ = n.etcdJoin(t, "this node's etcd has a vote") // it may be over before it is cut
	is("promoted", "cp1", "cp2")
	before := file(t, manifest)
	n.etcdJoin(t, "")
	n.etcdJoin(t, "")
	is("again", "cp1", "cp2")
	if file(t, manifest) != before {
		t.Error("a member that runs got another manifest")
	}
	// Somebody removes the member: its data is of no use, and it joins anew.
	resp, err := etcd.MemberList(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range resp.Members {
		if m.Name == "cp2" {
			// etcd refuses for some seconds after a member was promoted.
			eventually(t, time.Minute, "etcd to remove cp2", func() (bool, error) {
				_, err := etcd.MemberRemove(ctx, m.ID)
				return err == nil, err
			})
		}
	}
	write(t, filepath.Join(n.Paths.EtcdData(), "stale"), nil)
	n.etcdJoin(t, "")
	is("removed and joined again", "cp1", "cp2")
	gone(t, filepath.Join(n.Paths.EtcdData(), "stale"))
	client, err := etcdcluster.Dial(n.Paths, []string{staticpod.EtcdClientURL(n.Config)})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.CheckQuorum(ctx); err != nil {
		t.Error(err)
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}
}

// checkControlPlane carries out the phases after etcd until the node is Ready.
func checkControlPlane(t *testing.T, c *Cluster, n controlPlane) {
	ctx, cfg, paths, r := t.Context(), n.joined(t), n.Paths, n.Report
	if err := controlplane.Run(ctx, cfg, paths, r); err != nil {
		t.Fatal(err)
	}
	if err := kubeletwait.Run(ctx, cfg, paths, n.kubelet, apiOf(t, n.Cluster, paths.Join("discovery.conf"), r), r); err != nil {
		t.Fatal(err)
	}
	if conf := file(t, paths.Kubeconfig("kubelet.conf")); !strings.Contains(conf, "https://"+n.Config.LocalAPIEndpoint()) {
		t.Errorf("the kubelet is not with its own API server:\n%s", conf)
	}
	local, err := kubeapi.Load(cfg, paths, kubeapi.AdminConf, r)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []struct {
		name string
		run  func(context.Context, nodeconfig.Config, host.Paths, *kubeapi.API, phase.Report) error
	}{{"wait-control-plane", waitcontrolplane.Run}, {"mark-control-plane", markcontrolplane.Run}, {"ready", ready.Run}} {
		if err := p.run(ctx, within(cfg, 2*time.Minute), paths, local, r); err != nil {
			t.Fatalf("phase %s: %v", p.name, err)
		}
	}
	node, err := local.Client.CoreV1().Nodes().Get(ctx, "cp2", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := node.Labels["node-role.kubernetes.io/control-plane"]; !ok || len(node.Spec.Taints) == 0 {
		t.Errorf("cp2: labels %v, taints %v", node.Labels, node.Spec.Taints)
	}
	// What the first control plane runs with, this one does too: the cluster says so.
	for _, name := range []string{staticpod.ControllerManager, staticpod.Scheduler} {
		want := Manifests(t, filepath.Join(c.Paths.Manifests(), name+".yaml"))["Pod "+name].(*corev1.Pod).Spec.Containers[0].Command
		got := Manifests(t, filepath.Join(paths.Manifests(), name+".yaml"))["Pod "+name].(*corev1.Pod).Spec.Containers[0].Command
		if len(got) != len(want) || !slices.Contains(got, "--leader-elect-lease-duration=60s") {
			t.Errorf("%s: %v\nthe first: %v", name, got, want)
		}
	}
}
