package kubeletconfig

import (
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/nodeconfig"
)

func config() nodeconfig.Config {
	return nodeconfig.Config{
		Plan: bootplan.Plan{Cluster: bootplan.Cluster{
			ServiceSubnets: []string{"10.96.0.0/12"}, DNSDomain: "cluster.local",
		}},
		NodeName: "kiln-1", Hostname: "kiln-1", AdvertiseAddress: netip.MustParseAddr("10.0.2.15"),
	}
}

// TestGolden: config.yaml and instance-config.yaml are what kubeadm 1.37.2 writes
// with `kubeadm init phase kubelet-start` on a host without systemd-resolved.
// configmap.yaml is that config.yaml with the node's containerRuntimeEndpoint
// emptied by hand; it is not kubeadm's own output.
func TestGolden(t *testing.T) {
	node, err := ForNode(config())
	if err != nil {
		t.Fatal(err)
	}
	cluster, err := ForCluster(config())
	if err != nil {
		t.Fatal(err)
	}
	file, err1 := Marshal(node)
	shared, err2 := Marshal(cluster)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	for name, got := range map[string][]byte{"config.yaml": file, "configmap.yaml": shared, "instance-config.yaml": InstanceConfig(config())} {
		want, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%s is\n%s\nwant\n%s", name, got, want)
		}
	}
}

func TestResolvConfStaysOnTheNode(t *testing.T) {
	cfg := config()
	cfg.ResolvConf = "/run/systemd/resolve/resolv.conf"
	node, err1 := ForNode(cfg)
	cluster, err2 := ForCluster(cfg)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	file, err1 := Marshal(node)
	shared, err2 := Marshal(cluster)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if !strings.Contains(string(file), "\nresolvConf: /run/systemd/resolve/resolv.conf\n") {
		t.Errorf("the node's file lacks its resolver:\n%s", file)
	}
	if strings.Contains(string(shared), "resolv") {
		t.Errorf("the cluster's configuration holds the node's resolver:\n%s", shared)
	}
}

func TestFlags(t *testing.T) {
	for _, c := range []struct {
		name, hostname string
		labels         map[string]string
		want           string
	}{
		{"plain", "kiln-1", nil, `KUBELET_KUBEADM_ARGS=""` + "\n"},
		{"other host name", "localhost", nil, `KUBELET_KUBEADM_ARGS="--hostname-override=kiln-1"` + "\n"},
		{"labels", "kiln-1", map[string]string{
			"zone": "b", "a.example/x": "", "node.kubernetes.io/role": "r", "topology.kubernetes.io/zone": "z",
			"node-role.kubernetes.io/control-plane": "", "x.k8s.io/y": "z",
		}, `KUBELET_KUBEADM_ARGS="--node-labels=a.example/x=,node.kubernetes.io/role=r,topology.kubernetes.io/zone=z,zone=b"` + "\n"},
	} {
		cfg := config()
		cfg.Hostname, cfg.Plan.Node.Labels = c.hostname, c.labels
		got, err := Flags(cfg)
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %s, %v", c.name, got, err)
		}
	}
	for role, want := range map[bootplan.Role]string{bootplan.RoleInit: "--node-ip=10.0.2.15", bootplan.RoleJoinControlPlane: "--node-ip=10.0.2.15", bootplan.RoleJoinWorker: ""} {
		cfg := config()
		cfg.Plan.Role, cfg.Plan.Cluster.VirtualIP = role, "10.0.2.100"
		if got, err := Flags(cfg); err != nil || string(got) != `KUBELET_KUBEADM_ARGS="`+want+"\"\n" {
			t.Errorf("virtual IP, role %s: %s, %v", role, got, err)
		}
	}
	cfg := config()
	cfg.Plan.Node.Taints = []bootplan.Taint{{Key: "a", Effect: "NoSchedule"}, {Key: "b.example/c", Value: "d", Effect: "NoExecute"}}
	for role, want := range map[bootplan.Role]string{
		bootplan.RoleJoinWorker:       `KUBELET_KUBEADM_ARGS="--register-with-taints=a=:NoSchedule,b.example/c=d:NoExecute"` + "\n",
		bootplan.RoleJoinControlPlane: `KUBELET_KUBEADM_ARGS=""` + "\n",
	} {
		cfg.Plan.Role = role
		if got, err := Flags(cfg); err != nil || string(got) != want {
			t.Errorf("taints of a %s: %s, %v", role, got, err)
		}
	}
	cfg = config()
	cfg.Plan.Node.Labels = map[string]string{`a" --x="`: "b"}
	if got, err := Flags(cfg); err == nil {
		t.Errorf("a label that is none got through: %s", got)
	}
}

func TestSplitLabels(t *testing.T) {
	own, admin := SplitLabels(map[string]string{
		"zone": "b", "kubernetes.io/arch": "amd64", "node-role.kubernetes.io/worker": "",
		"node-restriction.kubernetes.io/x": "y", "kubernetes.io/other": "", "notkubernetes.io/x": "",
	})
	if want := map[string]string{"zone": "b", "kubernetes.io/arch": "amd64", "notkubernetes.io/x": ""}; !reflect.DeepEqual(own, want) {
		t.Errorf("the kubelet's: %v", own)
	}
	if want := map[string]string{"node-role.kubernetes.io/worker": "", "node-restriction.kubernetes.io/x": "y", "kubernetes.io/other": ""}; !reflect.DeepEqual(admin, want) {
		t.Errorf("the administrator's: %v", admin)
	}
}
