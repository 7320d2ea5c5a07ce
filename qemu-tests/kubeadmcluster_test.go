//go:build boot && long

package qemutests

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/internal/qemu"
	"github.com/kiln-os/kiln/payload"
	"github.com/kiln-os/kiln/pki"
)

// TestJoinsKubeadmCluster is a cluster that real kubeadm init made, with the pod network
// of upstream's manifest, which a worker of Kiln joins that was switched on before: its
// cluster file has no control plane, and what a join command says.
func TestJoinsKubeadmCluster(t *testing.T) {
	const token = "kubead.m0123456789abcde"
	more := "roles:\n  controlPlane:\n" + indent(referenceSnippet, "    ")
	c := bakeNetwork(t, more, "cp-1", "worker-1")
	cp, worker := c.node(t, "cp-1"), c.node(t, "worker-1")

	ca, err := os.ReadFile(filepath.Join(c.out, "secrets", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pin, err := pki.CAPin(ca)
	if err != nil {
		t.Fatal(err)
	}
	own := t.TempDir()
	file := filepath.Join(own, "worker.yaml")
	writeFile(t, file, networkText(t, ipv4, worker.key.Authorized, fmt.Sprintf(`---
apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
discovery:
  bootstrapToken:
    apiServerEndpoint: 192.168.78.11:6443
    token: %s
    caCertHashes: [%q]
`, token, pin), "worker-1"))
	run(t, imagegenPath(t), "build", file, "-o", filepath.Join(own, "out"))
	worker.image = filepath.Join(own, "out", "worker-1.img")

	config := fmt.Sprintf(`apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: 192.168.78.11}
nodeRegistration: {name: cp-1}
bootstrapTokens:
  - token: %s
    groups: ["system:bootstrappers:kubeadm:default-node-token"]
    usages: [signing, authentication]
timeouts:
  controlPlaneComponentHealthCheck: 30m0s
  kubeletHealthCheck: 30m0s
  kubernetesAPICall: 30m0s
  etcdAPICall: 30m0s
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: %s
networking: {podSubnet: 10.244.0.0/16}
apiServer: {certSANs: [127.0.0.1]}
`, token, payload.KubernetesVersion)

	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "kubeadm.sh"), referenceFile(t, "kubeadm.sh"))
	writeFile(t, filepath.Join(dir, "kubeadm.yaml"), []byte(config))
	writeFile(t, filepath.Join(dir, "flannel.json"), upstreamFlannel(t))
	plugin := flannelPlugin(t)
	if err := tarball.MultiRefWriteToFile(filepath.Join(dir, "plugin.tar"), plugin); err != nil {
		t.Fatal(err)
	}
	tools := []qemu.Disk{{Image: kubeadmDisk(t, dir, cp.image, plugin)}}
	cp.disks, worker.disks = tools, tools

	c.start(t, "worker-1")
	if err := worker.ssh.Wait(c.within(t, 10*time.Minute)); err != nil {
		t.Fatal(err)
	}
	// There is no registry for what the network's own init containers are made of.
	if _, err := worker.ssh.Run(c.within(t, 5*time.Minute), kubeadmAt+"systemctl start containerd && ctr --namespace k8s.io images import /run/reference/plugin.tar"); err != nil {
		t.Fatal(err)
	}
	c.start(t, "cp-1")
	c.ready(t, 30*time.Minute, "cp-1", "worker-1")
	worker.waitFirstbootEnd(t)
	t.Logf("firstboot status:\n%s", worker.sh(t, "firstboot status"))
	worker.sh(t, "test -x /opt/cni/bin/flannel && test -s /etc/cni/net.d/10-flannel.conflist")
	checkAcrossNodes(t, c, "cp-1", "worker-1")

	if err := cp.ssh.Wait(c.within(t, 3*time.Minute)); err != nil {
		t.Fatal(err)
	}
	// It is kubeadm's cluster, and its tools know the node that they have not brought in.
	for command, want := range map[string]string{
		"/run/reference/kubeadm token list":                                      token[:6],
		"kubectl --kubeconfig /etc/kubernetes/admin.conf get nodes":              "worker-1",
		"/run/reference/kubeadm certs check-expiration":                          "apiserver-kubelet-client",
		"grep -h annotations: -A1 /etc/kubernetes/manifests/kube-apiserver.yaml": "kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint",
	} {
		out, err := cp.ssh.Run(c.within(t, 5*time.Minute), kubeadmAt+command)
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v; want %q in\n%s", command, err, want, out)
		}
	}
}

func indent(text, by string) string {
	return by + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n"+by) + "\n"
}

// upstreamFlannel is flannel's own manifest, as JSON, for machines without a registry.
func upstreamFlannel(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile("../internal/phases/addonflannel/testdata/kube-flannel-" + payload.FlannelVersion + ".yml")
	if err != nil {
		t.Fatal(err)
	}
	var items []any
	for _, doc := range bytes.Split(text, []byte("\n---\n")) {
		var o map[string]any
		if err := yaml.Unmarshal(doc, &o); err != nil {
			t.Fatal(err)
		}
		switch o["kind"] {
		case nil:
			continue
		case "DaemonSet":
			spec := o["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)
			for _, c := range spec["containers"].([]any) {
				c.(map[string]any)["imagePullPolicy"] = "IfNotPresent"
			}
		}
		items = append(items, o)
	}
	manifest, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "List", "items": items})
	if err != nil {
		t.Fatal(err)
	}
	return manifest
}
