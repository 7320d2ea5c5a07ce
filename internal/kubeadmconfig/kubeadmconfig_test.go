package kubeadmconfig

import (
	"os"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/internal/apitest"
)

// TestAsKubeadm compares the document with what "kubeadm init phase upload-config
// kubeadm" stores in a cluster when it is given the flags that Kiln adds.
func TestAsKubeadm(t *testing.T) {
	want, err := os.ReadFile("testdata/kubeadm-v1.37.2.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c := ForCluster(apitest.Config("192.0.2.10"))
	c.Etcd.Local.ExtraEnvs = nil // of the architecture that the test runs on
	got, err := Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestEveryField(t *testing.T) {
	cfg := apitest.Config("2001:db8::1")
	p := &cfg.Plan.Cluster
	p.Name, p.ControlPlaneEndpoint, p.CertSANs = "edge", "api.example.org", []string{"kiln.example.org", "192.0.2.1"}
	p.PodSubnets, p.ServiceSubnets = []string{"10.244.0.0/16", "fd00:10:244::/56"}, []string{"10.96.0.0/12", "fd00:10:96::/108"}
	p.DNSDomain, p.EncryptionAlgorithm, p.KubernetesVersion = "k8s.example.org", "RSA-2048", "v1.37.1"
	data, err := Marshal(ForCluster(cfg))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := yaml.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		path []string
		want any
	}{
		{[]string{"controlPlaneEndpoint"}, "api.example.org:6443"},
		{[]string{"clusterName"}, "edge"},
		{[]string{"kubernetesVersion"}, "v1.37.1"},
		{[]string{"encryptionAlgorithm"}, "RSA-2048"},
		{[]string{"networking", "podSubnet"}, "10.244.0.0/16,fd00:10:244::/56"},
		{[]string{"networking", "serviceSubnet"}, "10.96.0.0/12,fd00:10:96::/108"},
		{[]string{"networking", "dnsDomain"}, "k8s.example.org"},
	} {
		var v any = got
		for _, k := range tc.path {
			m, _ := v.(map[string]any)
			v = m[k]
		}
		if v != tc.want {
			t.Errorf("%v is %v, want %v", tc.path, v, tc.want)
		}
	}
	sans, _ := got["apiServer"].(map[string]any)["certSANs"].([]any)
	if len(sans) != 2 || sans[0] != "kiln.example.org" {
		t.Errorf("certSANs %v", sans)
	}
}
