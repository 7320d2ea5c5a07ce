//go:build integration

package apitest

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/cluster-bootstrap/token/jws"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/discoveryfile"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/internal/phases/addonflannel"
	"github.com/kiln-os/kiln/internal/phases/clusterconfig"
	"github.com/kiln-os/kiln/internal/phases/discovery"
	"github.com/kiln-os/kiln/internal/phases/kubeletbootstrap"
	"github.com/kiln-os/kiln/internal/phases/kubeletstart"
	"github.com/kiln-os/kiln/internal/phases/kubeletwait"
	"github.com/kiln-os/kiln/internal/phases/ready"
	"github.com/kiln-os/kiln/internal/render"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/internal/staticpod"
	"github.com/kiln-os/kiln/pki"
)

// moment is a bound after which a wait is taken to be in vain.
const moment = 2 * time.Second

// TestJoinWorker takes a worker from before its cluster exists until it is Ready,
// through everything that can be wrong with the cluster and heals.
func TestJoinWorker(t *testing.T) {
	c := New(t, nil)
	w := joining(t, c, "worker1", bootplan.RoleJoinWorker)
	w.Config.Plan.Node.Taints = []bootplan.Taint{{Key: "example.org/edge", Effect: "NoSchedule"}}
	ctx := t.Context()

	wants(t, w, discovery.Run(ctx, within(w.Config, moment), w.Paths, w.Report),
		"waited 2s for the cluster at "+c.Config.LocalAPIEndpoint()+": the API server cannot be reached", "connection refused")
	gone(t, w.Paths.Join("discovery.conf"))

	// Switched on before its control plane, it waits, says so, and finds it.
	early := &recorder{}
	found := make(chan error, 1)
	go func() { found <- discovery.Run(ctx, within(w.Config, 5*time.Minute), w.Paths, early.report(t)) }()
	c.Start(t, staticpod.Etcd, staticpod.APIServer, staticpod.ControllerManager, staticpod.Scheduler)
	c.StartKubelet()
	run(t, c, "wait-control-plane")
	wants(t, w, discovery.Run(ctx, within(w.Config, moment), w.Paths, w.Report), "does not let this node read cluster-info")
	run(t, c, "upload-config")
	registerNode(t, c)
	run(t, c, "mark-control-plane")
	for _, p := range []string{"bootstrap-token", "addon-coredns", "addon-kube-proxy", "addon-flannel"} {
		run(t, c, p)
	}
	if err := <-found; err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"waiting for the cluster at", "connection refused", "found the cluster at https://" + c.Config.LocalAPIEndpoint()} {
		if !strings.Contains(early.String(), want) {
			t.Errorf("the early worker did not say %q:\n%s", want, early)
		}
	}
	admin := clientOf(t, c, kubeapi.AdminConf)
	t.Run("discovery", func(t *testing.T) { checkRefusals(t, c, w, admin) })
	t.Run("file discovery", func(t *testing.T) { checkFileDiscovery(t, c, w) })

	// The rest, with the token.
	discoveryConf := func() *kubeapi.API { return apiOf(t, w, w.Paths.Join("discovery.conf"), w.Report) }
	newer := within(w.Config, moment)
	newer.Plan.Cluster.KubernetesVersion = "v1.38.0"
	wants(t, w, clusterconfig.Run(ctx, newer, w.Paths, discoveryConf(), w.Report), "the kubelet is v1.38.0, newer than the control plane's v1.37.2")
	if err := clusterconfig.Run(ctx, w.Config, w.Paths, discoveryConf(), w.Report); err != nil {
		t.Fatal(err)
	}
	if got, want := file(t, w.Paths.Join("cluster-configuration.yaml")), configMap(t, admin, "kube-system", "kubeadm-config").Data["ClusterConfiguration"]; got != want {
		t.Errorf("cluster configuration\n%s\nwant\n%s", got, want)
	}
	k := newKubelet(t, w)
	checkTakenName(t, w, k, admin)
	checkJoinedKubelet(t, c, w, k, admin)
}

// checkRefusals: what is wrong with the cluster, or on the way to it, is told apart,
// leaves nothing behind, and heals.
func checkRefusals(t *testing.T, c, w *Cluster, admin kubernetes.Interface) {
	ctx := t.Context()
	again := func(t *testing.T, change func(*bootplan.Plan)) error {
		t.Helper()
		if err := os.RemoveAll(w.Paths.Join()); err != nil {
			t.Fatal(err)
		}
		cfg := within(w.Config, moment)
		d := *cfg.Plan.Discovery
		cfg.Plan.Discovery = &d
		if change != nil {
			change(&cfg.Plan)
		}
		err := discovery.Run(ctx, cfg, w.Paths, w.Report)
		if err != nil {
			gone(t, w.Paths.Join("discovery.conf"))
			if phase.IsPermanent(err) {
				t.Errorf("it would not be tried again: %v", err)
			}
		}
		return err
	}
	heals := func(t *testing.T) {
		t.Helper()
		eventually(t, time.Minute, "discovery to heal", func() (bool, error) { err := again(t, nil); return err == nil, err })
	}
	wrong := "sha256:" + strings.Repeat("0", 64)
	wants(t, w, again(t, func(p *bootplan.Plan) { p.Discovery.CACertHashes = []string{wrong} }),
		"the cluster's CA has the pin "+w.Config.Plan.Discovery.CACertHashes[0]+", this node was made for "+wrong)
	if err := again(t, func(p *bootplan.Plan) {
		p.Discovery.CACertHashes = []string{wrong, strings.ToUpper(p.Discovery.CACertHashes[0][:7]) + p.Discovery.CACertHashes[0][7:]}
	}); err != nil {
		t.Errorf("one of two pins: %v", err)
	}
	wants(t, w, again(t, func(p *bootplan.Plan) {
		p.Tokens = []bootplan.Token{{ID: "nobody", Secret: secret.FromString("0123456789abcdef")}}
	}),
		"cluster-info is not signed with bootstrap token nobody: the token has expired or was deleted, or the control plane has yet to sign")
	wants(t, w, again(t, func(p *bootplan.Plan) {
		p.Tokens = []bootplan.Token{{ID: w.Config.Plan.Tokens[0].ID, Secret: secret.FromString("0123456789abcdef")}}
	}), "cluster-info has a wrong signature for bootstrap token "+w.Config.Plan.Tokens[0].ID)

	t.Run("somebody in between", func(t *testing.T) {
		// Changes cluster-info: the signature does not match.
		m := newMiddle(t, c, func(cm *corev1.ConfigMap) {
			cm.Data["kubeconfig"] = strings.Replace(cm.Data["kubeconfig"], c.Config.LocalAPIEndpoint(), "evil.example.org:6443", 1)
		})
		wants(t, w, again(t, func(p *bootplan.Plan) { p.Discovery.Endpoint = m }), "cluster-info has a wrong signature")
		// Passes it on, and wants the token: it has no certificate of the CA.
		m = newMiddle(t, c, func(*corev1.ConfigMap) {})
		wants(t, w, again(t, func(p *bootplan.Plan) { p.Discovery.Endpoint = m }), "with the cluster's CA: the API server cannot be reached", "unknown authority")
		// Knows the token, and makes a CA of its own.
		row, err := pki.CertificateFor("ca")
		if err != nil {
			t.Fatal(err)
		}
		ca, err := pki.NewCA(row, pki.ECDSAP256, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		token := w.Config.Plan.Tokens[0]
		m = newMiddle(t, c, func(cm *corev1.ConfigMap) {
			kc, err := clientcmd.Load([]byte(cm.Data["kubeconfig"]))
			if err != nil {
				t.Error(err)
				return
			}
			kc.Clusters[""].CertificateAuthorityData = ca.CertPEM
			out, err := clientcmd.Write(*kc)
			if err != nil {
				t.Error(err)
				return
			}
			cm.Data["kubeconfig"] = string(out)
			if cm.Data["jws-kubeconfig-"+token.ID], err = jws.ComputeDetachedSignature(string(out), token.ID, token.Secret.RevealString()); err != nil {
				t.Error(err)
			}
		})
		wants(t, w, again(t, func(p *bootplan.Plan) { p.Discovery.Endpoint = m }), "another cluster, or somebody who poses as this one")
		// Answers without an end.
		m = newMiddle(t, c, func(cm *corev1.ConfigMap) { cm.Data["kubeconfig"] = strings.Repeat("x", 4<<20) })
		if err := again(t, func(p *bootplan.Plan) { p.Discovery.Endpoint = m }); err == nil {
			t.Error("an answer of 4 MiB is read")
		}
		heals(t)
	})
	t.Run("token deleted and created again", func(t *testing.T) {
		secrets, name := admin.CoreV1().Secrets("kube-system"), "bootstrap-token-"+w.Config.Plan.Tokens[0].ID
		token, err := secrets.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := secrets.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, time.Minute, "the signature to disappear", func() (bool, error) {
			return configMap(t, admin, "kube-public", "cluster-info").Data["jws-kubeconfig-"+w.Config.Plan.Tokens[0].ID] == "", nil
		})
		wants(t, w, again(t, nil), "the token has expired or was deleted")
		wants(t, w, again(t, func(p *bootplan.Plan) {
			p.Tokens = []bootplan.Token{p.Tokens[0]}
			p.Tokens[0].Expires = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		}), "expired on 2026-01-02T03:04:05Z")
		// With credentials from before, the API server itself refuses.
		token.ResourceVersion, token.UID = "", ""
		if _, err := secrets.Create(ctx, token, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		heals(t)
		if err := secrets.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, time.Minute, "the API server to refuse the token", func() (bool, error) {
			err := clusterconfig.Run(ctx, within(w.Config, moment), w.Paths, apiOf(t, w, w.Paths.Join("discovery.conf"), w.Report), w.Report)
			return err != nil && strings.Contains(err.Error(), "refuses this node's credentials for joining: the bootstrap token has expired or was deleted"), err
		})
		if _, err := secrets.Create(ctx, token, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		heals(t)
	})
	st, err := os.Stat(w.Paths.Join("discovery.conf"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("discovery.conf: %v, %v", st, err)
	}
	if st, err := os.Stat(w.Paths.Join()); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("its folder: %v, %v", st, err)
	}
}

// newMiddle is a server between the node and the API server, which changes cluster-info.
func newMiddle(t *testing.T, c *Cluster, change func(*corev1.ConfigMap)) (endpoint string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	t.Cleanup(client.CloseIdleConnections)
	s := httptest.NewTLSServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "https://"+c.Config.LocalAPIEndpoint()+r.URL.Path, nil)
		if err != nil {
			t.Error(err)
			return
		}
		req.Header.Set("Accept", "application/json")
		resp, err := client.Do(req)
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Error(err)
			return
		}
		cm := &corev1.ConfigMap{}
		if err := json.Unmarshal(body, cm); err != nil {
			t.Error(err)
			return
		}
		change(cm)
		out.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(out).Encode(cm) // the node may hang up
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// checkFileDiscovery: a kubeconfig instead of a token, with and without credentials.
func checkFileDiscovery(t *testing.T, c, w *Cluster) {
	admin := file(t, c.Paths.Kubeconfig(kubeapi.AdminConf))
	try := func(change func(text string) string, tokens bool) (string, error) {
		n := &Cluster{Config: within(w.Config, moment), Paths: host.Paths{Root: t.TempDir()}, Report: w.Report}
		n.Config.Plan.Discovery = &bootplan.Discovery{Kubeconfig: secret.FromString(change(admin))}
		if !tokens {
			n.Config.Plan.Tokens = nil
		}
		err := discovery.Run(t.Context(), n.Config, n.Paths, n.Report)
		if err != nil {
			return "", err
		}
		return file(t, n.Paths.Join("discovery.conf")), nil
	}
	own, err := try(func(s string) string { return s }, false)
	if err != nil || !strings.Contains(own, "client-key-data") {
		t.Errorf("with its own credentials: %v\n%s", err, own)
	}
	anonymous := func(s string) string {
		kc, err := clientcmd.Load([]byte(s))
		if err != nil {
			t.Fatal(err)
		}
		clear(kc.AuthInfos)
		for _, cx := range kc.Contexts {
			cx.AuthInfo = ""
		}
		out, err := clientcmd.Write(*kc)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	token := w.Config.Plan.Tokens[0]
	if got, err := try(anonymous, true); err != nil || !strings.Contains(got, "token: "+token.ID+"."+token.Secret.RevealString()) || strings.Contains(got, "client-key-data") {
		t.Errorf("with the token: %v\n%s", err, got)
	}
	_, err = try(anonymous, false)
	wants(t, w, err, "it holds no credentials, and the boot plan no bootstrap token")
	if !phase.IsPermanent(err) {
		t.Error("a kubeconfig without credentials is waited for")
	}
	_, err = try(func(string) string { return "hunter2: [" }, true)
	if err == nil || !phase.IsPermanent(err) || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("no kubeconfig: %v", err)
	}
	_, err = try(func(s string) string {
		return strings.Replace(s, c.Config.LocalAPIEndpoint(), "127.0.0.1:1", 1)
	}, true)
	wants(t, w, err, "the API server cannot be reached")
	t.Run("baked in", func(t *testing.T) { checkBakedFile(t, c, w) })
}

// checkBakedFile: the kubeconfig that the cluster publishes, named in a cluster file, is
// in the boot plan that imagegen makes, and a node finds the cluster with that.
func checkBakedFile(t *testing.T, c, w *Cluster) {
	conf := filepath.Join(t.TempDir(), "join.conf")
	write(t, conf, []byte(configMap(t, clientOf(t, c, kubeapi.AdminConf), "kube-public", "cluster-info").Data["kubeconfig"]))
	document := fmt.Sprintf(`apiVersion: kiln-os.dev/v1alpha1
kind: Cluster
name: %s
encryptionAlgorithm: %s
nodes:
- {name: cp1, role: control-plane, profile: qemu-amd64, address: 10.0.2.15/24, gateway: 10.0.2.2}
- {name: worker1, role: worker, profile: qemu-amd64}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
discovery: {file: {kubeConfigPath: %s}}
`, c.Config.Plan.Cluster.Name, c.Config.Plan.Cluster.EncryptionAlgorithm, conf)
	cluster, mistakes := spec.Parse("cluster.yaml", []byte(document), spec.Known{
		Profiles: []string{"qemu-amd64"}, Versions: []string{spec.DefaultKubernetesVersion},
		DiscoveryFile: func(path string) (secret.Value, error) { return discoveryfile.Read(path, time.Now()) },
	})
	if len(mistakes) > 0 {
		t.Fatal(mistakes)
	}
	authority, err := pki.LoadOrCreate(c.secrets, pki.Options{
		Algorithm: cluster.EncryptionAlgorithm, ClusterName: cluster.Name, Endpoint: c.Config.LocalAPIEndpoint(), TokenTTL: time.Hour, Now: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := render.Node(cluster, authority, cluster.Nodes[1])
	if err != nil {
		t.Fatal(err)
	}
	text, err := r.Plan.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	n := &Cluster{Config: w.Config, Paths: host.Paths{Root: t.TempDir()}, Report: w.Report}
	if n.Config.Plan, err = bootplan.Parse(text); err != nil {
		t.Fatal(err)
	}
	if d := n.Config.Plan.Discovery; d == nil || d.Endpoint != "" || d.Kubeconfig.IsZero() {
		t.Fatalf("the plan's discovery is %+v", d)
	}
	if err := discovery.Run(t.Context(), within(n.Config, moment), n.Paths, n.Report); err != nil {
		t.Fatal(err)
	}
	api := apiOf(t, n, n.Paths.Join("discovery.conf"), n.Report)
	if _, err := api.Client.CoreV1().ConfigMaps("kube-system").Get(t.Context(), "kubeadm-config", metav1.GetOptions{}); err != nil {
		t.Errorf("with what it found the node cannot ask for the cluster's configuration: %v", err)
	}
}

// checkTakenName: another machine that is Ready keeps its name, one that is not gives it up.
func checkTakenName(t *testing.T, w *Cluster, k *kubelet, admin kubernetes.Interface) {
	ctx, nodes := t.Context(), admin.CoreV1().Nodes()
	if _, err := nodes.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "worker1"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	status := func(ready string) {
		t.Helper()
		patch := []byte(`{"status":{"conditions":[{"type":"Ready","status":"` + ready + `"}]}}`)
		if _, err := nodes.Patch(ctx, "worker1", "application/strategic-merge-patch+json", patch, metav1.PatchOptions{}, "status"); err != nil {
			t.Fatal(err)
		}
	}
	status("True")
	api := apiOf(t, w, w.Paths.Join("discovery.conf"), w.Report)
	wants(t, w, kubeletbootstrap.Run(ctx, within(w.joined(t), moment), w.Paths, k, api, w.Report),
		"for the name worker1 to be free", "the cluster has a Node worker1 that is Ready: another machine has this name")
	gone(t, w.Paths.Kubeconfig("bootstrap-kubelet.conf"))
	said := &recorder{}
	done := make(chan error, 1)
	go func() { done <- kubeletbootstrap.Run(ctx, w.joined(t), w.Paths, k, api, said.report(t)) }()
	eventually(t, 30*time.Second, "the phase to wait", func() (bool, error) { return strings.Contains(said.String(), "waiting for the name"), nil })
	status("Unknown")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := nodes.Delete(ctx, "worker1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := file(t, w.Paths.PKI("ca.crt")); got == "" {
		t.Error("ca.crt is empty")
	}
	if st, err := os.Stat(w.Paths.Kubeconfig("bootstrap-kubelet.conf")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("bootstrap-kubelet.conf: %v, %v", st, err)
	}
}

// checkJoinedKubelet starts the kubelet and follows it until the node is Ready.
func checkJoinedKubelet(t *testing.T, c, w *Cluster, k *kubelet, admin kubernetes.Interface) {
	ctx, cfg := t.Context(), w.joined(t)
	for _, n := range []struct {
		cfg   nodeconfig.Config
		paths host.Paths
	}{{c.Config, c.Paths}, {cfg, w.Paths}} {
		if err := addonflannel.Prepare(ctx, n.cfg, n.paths, w.Report); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := file(t, w.Paths.At("/etc/cni/net.d/10-flannel.conflist")), file(t, c.Paths.At("/etc/cni/net.d/10-flannel.conflist")); got != want {
		t.Errorf("CNI configuration %s, want %s", got, want)
	}
	api := apiOf(t, w, w.Paths.Join("discovery.conf"), w.Report)
	wants(t, w, kubeletwait.Run(ctx, within(cfg, moment), w.Paths, k, api, w.Report), "for the kubelet's certificate: kubelet.service does not run")
	if err := kubeletstart.Run(ctx, cfg, w.Paths, k, w.Report); err != nil {
		t.Fatal(err)
	}
	if got, want := file(t, w.Paths.Kubelet("kubeadm-flags.env")), "KUBELET_KUBEADM_ARGS=\"--node-labels=kiln-os.dev/pod-network=flannel --register-with-taints=example.org/edge=:NoSchedule\"\n"; got != want {
		t.Errorf("flags %s want %s", got, want)
	}
	var have, want kubeletv1beta1.KubeletConfiguration
	if err := yaml.Unmarshal([]byte(file(t, w.Paths.Kubelet("config.yaml"))), &have); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(configMap(t, admin, "kube-system", "kubelet-config").Data["kubelet"]), &want); err != nil {
		t.Fatal(err)
	}
	want.ContainerRuntimeEndpoint = have.ContainerRuntimeEndpoint
	if a, _ := yaml.Marshal(have); have.ContainerRuntimeEndpoint == "" {
		t.Errorf("config.yaml:\n%s", a)
	} else if b, _ := yaml.Marshal(want); string(a) != string(b) {
		t.Errorf("config.yaml\n%s\nthe cluster's\n%s", a, b)
	}
	for range 2 { // the second finds it done
		if err := kubeletwait.Run(ctx, cfg, w.Paths, k, api, w.Report); err != nil {
			t.Fatal(err)
		}
		gone(t, w.Paths.Kubeconfig("bootstrap-kubelet.conf"))
	}
	// The rights of the node are enough to see that it is Ready.
	conf := w.Paths.At("/kubelet-here.conf")
	write(t, conf, []byte(strings.ReplaceAll(file(t, w.Paths.Kubeconfig("kubelet.conf")), currentPEM, w.Paths.At(currentPEM))))
	if err := ready.Run(ctx, within(cfg, 2*time.Minute), w.Paths, apiOf(t, w, conf, w.Report), w.Report); err != nil {
		t.Fatal(err)
	}
	// Once more from the start, as after a crash, or with a new stamp: the Node that is
	// Ready is this machine's own.
	for _, err := range []error{
		discovery.Run(ctx, w.Config, w.Paths, w.Report),
		clusterconfig.Run(ctx, w.Config, w.Paths, api, w.Report),
		kubeletbootstrap.Run(ctx, w.joined(t), w.Paths, k, api, w.Report),
		kubeletstart.Run(ctx, w.joined(t), w.Paths, k, w.Report),
		kubeletwait.Run(ctx, w.joined(t), w.Paths, k, api, w.Report),
	} {
		if err != nil {
			t.Errorf("again: %v", err)
		}
	}
	gone(t, w.Paths.Kubeconfig("bootstrap-kubelet.conf"))
	// A certificate that is good for nothing is replaced, once the Node's other owner is gone.
	if err := os.WriteFile(w.Paths.At(currentPEM), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.CoreV1().Nodes().Get(ctx, "worker1", metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	k.stop()
	if err := admin.CoreV1().Nodes().Delete(ctx, "worker1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		kubeletbootstrap.Run(ctx, cfg, w.Paths, k, api, w.Report),
		kubeletstart.Run(ctx, cfg, w.Paths, k, w.Report),
		kubeletwait.Run(ctx, cfg, w.Paths, k, api, w.Report),
	} {
		if err != nil {
			t.Fatalf("with a new certificate: %v", err)
		}
	}
}
