//go:build integration

package apitest

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/internal/phases/certs"
	"github.com/kiln-os/kiln/internal/reset"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/internal/staticpod"
	"github.com/kiln-os/kiln/pki"
)

// bare is a machine without pods, mounts and interfaces of Kubernetes: what the
// cluster and the files have of a node is what these tests are about.
type bare struct{ host.Units }

func (bare) Active(context.Context, string) (bool, error)              { return false, nil }
func (bare) Pods(context.Context) ([]reset.Pod, error)                 { return nil, nil }
func (bare) RemovePod(context.Context, string) error                   { return nil }
func (bare) Mounts() ([]string, error)                                 { return nil, nil }
func (bare) Unmount(string) error                                      { return nil }
func (bare) Network(context.Context, []string) ([]reset.Change, error) { return nil, nil }
func (bare) Stamp() ([]reset.File, error)                              { return nil, fs.ErrNotExist }

// addNode registers a node with a pod that can move.
func addNode(t *testing.T, admin kubernetes.Interface, name string) {
	t.Helper()
	ctx := t.Context()
	if _, err := admin.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the service account of pods", func() (bool, error) {
		_, err := admin.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err == nil, err
	})
	now := int64(0)
	if _, err := admin.CoreV1().Pods("default").Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name + "-web"},
		Spec: corev1.PodSpec{
			NodeName: name, TerminationGracePeriodSeconds: &now,
			Containers: []corev1.Container{{Name: "web", Image: "example.org/web"}},
		},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestResetControlPlane resets the second control plane of a cluster: it is drained,
// its Node is deleted, and etcd goes on without it.
func TestResetControlPlane(t *testing.T) {
	c := serving(t)
	admin := clientOf(t, c, kubeapi.AdminConf)
	addNode(t, admin, "cp2")
	second := secondEtcd(t, c)
	for _, conf := range []string{"admin.conf", "controller-manager.conf"} {
		data, err := os.ReadFile(c.Paths.Kubeconfig(conf))
		if err != nil {
			t.Fatal(err)
		}
		write(t, second.Paths.Kubeconfig(conf), data)
	}
	n := reset.Node{
		Paths: second.Paths, Machine: bare{}, Plan: &second.Config.Plan, Name: "cp2", Report: c.Report,
		Options: reset.Options{Drain: true, DrainTimeout: time.Minute},
	}
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.CoreV1().Nodes().Get(t.Context(), "cp2", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the Node: %v", err)
	}
	if _, err := admin.CoreV1().Pods("default").Get(t.Context(), "cp2-web", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the pod: %v", err)
	}
	if m := members(t, c); len(m) != 1 || m[0] != "cp1" {
		t.Errorf("etcd's members: %v", m)
	}
	for _, name := range []string{"/var/lib/etcd/member", "/etc/kubernetes/manifests/etcd.yaml", "/etc/kubernetes/admin.conf", "/etc/kubernetes/pki/etcd/server.crt"} {
		if _, err := os.Stat(second.Paths.At(name)); !os.IsNotExist(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Writes go on.
	if _, err := admin.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "after"}}, metav1.CreateOptions{}); err != nil {
		t.Error(err)
	}
	// The last one stays a member: with it the cluster would end before it is reset.
	said := &strings.Builder{}
	last := reset.Node{Paths: c.Paths, Machine: bare{}, Plan: &c.Config.Plan, Name: "cp1", Report: phase.NewPrinter(said)}
	if err := last.Run(t.Context()); err != nil || !strings.Contains(said.String(), "it is the last one") {
		t.Errorf("%v\n%s", err, said)
	}
}

// secondEtcd starts another etcd member with the cluster's keys and returns its node.
func secondEtcd(t *testing.T, c *Cluster) *Cluster {
	t.Helper()
	second := &Cluster{Paths: host.Paths{Root: t.TempDir()}, Report: c.Report, etcd: c.etcd, kubernetes: c.kubernetes, secrets: c.secrets, Config: Config(randomLoopback(t))}
	second.Config.NodeName, second.Config.Hostname, second.Config.Plan.Node.Name = "cp2", "cp2", "cp2"
	second.Config.Plan.Role = bootplan.RoleJoinControlPlane
	second.installAuthority(t)
	if err := certs.Run(t.Context(), second.Config, second.Paths, c.Report); err != nil {
		t.Fatal(err)
	}
	second.writeManifests(t)
	peer := "https://" + second.Config.AdvertiseAddress.String() + ":2380"
	client := etcdClient(t, c)
	if _, err := client.MemberAdd(t.Context(), []string{peer}); err != nil {
		t.Fatal(err)
	}
	pod := Manifests(t, filepath.Join(second.Paths.Manifests(), "etcd.yaml"))["Pod etcd"].(*corev1.Pod)
	command := pod.Spec.Containers[0].Command
	for i, a := range command {
		if strings.HasPrefix(a, "--initial-cluster=") {
			command[i] = a + ",cp1=https://" + c.Config.AdvertiseAddress.String() + ":2380"
		}
	}
	pod.Spec.Containers[0].Command = append(command, "--initial-cluster-state=existing")
	if _, err := staticpod.Write(second.Paths, *pod); err != nil {
		t.Fatal(err)
	}
	second.Start(t, staticpod.Etcd)
	eventually(t, time.Minute, "the second member", func() (bool, error) { return len(members(t, c)) == 2, nil })
	return second
}

// members are the names of etcd's members that have started.
func members(t *testing.T, c *Cluster) []string {
	t.Helper()
	var out []string
	eventually(t, time.Minute, "etcd's members", func() (bool, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		list, err := etcdClient(t, c).MemberList(ctx)
		if err != nil {
			return false, err
		}
		out = nil
		for _, m := range list.Members {
			if m.Name != "" {
				out = append(out, m.Name)
			}
		}
		return true, nil
	})
	return out
}

// TestResetWorker resets a node that has a kubelet's rights alone: it can drain
// itself, and says who can delete its Node.
func TestResetWorker(t *testing.T) {
	c := serving(t)
	admin := clientOf(t, c, kubeapi.AdminConf)
	addNode(t, admin, "worker1")
	cert, err := os.ReadFile(c.Paths.PKI("ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(c.Paths.PKI("ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := pki.LoadCA(cert, secret.New(key))
	if err != nil {
		t.Fatal(err)
	}
	kubelet, err := ca.IssueUser(pki.User{Name: "system:node:worker1", Organizations: []string{"system:nodes"}}, "kiln", "https://"+c.Config.LocalAPIEndpoint(), pki.ECDSAP256, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	paths := host.Paths{Root: t.TempDir()}
	write(t, paths.Kubeconfig("kubelet.conf"), kubelet.Reveal())
	plan := c.Config.Plan
	plan.Role = bootplan.RoleJoinWorker
	said := &strings.Builder{}
	n := reset.Node{Paths: paths, Machine: bare{}, Plan: &plan, Name: "worker1", Report: phase.NewPrinter(said), Options: reset.Options{Drain: true, DrainTimeout: time.Minute}}
	if err := n.DryRun(t.Context()); err != nil || !strings.Contains(said.String(), "[dryrun] drain: would evict the pod default/worker1-web") {
		t.Errorf("%v\n%s", err, said)
	}
	if err := n.Run(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	t.Logf("%s", said)
	if _, err := admin.CoreV1().Pods("default").Get(t.Context(), "worker1-web", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the pod: %v", err)
	}
	node, err := admin.CoreV1().Nodes().Get(t.Context(), "worker1", metav1.GetOptions{})
	if err != nil || !node.Spec.Unschedulable || !strings.Contains(said.String(), "an administrator does: kubectl delete node worker1") {
		t.Errorf("the Node: %v, %v\n%s", node.Spec, err, said)
	}
	if _, err := os.Stat(paths.Kubeconfig("kubelet.conf")); !os.IsNotExist(err) {
		t.Errorf("%v", err)
	}
}
