//go:build integration

package apitest

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/kubeapi"
)

// TestJoinDryRun rehearses joins with the real program against a real cluster: it says
// what would be done, and neither the node nor the cluster nor etcd is another one.
func TestJoinDryRun(t *testing.T) {
	addr := randomLoopback(t)
	c := NewAt(t, addr, func(p *bootplan.Plan) {
		p.Cluster.ControlPlaneEndpoint = addr
		p.Timeouts.ControlPlane, p.Timeouts.KubernetesCall = bootplan.Duration(5*time.Minute), bootplan.Duration(5*time.Minute)
	})
	if err := newKubelet(t, c).Restart(t.Context(), "kubelet.service"); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"wait-control-plane", "upload-config", "mark-control-plane", "bootstrap-token"} {
		run(t, c, p)
	}
	admin, etcd, program := clientOf(t, c, kubeapi.AdminConf), etcdClient(t, c), firstboot(t)
	// A rehearsal does not wait for long, and the controller manager has just begun.
	eventually(t, time.Minute, "the signature of cluster-info", func() (bool, error) {
		return configMap(t, admin, "kube-public", "cluster-info").Data["jws-kubeconfig-"+c.Config.Plan.Tokens[0].ID] != "", nil
	})
	// What the controllers of a new cluster make by themselves is there before the first look.
	eventually(t, time.Minute, "the controller manager's kube-root-ca.crt in kube-system", func() (bool, error) {
		_, err := admin.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(t.Context(), "kube-root-ca.crt", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		return err == nil, err
	})
	for _, tc := range []struct {
		name   string
		role   bootplan.Role
		change func(*bootplan.Plan)
		says   []string // with ADDR for the node's address
		fails  string
	}{
		{name: "worker", role: bootplan.RoleJoinWorker, says: []string{
			"[ 3/9] discovery: found the cluster at https://" + c.Config.LocalAPIEndpoint(),
			"[ 4/9] cluster-config: would write /var/lib/kiln/join/cluster-configuration.yaml (0644, ",
			"[ 5/9] kubelet-bootstrap: would write /etc/kubernetes/bootstrap-kubelet.conf (0600, ",
			"[ 5/9] kubelet-bootstrap: would write /etc/kubernetes/pki/ca.crt (0644, ",
			"[ 7/9] kubelet-start: would write /var/lib/kubelet/config.yaml (0644, ",
			"would start kubelet.service",
			"the kubelet would create a CertificateSigningRequest for system:node:worker, and the Node worker",
		}},
		{name: "control-plane", role: bootplan.RoleJoinControlPlane, says: []string{
			"certs: would write /etc/kubernetes/pki/apiserver.crt (0644, ",
			"kubeconfig: would write /etc/kubernetes/admin.conf (0600, ",
			"etcd-join: would add https://ADDR:2380 to etcd's 1 member(s), and give it a vote once it has the data",
			"etcd-join: would write /etc/kubernetes/manifests/etcd.yaml (0600, ",
			"control-plane: would write /etc/kubernetes/manifests/kube-apiserver.yaml (0600, ",
			"mark-control-plane: would update the Node control-plane",
		}},
		{name: "newer", role: bootplan.RoleJoinWorker, change: func(p *bootplan.Plan) { p.Cluster.KubernetesVersion = "v1.38.0" },
			says:  []string{"kubelet-bootstrap: not rehearsed: it needs what the cluster did not answer", "kubelet-start: would write"},
			fails: "the first boot would wait here: phase cluster-config: waited 12s for the cluster's configuration: the kubelet is v1.38.0, newer than the control plane's v1.37.2"},
		{name: "stranger", role: bootplan.RoleJoinWorker, change: func(p *bootplan.Plan) {
			p.Discovery.CACertHashes = []string{"sha256:" + strings.Repeat("0", 64)}
		}, fails: "the first boot would wait here: phase discovery: waited 12s for the cluster at " + c.Config.LocalAPIEndpoint() + ": the cluster's CA has the pin"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := joining(t, c, tc.name, tc.role)
			plan := n.Config.Plan
			plan.Node.AdvertiseAddress = n.Config.AdvertiseAddress.String()
			if tc.change != nil {
				tc.change(&plan)
			}
			text, err := plan.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			write(t, n.Paths.BootPlan(), text)
			node, objects, members := files(t, n.Paths.Root), everything(t, admin), membersOf(t, etcd)

			tmp := t.TempDir()
			cmd := exec.Command(program, "run", "--dry-run", "--root", n.Paths.Root)
			cmd.Env = []string{"TMPDIR=" + tmp, "PATH=" + os.Getenv("PATH")}
			out, err := cmd.CombinedOutput()
			said := string(out)
			if (err != nil) != (tc.fails != "") || !strings.Contains(said, tc.fails) {
				t.Errorf("%v; want %q\n%s", err, tc.fails, said)
			}
			for _, want := range tc.says {
				if want = strings.ReplaceAll(want, "ADDR", plan.Node.AdvertiseAddress); !strings.Contains(said, want) {
					t.Errorf("it does not say %q:\n%s", want, said)
				}
			}
			if got := files(t, n.Paths.Root); !slices.Equal(got, node) {
				t.Errorf("the node was\n%s\nand is\n%s", strings.Join(node, "\n"), strings.Join(got, "\n"))
			}
			if got := everything(t, admin); !slices.Equal(got, objects) {
				t.Errorf("the cluster had\n%s\nand has\n%s", strings.Join(objects, "\n"), strings.Join(got, "\n"))
			}
			if got := membersOf(t, etcd); !slices.Equal(got, members) {
				t.Errorf("etcd had the members %v and has %v", members, got)
			}
			checkRehearsed(t, tmp, plan)
			if strings.Contains(said, plan.Tokens[0].Secret.RevealString()) {
				t.Error("the token is in the output")
			}
		})
	}
}

// checkRehearsed looks at what a dry run left in a folder: manifests that can be read,
// and nothing that the cluster would let anybody in with.
func checkRehearsed(t *testing.T, dir string, plan bootplan.Plan) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, s := range []string{plan.Tokens[0].Secret.RevealString(), "PRIVATE KEY", "client-key-data: LS0t"} {
			if strings.Contains(string(data), s) {
				t.Errorf("%s holds a secret", path)
			}
		}
		if want := "=https://" + plan.Node.AdvertiseAddress + ":2380"; d.Name() == "etcd.yaml" && (!strings.Contains(string(data), "--initial-cluster=cp1=https://") || !strings.Contains(string(data), want)) {
			t.Errorf("%s does not have both members:\n%s", path, data)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// files describes a folder: paths, modes, sizes and times.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		i, err := d.Info()
		if err != nil {
			return err
		}
		out = append(out, strings.Join([]string{path, i.Mode().String(), i.ModTime().String()}, " "))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// everything describes the objects that joining nodes make or change.
func everything(t *testing.T, client kubernetes.Interface) []string {
	t.Helper()
	var out []string
	note := func(kind string, o metav1.Object, version string) {
		out = append(out, strings.Join([]string{kind, o.GetNamespace(), o.GetName(), version}, " "))
	}
	ctx, all := t.Context(), metav1.ListOptions{}
	nodes, err := client.CoreV1().Nodes().List(ctx, all)
	if err != nil {
		t.Fatal(err)
	}
	for i := range nodes.Items {
		note("Node", &nodes.Items[i], "") // the kubelet and controllers change it
	}
	requests, err := client.CertificatesV1().CertificateSigningRequests().List(ctx, all)
	if err != nil {
		t.Fatal(err)
	}
	for i := range requests.Items {
		note("CertificateSigningRequest", &requests.Items[i], requests.Items[i].ResourceVersion)
	}
	maps, err := client.CoreV1().ConfigMaps(metav1.NamespaceSystem).List(ctx, all)
	if err != nil {
		t.Fatal(err)
	}
	for i := range maps.Items {
		note("ConfigMap", &maps.Items[i], maps.Items[i].ResourceVersion)
	}
	secrets, err := client.CoreV1().Secrets(metav1.NamespaceSystem).List(ctx, all)
	if err != nil {
		t.Fatal(err)
	}
	for i := range secrets.Items {
		note("Secret", &secrets.Items[i], secrets.Items[i].ResourceVersion)
	}
	slices.Sort(out)
	return out
}
