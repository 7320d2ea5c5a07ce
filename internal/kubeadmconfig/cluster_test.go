package kubeadmconfig

import (
	"reflect"
	"slices"
	"testing"

	"github.com/kiln-os/kiln/internal/apitest"
	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/internal/staticpod"
)

// TestToPlan: a node that joins runs its components as the one that made the cluster.
func TestToPlan(t *testing.T) {
	cfg := apitest.Config("192.0.2.10")
	p := &cfg.Plan.Cluster
	p.ControlPlaneEndpoint, p.CertSANs = "api.example.org:6443", []string{"kiln.example.org"}
	p.PodSubnets, p.ServiceSubnets = []string{"10.244.0.0/16", "fd00:10:244::/56"}, []string{"10.96.0.0/16", "fd00:10:96::/112"}
	p.Kubeadm.APIServer.ExtraArgs = []kubeadmapi.Arg{{Name: "v", Value: "4"}}
	p.Kubeadm.CertificatesDir = "/etc/kubernetes/certs"
	data, err := Marshal(ForCluster(cfg))
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	joined := cfg
	joined.FromCluster = true
	if joined.Plan.Cluster, err = ToPlan(bootplan.Cluster{PodNetwork: p.PodNetwork, KubernetesVersion: "v1.0.0"}, c); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{staticpod.APIServer, staticpod.ControllerManager, staticpod.Scheduler, staticpod.Etcd} {
		if got, want := staticpod.ExtraArgs(joined, name), staticpod.ExtraArgs(cfg, name); !slices.Equal(got, want) {
			t.Errorf("%s: flags %v, want %v", name, got, want)
		}
	}
	again, err := Marshal(ForCluster(joined))
	if err != nil || string(again) != string(data) {
		t.Errorf("%v\n%s\nwant\n%s", err, again, data)
	}
	got, want := joined.Plan.Cluster, *p
	got.Kubeadm, want.Kubeadm = kubeadmapi.ClusterConfiguration{}, kubeadmapi.ClusterConfiguration{}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant\n%+v", got, want)
	}
}

// TestForeignCluster: one that kubeadm made has none of Kiln's flags, and gets none.
func TestForeignCluster(t *testing.T) {
	c, err := Parse([]byte("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v1.37.2\nclusterName: kubernetes\n"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := apitest.Config("192.0.2.10")
	cfg.FromCluster = true
	if cfg.Plan.Cluster, err = ToPlan(cfg.Plan.Cluster, c); err != nil {
		t.Fatal(err)
	}
	if args := staticpod.ExtraArgs(cfg, staticpod.ControllerManager); len(args) > 0 {
		t.Errorf("flags %v", args)
	}
	p := cfg.Plan.Cluster
	if p.Name != "kubernetes" || p.DNSDomain != "cluster.local" || p.EncryptionAlgorithm != "RSA-2048" || len(p.PodSubnets) != 0 || !slices.Equal(p.ServiceSubnets, []string{"10.96.0.0/12"}) {
		t.Errorf("%+v", p)
	}
}

// TestExternalEtcd: it stands in the stored configuration, and no local one.
func TestExternalEtcd(t *testing.T) {
	cfg := apitest.Config("192.0.2.10")
	cfg.Plan.Cluster.Kubeadm.Etcd.External = &kubeadmapi.ExternalEtcd{Endpoints: []string{"https://etcd.example.org:2379"}}
	if c := ForCluster(cfg); c.Etcd.Local != nil || c.Etcd.External == nil {
		t.Errorf("%+v", c.Etcd)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v1.37.2\nnetworking: {podSubnet: '10.0.0.0/8,fd00::/56'}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse(data)
		if err != nil {
			return
		}
		if p, err := ToPlan(bootplan.Cluster{}, c); err == nil && (p.KubernetesVersion == "" || p.DNSDomain == "" || len(p.ServiceSubnets) == 0 && c.Networking.ServiceSubnet == "") {
			t.Errorf("%+v", p)
		}
	})
}
