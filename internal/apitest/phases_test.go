//go:build integration

package apitest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/kubeletconfig"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/internal/phases/addoncoredns"
	"github.com/kiln-os/kiln/internal/phases/addonflannel"
	"github.com/kiln-os/kiln/internal/phases/addonkubeproxy"
	"github.com/kiln-os/kiln/internal/phases/bootstraptoken"
	"github.com/kiln-os/kiln/internal/phases/markcontrolplane"
	"github.com/kiln-os/kiln/internal/phases/uploadconfig"
	"github.com/kiln-os/kiln/internal/phases/waitcontrolplane"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/internal/staticpod"
)

type phaseFunc func(context.Context, nodeconfig.Config, host.Paths, *kubeapi.API, phase.Report) error

// phases are those that make objects, in their order.
var phases = []struct {
	name string
	run  phaseFunc
}{
	{"wait-control-plane", waitcontrolplane.Run},
	{"upload-config", uploadconfig.Run},
	{"mark-control-plane", markcontrolplane.Run},
	{"bootstrap-token", bootstraptoken.Run},
	{"addon-flannel", addonflannel.Run},
	{"addon-kube-proxy", addonkubeproxy.Run},
	{"addon-coredns", addoncoredns.Run},
}

// run carries out one phase as admin.
func run(t *testing.T, c *Cluster, name string) string {
	t.Helper()
	for _, p := range phases {
		if p.name == name {
			return call(t, c, p.name, p.run)
		}
	}
	t.Fatalf("there is no phase %s", name)
	return ""
}

func runAll(t *testing.T, c *Cluster) {
	t.Helper()
	for _, p := range phases {
		call(t, c, p.name, p.run)
	}
}

// call carries out a phase as admin and returns what it reported.
func call(t *testing.T, c *Cluster, name string, f phaseFunc) string {
	t.Helper()
	var said bytes.Buffer
	r := phase.NewPrinter(io.MultiWriter(&said, logWriter{t}))
	api, err := kubeapi.Load(c.Config, c.Paths, kubeapi.AdminConf, r)
	if err != nil {
		t.Fatal(err)
	}
	if err := f(t.Context(), c.Config, c.Paths, api, r); err != nil {
		t.Fatalf("phase %s: %v", name, err)
	}
	return said.String()
}

// clientOf returns a client with the credentials of a kubeconfig.
func clientOf(t *testing.T, c *Cluster, conf string) kubernetes.Interface {
	t.Helper()
	api, err := kubeapi.Load(c.Config, c.Paths, conf, c.Report)
	if err != nil {
		t.Fatal(err)
	}
	return api.Client
}

// registerNode does what the kubelet does: it creates the Node with its own rights
// and the labels from its command line. The label of the host name comes a moment
// later.
func registerNode(t *testing.T, c *Cluster) {
	t.Helper()
	nodes := clientOf(t, c, "kubelet.conf").CoreV1().Nodes()
	labels := kubeletconfig.Labels(c.Config)
	labels[corev1.LabelOSStable] = "linux"
	n, err := nodes.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: c.Config.NodeName, Labels: labels}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		time.Sleep(time.Second)
		n.Labels[corev1.LabelHostname] = c.Config.NodeName
		for range 20 { // controllers update the Node as well
			if _, err = nodes.Update(t.Context(), n, metav1.UpdateOptions{}); err == nil {
				return
			}
			if fresh, err := nodes.Get(t.Context(), c.Config.NodeName, metav1.GetOptions{}); err == nil {
				n = fresh
				n.Labels[corev1.LabelHostname] = c.Config.NodeName
			}
		}
	}()
}

// TestPhases carries out a first boot's phases against a control plane that is
// just starting, then again, then after each object was deleted.
func TestPhases(t *testing.T) {
	shortLived := bootplan.Token{ID: "short0", Secret: secret.FromString("0123456789abcdef"), Expires: time.Now().Add(45 * time.Second)}
	expired := bootplan.Token{ID: "gone00", Secret: secret.FromString("0123456789abcdef"), Expires: time.Now().Add(-time.Second)}
	c := New(t, func(p *bootplan.Plan) {
		p.Node.Labels = map[string]string{"example.org/rack": "r1", "node-role.kubernetes.io/edge": "yes"}
		p.Cluster.ControlPlaneEndpoint = "API.example.org"
		p.Cluster.CertSANs = []string{"kiln.example.org"}
		p.Tokens = append(p.Tokens, shortLived, expired)
	})
	ctx := t.Context()
	c.Start(t, staticpod.Etcd, staticpod.APIServer, staticpod.ControllerManager, staticpod.Scheduler)
	go func() {
		time.Sleep(2 * time.Second)
		c.StartKubelet()
	}()

	said := run(t, c, "wait-control-plane")
	for _, want := range []string{
		"waiting for the kubelet (0s of 2m): 500", "waiting for the control plane", "kube-apiserver is healthy after",
		"kube-controller-manager is healthy after", "kube-scheduler is healthy after",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("wait-control-plane did not say %q:\n%s", want, said)
		}
	}
	run(t, c, "upload-config")
	registerNode(t, c)
	said = run(t, c, "mark-control-plane")
	if want := "waiting for node cp1 to be registered"; !strings.Contains(said, want) {
		t.Errorf("mark-control-plane did not say %q:\n%s", want, said)
	}
	said = run(t, c, "bootstrap-token")
	if want := "warning: bootstrap token gone00 expired on"; !strings.Contains(said, want) || strings.Contains(said, "creating bootstrap token gone00") {
		t.Errorf("bootstrap-token did not say %q:\n%s", want, said)
	}
	if strings.Contains(said, c.Config.Plan.Tokens[0].Secret.RevealString()) {
		t.Error("the token's secret is in the report")
	}
	for _, p := range []string{"addon-coredns", "addon-kube-proxy", "addon-flannel"} {
		run(t, c, p)
	}

	o := newObjects(t, c)
	first := o.all(ctx, t)
	admin := clientOf(t, c, kubeapi.AdminConf)
	t.Run("rbac", func(t *testing.T) { checkRBAC(t, admin) })
	t.Run("kubeadm-config", func(t *testing.T) { checkKubeadmConfig(t, c, admin) })
	t.Run("kubelet-config", func(t *testing.T) { checkKubeletConfig(t, admin) })
	t.Run("node", func(t *testing.T) { checkNode(t, admin) })
	t.Run("addons", func(t *testing.T) { checkAddons(t, c, admin) })
	t.Run("discovery", func(t *testing.T) { checkDiscovery(t, c, admin) })
	t.Run("TLS bootstrap", func(t *testing.T) { checkTLSBootstrap(t, c) })
	t.Run("token cleaner", func(t *testing.T) {
		eventually(t, 2*time.Minute, "the controller manager to delete token "+shortLived.ID, func() (bool, error) {
			l, err := admin.CoreV1().Secrets("kube-system").List(ctx, metav1.ListOptions{FieldSelector: "type=bootstrap.kubernetes.io/token"})
			return err == nil && len(l.Items) == 1 && l.Items[0].Name == "bootstrap-token-"+c.Config.Plan.Tokens[0].ID, err
		})
		// It would be created again, and is not: it has expired.
		c.Config.Plan.Tokens = c.Config.Plan.Tokens[:1]
	})

	t.Run("ready", func(t *testing.T) { checkReady(t, c, admin) })

	t.Run("repeated", func(t *testing.T) {
		before := nodeOf(t, admin)
		runAll(t, c)
		o.same(ctx, t, first, "after a second run")
		if after := nodeOf(t, admin); !reflect.DeepEqual(before.Labels, after.Labels) || !reflect.DeepEqual(before.Spec.Taints, after.Spec.Taints) {
			t.Errorf("the node changed: %v %v", after.Labels, after.Spec.Taints)
		}
	})
	t.Run("one missing", func(t *testing.T) {
		for i, w := range owned {
			o.delete(ctx, t, i)
			run(t, c, w.phase)
			if got := o.get(ctx, t, i); !reflect.DeepEqual(got, first[i]) {
				t.Errorf("%s %s is not restored:\n%v\nwant\n%v", w.resource, w.name, got, first[i])
			}
		}
		o.same(ctx, t, first, "after everything was deleted once")
	})
	t.Run("changed by others", func(t *testing.T) { checkForeignChanges(t, c, o, first) })
	t.Run("a machine of others", func(t *testing.T) { checkOtherMachine(t, admin) })
}

// checkOtherMachine: flannel's plugin is installed on a node that does not bring it, and
// nowhere else.
func checkOtherMachine(t *testing.T, admin kubernetes.Interface) {
	ctx := t.Context()
	wanted := func(nodes int32) {
		t.Helper()
		eventually(t, time.Minute, "the controller manager to place kube-flannel-install", func() (bool, error) {
			ds, err := admin.AppsV1().DaemonSets("kube-flannel").Get(ctx, "kube-flannel-install", metav1.GetOptions{})
			if err != nil || ds.Status.ObservedGeneration < ds.Generation {
				return false, err
			}
			return ds.Status.DesiredNumberScheduled == nodes, fmt.Errorf("it wants %d nodes, not %d", ds.Status.DesiredNumberScheduled, nodes)
		})
	}
	wanted(0)
	other := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "debian", Labels: map[string]string{corev1.LabelOSStable: "linux", corev1.LabelHostname: "debian"}}}
	if _, err := admin.CoreV1().Nodes().Create(ctx, other, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	wanted(1)
	eventually(t, time.Minute, "a pod that installs flannel's plugin", func() (bool, error) {
		pods, err := admin.CoreV1().Pods("kube-flannel").List(ctx, metav1.ListOptions{LabelSelector: "app=flannel-install"})
		if err != nil || len(pods.Items) != 1 {
			return false, err
		}
		// The controller says by the node's name where the scheduler is to put it.
		terms := pods.Items[0].Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
		return len(terms) == 1 && len(terms[0].MatchFields) == 1 && slices.Equal(terms[0].MatchFields[0].Values, []string{"debian"}), fmt.Errorf("it is for %v", terms)
	})
}

func nodeOf(t *testing.T, client kubernetes.Interface) *corev1.Node {
	t.Helper()
	n, err := client.CoreV1().Nodes().Get(t.Context(), "cp1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// checkForeignChanges: what others added is kept, what they changed is restored,
// and what cannot be restored is an error that says so at once.
func checkForeignChanges(t *testing.T, c *Cluster, o objects, first []map[string]any) {
	ctx, admin := t.Context(), clientOf(t, c, kubeapi.AdminConf)
	const system = metav1.NamespaceSystem

	deployments := admin.AppsV1().Deployments(system)
	change(ctx, t, deployments.Get, deployments.Update, "coredns", func(d *appsv1.Deployment) {
		three := int32(3)
		d.Spec.Replicas = &three
		d.Labels["example.org/team"] = "net"
		d.Spec.Template.Spec.Containers[0].Image = "registry.k8s.io/coredns/coredns:v1.0.0"
	})
	configMaps := admin.CoreV1().ConfigMaps(system)
	change(ctx, t, configMaps.Get, configMaps.Update, "coredns", func(cm *corev1.ConfigMap) {
		cm.Data["Corefile"] = strings.Replace(cm.Data["Corefile"], "    errors\n", "    errors\n    log\n", 1)
	})
	if said := run(t, c, "addon-coredns"); !strings.Contains(said, "is not the default and is kept") {
		t.Errorf("addon-coredns said:\n%s", said)
	}
	d, err := deployments.Get(ctx, "coredns", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if *d.Spec.Replicas != 3 || d.Labels["example.org/team"] != "net" || !strings.HasSuffix(d.Spec.Template.Spec.Containers[0].Image, ":v1.14.6") {
		t.Errorf("deployment coredns: %d replicas, labels %v, image %s", *d.Spec.Replicas, d.Labels, d.Spec.Template.Spec.Containers[0].Image)
	}
	cm, err := configMaps.Get(ctx, "coredns", metav1.GetOptions{})
	if err != nil || !strings.Contains(cm.Data["Corefile"], "    log\n") {
		t.Errorf("the changed Corefile is gone: %v, %v", cm, err)
	}

	change(ctx, t, configMaps.Get, configMaps.Update, "kube-proxy", func(cm *corev1.ConfigMap) { cm.Data["config.conf"] = "mode: ipvs" })
	run(t, c, "addon-kube-proxy")
	for i, w := range owned {
		if w.phase == "addon-kube-proxy" {
			if got := o.get(ctx, t, i); !reflect.DeepEqual(got, first[i]) {
				t.Errorf("%s %s is not restored: %v", w.resource, w.name, got)
			}
		}
	}

	bindings := admin.RbacV1().ClusterRoleBindings()
	if err := bindings.Delete(ctx, "kubeadm:node-proxier", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := bindings.Create(ctx, kubeapi.BindClusterRole("kubeadm:node-proxier", "view"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	api, err := kubeapi.Load(c.Config, c.Paths, kubeapi.AdminConf, c.Report)
	if err != nil {
		t.Fatal(err)
	}
	err = addonkubeproxy.Run(ctx, c.Config, c.Paths, api, c.Report)
	if err == nil || !phase.IsPermanent(err) || !strings.Contains(err.Error(), "refers to ClusterRole view, want ClusterRole system:node-proxier") {
		t.Errorf("a binding of another role leads to %v", err)
	}
}

// change updates an object of somebody else's until no other update interferes.
func change[T any](ctx context.Context, t *testing.T, get func(context.Context, string, metav1.GetOptions) (T, error),
	update func(context.Context, T, metav1.UpdateOptions) (T, error), name string, mutate func(T)) {
	t.Helper()
	eventually(t, 30*time.Second, "a change of "+name, func() (bool, error) {
		obj, err := get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		mutate(obj)
		_, err = update(ctx, obj, metav1.UpdateOptions{})
		return err == nil, err
	})
}

func checkNode(t *testing.T, admin kubernetes.Interface) {
	n := nodeOf(t, admin)
	for k, want := range map[string]string{
		"node-role.kubernetes.io/control-plane": "", "node.kubernetes.io/exclude-from-external-load-balancers": "",
		"example.org/rack": "r1", "node-role.kubernetes.io/edge": "yes", corev1.LabelHostname: "cp1",
	} {
		if got, ok := n.Labels[k]; !ok || got != want {
			t.Errorf("label %s is %q (%v), want %q", k, got, ok, want)
		}
	}
	if !slices.ContainsFunc(n.Spec.Taints, func(x corev1.Taint) bool {
		return x.Key == "node-role.kubernetes.io/control-plane" && x.Value == "" && x.Effect == corev1.TaintEffectNoSchedule
	}) {
		t.Errorf("taints %v", n.Spec.Taints)
	}
}

// TestControlPlaneThatDoesNotStart: the error of a wait that was in vain names
// every component that does not answer, and why.
func TestControlPlaneThatDoesNotStart(t *testing.T) {
	c := New(t, func(p *bootplan.Plan) { p.Timeouts.ControlPlane = bootplan.Duration(2 * time.Second) })
	api, err := kubeapi.Load(c.Config, c.Paths, kubeapi.AdminConf, c.Report)
	if err != nil {
		t.Fatal(err)
	}
	err = waitcontrolplane.Run(t.Context(), c.Config, c.Paths, api, c.Report)
	if err == nil || !strings.Contains(err.Error(), "waited 2s for the kubelet: 500") || !strings.Contains(err.Error(), "journalctl -u kubelet") {
		t.Errorf("without a kubelet: %v", err)
	}
	c.StartKubelet()
	err = waitcontrolplane.Run(t.Context(), c.Config, c.Paths, api, c.Report)
	for _, want := range []string{"waited 2s for the control plane", "kube-apiserver: ", "kube-controller-manager: ", "kube-scheduler: ", "connection refused"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("without a control plane: %v; want %q in it", err, want)
		}
	}
	// On a new node there is the API server's manifest only; the others come when it answers.
	others := []string{staticpod.ControllerManager, staticpod.Scheduler}
	there := func() (names []string) {
		for _, name := range others {
			if _, err := os.Stat(filepath.Join(c.Paths.Manifests(), name+".yaml")); err == nil {
				names = append(names, name)
			}
		}
		return names
	}
	for _, name := range others {
		if err := os.Remove(filepath.Join(c.Paths.Manifests(), name+".yaml")); err != nil {
			t.Fatal(err)
		}
	}
	err = waitcontrolplane.Run(t.Context(), c.Config, c.Paths, api, c.Report)
	if err == nil || len(there()) != 0 || strings.Contains(err.Error(), "kube-scheduler") {
		t.Errorf("without an API server: %v, and manifests of %v", err, there())
	}
	c.Start(t, staticpod.Etcd, staticpod.APIServer)
	c.Config.Plan.Timeouts.ControlPlane = bootplan.Duration(20 * time.Second)
	err = waitcontrolplane.Run(t.Context(), c.Config, c.Paths, api, c.Report)
	for _, want := range []string{"kube-controller-manager: ", "kube-scheduler: "} {
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "kube-apiserver: ") || !slices.Equal(there(), others) {
			t.Errorf("with an API server alone: %v; want %q in it; manifests of %v", err, want, there())
		}
	}
	if err := os.Remove(c.Paths.Kubeconfig("super-admin.conf")); err != nil {
		t.Fatal(err)
	}
	if err := api.Client.RbacV1().ClusterRoleBindings().Delete(t.Context(), kubeapi.AdminsGroup, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "the authorizer to notice", func() (bool, error) {
		_, err := api.Client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
		return apierrors.IsForbidden(err), nil
	})
	c.Config.Plan.Timeouts.ControlPlane = bootplan.Duration(2 * time.Minute)
	err = waitcontrolplane.Run(t.Context(), c.Config, c.Paths, api, c.Report)
	if err == nil || !phase.IsPermanent(err) || !strings.Contains(err.Error(), "super-admin.conf to create it with") {
		t.Errorf("without super-admin.conf: %v", err)
	}
}
