//go:build integration

package apitest

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/phases/addonflannel"
	"github.com/kiln-os/kiln/internal/phases/clusterconfig"
	"github.com/kiln-os/kiln/internal/phases/discovery"
	"github.com/kiln-os/kiln/internal/phases/kubeletbootstrap"
	"github.com/kiln-os/kiln/internal/phases/kubeletstart"
	"github.com/kiln-os/kiln/internal/phases/kubeletwait"
	"github.com/kiln-os/kiln/internal/phases/ready"
	"github.com/kiln-os/kiln/internal/staticpod"
	"github.com/kiln-os/kiln/payload"
)

// TestSkew lets nodes of one minor version meet clusters of another, with the real
// programs of both.
func TestSkew(t *testing.T) {
	now, before := payload.KubernetesVersion, payload.PreviousKubernetesVersion
	t.Run("cluster of the version before", func(t *testing.T) {
		c := skewed(t, before)
		// The phases, manifests and addons are those of the newest version.
		admin := clientOf(t, c, kubeapi.AdminConf)
		checkRBAC(t, admin)
		checkKubeletConfig(t, admin)
		checkRealKubelet(t, c)

		refused(t, c, bootplan.RoleJoinWorker, now, "the kubelet is "+now+", newer than the control plane's "+before)
		refused(t, c, bootplan.RoleJoinControlPlane, now, "the cluster's control plane is Kubernetes "+before+", this image holds "+now)
		joins(t, c, before)
	})
	t.Run("nodes of the version before", func(t *testing.T) {
		c := skewed(t, now)
		refused(t, c, bootplan.RoleJoinControlPlane, before, "the cluster's control plane is Kubernetes "+now+", this image holds "+before)
		joins(t, c, before)
	})
}

// skewed is a cluster of a version of Kubernetes that nodes can join.
func skewed(t *testing.T, version string) *Cluster {
	t.Helper()
	addr := randomLoopback(t)
	c := NewAt(t, addr, func(p *bootplan.Plan) {
		p.Cluster.KubernetesVersion = version
		p.Cluster.ControlPlaneEndpoint = addr // so that there can be a second control plane
	})
	c.Start(t, staticpod.Etcd, staticpod.APIServer, staticpod.ControllerManager, staticpod.Scheduler)
	c.StartKubelet()
	for _, p := range []string{"wait-control-plane", "upload-config"} {
		run(t, c, p)
	}
	v, err := clientOf(t, c, kubeapi.AdminConf).Discovery().ServerVersion()
	if err != nil || v.GitVersion != version {
		t.Fatalf("the API server is %v, %v; want %s", v, err, version)
	}
	registerNode(t, c)
	for _, p := range []string{"mark-control-plane", "bootstrap-token", "addon-flannel", "addon-kube-proxy", "addon-coredns"} {
		run(t, c, p)
	}
	return c
}

// newcomer is a machine with the programs of a version of Kubernetes that has found c.
func newcomer(t *testing.T, c *Cluster, name string, role bootplan.Role, version string) *Cluster {
	t.Helper()
	n := joining(t, c, name, role)
	n.Config.Plan.Cluster.KubernetesVersion = version
	n.findPrograms(t)
	if err := discovery.Run(t.Context(), n.Config, n.Paths, n.Report); err != nil {
		t.Fatal(err)
	}
	return n
}

// refused: the node waits and says why, and has nothing of the cluster.
func refused(t *testing.T, c *Cluster, role bootplan.Role, version, why string) {
	t.Helper()
	n := newcomer(t, c, "refused", role, version)
	api := apiOf(t, n, n.Paths.Join("discovery.conf"), n.Report)
	wants(t, n, clusterconfig.Run(t.Context(), within(n.Config, moment), n.Paths, api, n.Report), why)
	gone(t, n.Paths.Join("cluster-configuration.yaml"))
}

// joins takes a worker of a version into c until it is Ready, and starts the real
// kubelet of that version with what firstboot wrote.
func joins(t *testing.T, c *Cluster, version string) {
	t.Helper()
	w := newcomer(t, c, "worker-of-"+strings.ReplaceAll(version, ".", "-"), bootplan.RoleJoinWorker, version)
	ctx, k := t.Context(), newKubelet(t, w)
	api := apiOf(t, w, w.Paths.Join("discovery.conf"), w.Report)
	if err := clusterconfig.Run(ctx, w.Config, w.Paths, api, w.Report); err != nil {
		t.Fatal(err)
	}
	cfg := w.joined(t)
	for _, step := range []func() error{
		func() error { return kubeletbootstrap.Run(ctx, cfg, w.Paths, k, api, w.Report) },
		func() error { return addonflannel.Prepare(ctx, cfg, w.Paths, w.Report) },
		func() error { return kubeletstart.Run(ctx, cfg, w.Paths, k, w.Report) },
		func() error { return kubeletwait.Run(ctx, cfg, w.Paths, k, api, w.Report) },
		func() error {
			return ready.Run(ctx, within(cfg, 2*time.Minute), w.Paths, apiOf(t, w, w.ownKubeconfig(t, t.TempDir()), w.Report), w.Report)
		},
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	checkRealKubelet(t, w)
}

// checkRealKubelet starts the node's kubelet with the configuration that firstboot
// wrote, until it asks for a container runtime, which is not there: before that it has
// read all of it. A setting that it does not know it would ignore with a warning.
func checkRealKubelet(t *testing.T, n *Cluster) {
	t.Helper()
	config := file(t, n.Paths.Kubelet("config.yaml"))
	said := realKubelet(t, n, config)
	for _, bad := range []string{"lenient", "unknown field", "unrecognized feature gate"} {
		if strings.Contains(said, bad) {
			t.Errorf("kubelet %s says %q of\n%s\n%s", n.Config.Plan.Cluster.KubernetesVersion, bad, config, said)
		}
	}
	if said := realKubelet(t, n, config+"aSettingOfLaterVersions: true\n"); !strings.Contains(said, "aSettingOfLaterVersions") {
		t.Errorf("a setting that the kubelet does not know goes unnoticed:\n%s", said)
	}
}

// realKubelet returns what a kubelet prints until it misses the container runtime.
func realKubelet(t *testing.T, n *Cluster, config string) string {
	t.Helper()
	dir := t.TempDir()
	socket := "unix://" + filepath.Join(dir, "no-runtime.sock")
	lines := strings.Split(config, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, "containerRuntimeEndpoint:") {
			lines[i] = "containerRuntimeEndpoint: " + socket
		}
	}
	// Files of the node, which are below the test's folder.
	text := strings.NewReplacer("/etc/kubernetes/", n.Paths.At("/etc/kubernetes")+"/").Replace(strings.Join(lines, "\n"))
	write(t, filepath.Join(dir, "config.yaml"), []byte(text))
	cmd := exec.CommandContext(t.Context(), n.kubernetes, "kubelet", "--config="+filepath.Join(dir, "config.yaml"),
		"--kubeconfig="+n.ownKubeconfig(t, dir), "--root-dir="+filepath.Join(dir, "root"), "--cert-dir="+filepath.Join(dir, "pki"),
		"--hostname-override="+n.Config.NodeName)
	out := &recorder{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for end := time.Now().Add(2 * time.Minute); ; {
		ended := false
		select {
		case <-done:
			ended = true
		case <-time.After(100 * time.Millisecond):
		}
		missed := strings.Contains(out.String(), "no-runtime.sock")
		if !ended && (missed || time.Now().After(end)) {
			_ = cmd.Process.Kill()
			<-done
			ended = true
		}
		if ended {
			if !missed {
				t.Errorf("kubelet %s did not come as far as to ask for its container runtime:\n%s", n.Config.Plan.Cluster.KubernetesVersion, out.String())
			}
			return out.String()
		}
	}
}

// ownKubeconfig is the node's kubelet.conf with the paths that it has in the test.
func (c *Cluster) ownKubeconfig(t *testing.T, dir string) string {
	t.Helper()
	text := strings.ReplaceAll(file(t, c.Paths.Kubeconfig("kubelet.conf")), currentPEM, c.Paths.At(currentPEM))
	path := filepath.Join(dir, "kubelet.conf")
	write(t, path, []byte(text))
	return path
}
