//go:build integration

package apitest

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/internal/kubeadmconfig"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/phases/controlplane"
	"github.com/kiln-os/kiln/internal/phases/etcd"
	"github.com/kiln-os/kiln/internal/phases/etcdjoin"
	"github.com/kiln-os/kiln/internal/phases/kubeletstart"
	"github.com/kiln-os/kiln/internal/phases/kubeletwait"
	"github.com/kiln-os/kiln/internal/phases/ready"
	"github.com/kiln-os/kiln/internal/phases/waitcontrolplane"
	"github.com/kiln-os/kiln/internal/staticpod"
)

// TestExternalEtcd: a cluster whose etcd somebody else runs, and a second control plane
// of it. Neither has an etcd of its own, nor certificates for one.
func TestExternalEtcd(t *testing.T) {
	health := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(health.Close)
	lb, ctx := newBalancer(t), t.Context()
	others := New(t, nil) // whose etcd it is
	others.Start(t, staticpod.Etcd)
	external := &kubeadmapi.ExternalEtcd{
		Endpoints: []string{staticpod.EtcdClientURL(others.Config)},
		CAFile:    others.Paths.PKI("etcd/ca.crt"), CertFile: others.Paths.PKI("apiserver-etcd-client.crt"), KeyFile: others.Paths.PKI("apiserver-etcd-client.key"),
	}
	c := New(t, func(p *bootplan.Plan) {
		p.Cluster.Kubeadm.Etcd.External = external
		p.Cluster.ControlPlaneEndpoint = lb.l.Addr().String()
		p.Cluster.Kubelet = fmt.Appendf(nil, `{"healthzPort":%d}`, health.Listener.Addr().(*net.TCPAddr).Port)
	})
	lb.add(c.Config.LocalAPIEndpoint())
	manifest := filepath.Join(c.Paths.Manifests(), "etcd.yaml")
	if err := os.Remove(manifest); err != nil { // of the harness
		t.Fatal(err)
	}
	if err := etcd.Run(ctx, c.Config, c.Paths, c.Report); err != nil {
		t.Fatal(err)
	}
	gone(t, manifest)
	gone(t, c.Paths.PKI("etcd/server.crt"))
	gone(t, c.Paths.PKI("apiserver-etcd-client.crt"))
	k1 := newKubelet(t, c)
	if err := k1.Restart(ctx, "kubelet.service"); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"wait-control-plane", "upload-config", "mark-control-plane", "bootstrap-token", "addon-kube-proxy", "addon-flannel"} {
		run(t, c, p)
	}
	stored, err := kubeadmconfig.Parse([]byte(configMap(t, clientOf(t, c, kubeapi.AdminConf), "kube-system", "kubeadm-config").Data["ClusterConfiguration"]))
	if err != nil || stored.Etcd.Local != nil || stored.Etcd.External == nil || !slices.Equal(stored.Etcd.External.Endpoints, external.Endpoints) {
		t.Errorf("stored %+v, %v", stored.Etcd, err)
	}

	n := joining(t, c, "cp2", bootplan.RoleJoinControlPlane)
	n.Config.Plan.Discovery.Endpoint = lb.l.Addr().String()
	cp2 := controlPlane{n, newKubelet(t, n)}
	// The boot plan need not know of the etcd: the cluster does.
	cp2.Config.Plan.Cluster.Kubeadm.Etcd.External = nil
	cp2.prepare(t)
	cfg, paths, r := cp2.joined(t), cp2.Paths, cp2.Report
	for _, err := range []error{
		kubeletstart.Run(ctx, cfg, paths, cp2.kubelet, r),
		etcdjoin.Run(ctx, cfg, paths, cp2.admin(t), r),
		controlplane.Run(ctx, cfg, paths, r),
		kubeletwait.Run(ctx, cfg, paths, cp2.kubelet, apiOf(t, cp2.Cluster, paths.Join("discovery.conf"), r), r),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	gone(t, filepath.Join(paths.Manifests(), "etcd.yaml"))
	gone(t, paths.PKI("etcd/peer.crt"))
	command := Manifests(t, filepath.Join(paths.Manifests(), "kube-apiserver.yaml"))["Pod kube-apiserver"].(*corev1.Pod).Spec.Containers[0].Command
	if want := "--etcd-servers=" + strings.Join(external.Endpoints, ","); !slices.Contains(command, want) {
		t.Errorf("kube-apiserver lacks %s: %v", want, command)
	}
	local, err := kubeapi.Load(cfg, paths, kubeapi.AdminConf, r)
	if err != nil {
		t.Fatal(err)
	}
	for _, run := range []phaseFunc{waitcontrolplane.Run, ready.Run} {
		if err := run(ctx, within(cfg, 2*time.Minute), paths, local, r); err != nil {
			t.Fatal(err)
		}
	}
}
