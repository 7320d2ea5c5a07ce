//go:build boot && long

package qemutests

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kiln-os/kiln/internal/qemu"
	"github.com/kiln-os/kiln/internal/qemu/cluster"
	"github.com/kiln-os/kiln/payload"
)

// TestJoins is a cluster that grows: a worker that was there before its control plane,
// a Debian machine that real kubeadm brings in, a worker that is reset and comes back
// under its name, and one whose token has expired and whose image gets another.
func TestJoins(t *testing.T) {
	c := bakeNetwork(t, "", "cp-1", "worker-1", "worker-2", "worker-3")
	debian := c.node(t, "worker-2")
	cp := c.node(t, "cp-1")
	// The disk of the control plane that has kubeadm is no part of it.
	tools := kubeadmDisk(t, t.TempDir(), cp.image, flannelPlugin(t))
	cp.disks = []qemu.Disk{{Image: tools}}
	debianMachine(t, c, debian, tools)

	c.start(t, "worker-1")
	worker := c.node(t, "worker-1")
	waiting, err := worker.machine.Console().WaitFor(c.within(t, 5*time.Minute), regexp.MustCompile(`waiting for the cluster at 192\.168\.78\.11:6443`))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("a worker without a control plane says: %s", waiting.Text)
	c.start(t, "cp-1")
	c.ready(t, 20*time.Minute, "cp-1", "worker-1")
	for _, n := range []*node{cp, worker} {
		if err := n.ssh.Wait(c.within(t, 3*time.Minute)); err != nil {
			t.Fatal(err)
		}
		n.waitFirstbootEnd(t)
	}
	t.Run("services across nodes", func(t *testing.T) { checkAcrossNodes(t, c, "cp-1", "worker-1") })
	t.Run("kubeadm's commands", func(t *testing.T) { checkKubeadmCommands(t, c) })
	t.Run("kubeadm join of a Debian machine", func(t *testing.T) { joinDebian(t, c) })
	t.Run("reset, and the same name again", func(t *testing.T) { resetAndRejoin(t, c) })
	t.Run("an expired token, and a new one", func(t *testing.T) { expiredToken(t, c) })
}

// kubeadmAt mounts the disk with kubeadm on a node whose second disk it is.
const kubeadmAt = `mkdir -p /run/reference && { mountpoint -q /run/reference || mount -o ro /dev/vdb /run/reference; } && `

// checkKubeadmCommands runs real kubeadm's commands on a control plane that it did
// not make.
func checkKubeadmCommands(t *testing.T, c *network) {
	cp := c.node(t, "cp-1")
	for command, want := range map[string]string{
		"token list": "system:bootstrappers:kubeadm:default-node-token",
		"token create --ttl 2h --description 'for the test' --print-join-command": "kubeadm join 192.168.78.11:6443 --token ",
		"certs check-expiration": "apiserver-etcd-client",
		"config images list --kubernetes-version " + payload.KubernetesVersion: "registry.k8s.io/kube-apiserver:" + payload.KubernetesVersion,
	} {
		out, err := cp.ssh.Run(c.within(t, 5*time.Minute), kubeadmAt+"/run/reference/kubeadm "+command)
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("kubeadm %s: %v; want %q in\n%s", command, err, want, out)
		}
	}
	if out := cp.sh(t, "firstboot token list"); !strings.Contains(out, "for the test") {
		t.Errorf("firstboot token list does not show kubeadm's token:\n%s", out)
	}
}

// joinDebian brings in a machine with the command that real kubeadm prints.
func joinDebian(t *testing.T, c *network) {
	cp, debian := c.node(t, "cp-1"), c.node(t, "worker-2")
	join, err := cp.ssh.Run(c.within(t, 5*time.Minute), kubeadmAt+"/run/reference/kubeadm token create --print-join-command")
	if err != nil {
		t.Fatal(err)
	}
	c.start(t, "worker-2")
	if err := debian.ssh.Wait(c.within(t, 10*time.Minute)); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if _, err := debian.ssh.Run(c.within(t, 10*time.Minute), kubeadmAt+"ctr --namespace k8s.io images import /run/reference/images.tar"); err != nil {
		t.Fatal(err)
	}
	t.Logf("images imported after %.0f s", time.Since(start).Seconds())
	const conflist, plugins = "/etc/cni/net.d/10-flannel.conflist", "/opt/cni/bin"
	if out := debian.sh(t, "ls "+conflist+" /usr/lib/cni/flannel "+plugins+"/flannel 2>/dev/null || true"); out != "" {
		t.Fatalf("the machine has already what the cluster is to give it: %s", out)
	}
	out, err := debian.ssh.Run(c.within(t, 10*time.Minute), "/run/reference/"+strings.TrimSpace(join)+" --node-name "+debianName)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
	c.ready(t, 10*time.Minute, debianName)

	// What the pod network needs on a host came from the cluster, and to this machine alone.
	if got, want := debian.sh(t, "cat "+conflist), cp.sh(t, "cat "+conflist); got != want {
		t.Errorf("%s is\n%s\nwant\n%s", conflist, got, want)
	}
	debian.sh(t, "test -x "+plugins+"/flannel")
	pods, err := c.client.CoreV1().Pods("kube-flannel").List(c.within(t, time.Minute), metav1.ListOptions{LabelSelector: "app=flannel-install"})
	if err != nil {
		t.Fatal(err)
	}
	if len(pods.Items) != 1 || pods.Items[0].Spec.NodeName != debianName {
		t.Errorf("%d pods install flannel's plugin, want one, on %s: %v", len(pods.Items), debianName, pods.Items)
	}
	for _, name := range []string{"cp-1", "worker-1"} {
		if out := c.node(t, name).sh(t, "ls -A "+plugins+" 2>/dev/null || true"); out != "" {
			t.Errorf("%s has plugins in %s: %s", name, plugins, out)
		}
	}
}

// resetAndRejoin takes a worker out of its cluster and lets it join once more.
func resetAndRejoin(t *testing.T, c *network) {
	n := c.node(t, "worker-1")
	uid := c.uid(t, "worker-1")
	out, err := n.ssh.Run(c.within(t, 10*time.Minute), "firstboot reset --force 2>&1")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("firstboot reset:\n%s", out)
	if out := n.sh(t, "ls -A /etc/kubernetes/manifests /var/lib/kubelet /etc/cni/net.d 2>&1; ip -o link | grep -E 'cni0|flannel' || true"); strings.Contains(out, "kubelet.conf") || strings.Contains(out, "flannel.1") {
		t.Errorf("left after a reset:\n%s", out)
	}
	out, err = n.ssh.Run(c.within(t, 10*time.Minute), "systemctl restart firstboot.service && firstboot status")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("firstboot run:\n%s", out)
	c.ready(t, 10*time.Minute, "worker-1")
	if now := c.uid(t, "worker-1"); now == uid {
		t.Log("the Node object is the one from before the reset: a worker may not delete its own")
	}
}

// expiredToken switches on a worker whose token the cluster knows no more, gives its
// image another, and switches it on again.
func expiredToken(t *testing.T, c *network) {
	cp, n := c.node(t, "cp-1"), c.node(t, "worker-3")
	for _, s := range bootstrapTokens(c.within(t, time.Minute), t, cp) {
		cp.sh(t, "firstboot token delete "+string(s.Data["token-id"]))
	}
	c.start(t, "worker-3")
	said, err := n.machine.Console().WaitFor(c.within(t, 5*time.Minute), regexp.MustCompile(`the token has expired or was deleted`))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("a worker with an expired token says: %s", said.Text)
	c.kill(t, "worker-3")

	kc, err := cluster.Kubeconfig(n.adminConf, c.net.API)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, kc.Reveal(), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, imagegenPath(t), "token", c.file, "-o", c.out, "--apply", "--kubeconfig", path, "--node", "worker-3")
	c.startFresh(t, "worker-3")
	c.ready(t, 15*time.Minute, "worker-3")
}

// waitRunning waits until a pod runs. One that has ended fails the test, with its log.
func waitRunning(ctx context.Context, t *testing.T, n *node, ns, name string) {
	t.Helper()
	for {
		p, err := n.client.CoreV1().Pods(ns).Get(ctx, name, metav1.GetOptions{})
		switch {
		case err == nil && p.Status.Phase == corev1.PodRunning:
			return
		case err == nil && p.Status.Phase == corev1.PodFailed:
			log, err := n.client.CoreV1().Pods(ns).GetLogs(name, &corev1.PodLogOptions{}).DoRaw(ctx)
			t.Fatalf("pod %s has failed: %s (%v)", name, log, err)
		}
		select {
		case <-ctx.Done():
			t.Fatalf("pod %s does not run: %v", name, context.Cause(ctx))
		case <-time.After(time.Second):
		}
	}
}

// uid tells a Node object from a later one of the same name.
func (c *network) uid(t *testing.T, name string) string {
	t.Helper()
	n, err := c.client.CoreV1().Nodes().Get(c.within(t, time.Minute), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return string(n.UID)
}

// checkAcrossNodes runs a server on each of two nodes and asks it from the other one,
// by the name of a Service: cluster DNS, kube-proxy and the pod network of both.
func checkAcrossNodes(t *testing.T, c *network, names ...string) {
	ctx := c.within(t, 15*time.Minute)
	any := c.node(t, names[0])
	apiserver, err := c.client.CoreV1().Pods(kubeSystem).Get(ctx, "kube-apiserver-"+names[0], metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	image := apiserver.Spec.Containers[0].Image
	made, err := c.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "kiln-test-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ns := made.Name
	// Pods of nobody's would count as trouble once their node is reset.
	defer func() {
		if err := c.client.CoreV1().Namespaces().Delete(ctx, ns, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	}()
	_, err = c.client.CoreV1().ConfigMaps(ns).Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "kubeconfig"}, Data: map[string]string{"config": inCluster},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		server := kubectlPod(ns, "server-"+name, image, []string{"--kubeconfig=/config/config", "proxy", "--address=", "--accept-hosts=.*", "--port=8001"})
		server.Labels = map[string]string{"server": name}
		server.Spec.NodeName = name
		if err := createPod(ctx, any, server); err != nil {
			t.Fatal(err)
		}
		if _, err := c.client.CoreV1().Services(ns).Create(ctx, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: corev1.ServiceSpec{
				Selector: map[string]string{"server": name},
				Ports:    []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8001)}},
			},
		}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range names {
		waitRunning(ctx, t, any, ns, "server-"+name)
	}
	for i, name := range names {
		other := names[(i+1)%len(names)]
		pod := "from-" + name
		client := kubectlPod(ns, pod, image, []string{"--server=http://" + other + "." + ns + ".svc." + dnsDomain, "get", "--raw", "/version"})
		client.Spec.NodeName = name
		client.Spec.RestartPolicy = "OnFailure" // the server may not listen yet
		if err := createPod(ctx, any, client); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		done, err := waitPod(ctx, any, ns, pod)
		if err != nil {
			t.Fatalf("from %s to a server on %s: %v", name, other, err)
		}
		log, err := c.client.CoreV1().Pods(ns).GetLogs(pod, &corev1.PodLogOptions{}).DoRaw(ctx)
		if err != nil || !strings.Contains(string(log), "gitVersion") {
			t.Errorf("from %s to a server on %s: %s, %v: %s", name, other, done.Status.Phase, err, log)
		}
		t.Logf("from %s to a server on %s: %.1f s", name, other, time.Since(start).Seconds())
	}
}
