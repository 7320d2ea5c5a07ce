//go:build integration

package apitest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/certificate/csr"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/joinconfig"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/kubeletconfig"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/internal/staticpod"
	"github.com/kiln-os/kiln/pki"
)

// joining returns a machine that has the boot plan to join c, and nothing else but, if
// it is to be a control plane, the cluster's keys.
func joining(t *testing.T, c *Cluster, name string, role bootplan.Role) *Cluster {
	t.Helper()
	n := &Cluster{Paths: host.Paths{Root: t.TempDir()}, Report: c.Report, etcd: c.etcd, kubernetes: c.kubernetes, secrets: c.secrets}
	n.Config = c.Config
	p := &n.Config.Plan
	n.Config.NodeName, n.Config.Hostname, n.Config.AdvertiseAddress = name, name, netip.MustParseAddr(randomLoopback(t))
	p.Role, p.Node = role, bootplan.Node{Name: name}
	ca, err := os.ReadFile(c.Paths.PKI("ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pin, err := pki.CAPin(ca)
	if err != nil {
		t.Fatal(err)
	}
	p.Discovery = &bootplan.Discovery{Endpoint: c.Config.LocalAPIEndpoint(), CACertHashes: []string{pin}}
	p.Timeouts.Discovery, p.Timeouts.TLSBootstrap, p.Timeouts.EtcdCall = p.Timeouts.NodeReady, p.Timeouts.NodeReady, p.Timeouts.NodeReady
	if role == bootplan.RoleJoinControlPlane {
		n.installAuthority(t)
	}
	return n
}

// joined is the node's configuration as firstboot has it once it asked the cluster.
func (c *Cluster) joined(t *testing.T) nodeconfig.Config {
	t.Helper()
	cfg, err := joinconfig.Load(c.Config, c.Paths)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// within returns c's configuration with another bound for everything that a joining
// node waits for.
func within(cfg nodeconfig.Config, d time.Duration) nodeconfig.Config {
	t := &cfg.Plan.Timeouts
	t.Discovery, t.TLSBootstrap, t.EtcdCall, t.NodeReady = bootplan.Duration(d), bootplan.Duration(d), bootplan.Duration(d), bootplan.Duration(d)
	return cfg
}

// apiOf returns an API with a kubeconfig of the node and the server that it names.
func apiOf(t *testing.T, c *Cluster, path string, r phase.Report) *kubeapi.API {
	t.Helper()
	api, err := kubeapi.LoadShared(c.Config, path, r)
	if err != nil {
		t.Fatal(err)
	}
	return api
}

// recorder is a report whose text a test can look at. When text says stop, cancel is
// called: as if the machine's power went at that moment.
type recorder struct {
	mu     sync.Mutex
	text   bytes.Buffer
	stop   string
	cancel context.CancelFunc
}

func (r *recorder) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text.Write(b)
	if r.stop != "" && strings.Contains(string(b), r.stop) {
		r.cancel()
	}
	return len(b), nil
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

func (r *recorder) report(t *testing.T) phase.Report {
	return phase.NewPrinter(io.MultiWriter(r, logWriter{t}))
}

// wants fails the test unless err says all of the texts and none of the node's tokens.
func wants(t *testing.T, c *Cluster, err error, texts ...string) {
	t.Helper()
	for _, want := range texts {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
	for _, token := range c.Config.Plan.Tokens {
		if err != nil && strings.Contains(err.Error(), token.Secret.RevealString()) {
			t.Error("the error holds the token")
		}
	}
}

// kubelet stands for a node's kubelet and for the systemd that starts it. It asks for
// its certificate with client-go's code, which the kubelet uses, registers the Node,
// and runs static pods as processes.
type kubelet struct {
	t    *testing.T
	node *Cluster

	mu      sync.Mutex
	running bool
	cancel  context.CancelFunc
	done    chan struct{}
}

func newKubelet(t *testing.T, node *Cluster) *kubelet {
	k := &kubelet{t: t, node: node}
	t.Cleanup(func() { k.stop() })
	return k
}

func (k *kubelet) Reload(context.Context) error { return nil }

func (k *kubelet) Active(context.Context, string) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.running, nil
}
func (k *kubelet) Enabled(context.Context, string) (string, error) { return "enabled", nil }

func (k *kubelet) Stop(context.Context, string) error {
	k.stop()
	return nil
}

func (k *kubelet) stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.running {
		k.cancel()
		<-k.done
		k.running = false
	}
}

func (k *kubelet) Restart(context.Context, string) error {
	k.stop()
	k.mu.Lock()
	defer k.mu.Unlock()
	ctx, cancel := context.WithCancel(k.t.Context())
	k.cancel, k.done, k.running = cancel, make(chan struct{}), true
	k.node.StartKubelet()
	go func() {
		defer close(k.done)
		var wg sync.WaitGroup
		wg.Go(func() { k.runPods(ctx) })
		wg.Go(func() { k.serve(ctx) })
		wg.Wait()
	}()
	return nil
}

// runPods runs the manifests in the node's folder, again when one changes.
func (k *kubelet) runPods(ctx context.Context) {
	type pod struct {
		process
		manifest string
		started  time.Time
	}
	pods := map[string]pod{}
	for ctx.Err() == nil {
		there := map[string]string{}
		files, _ := filepath.Glob(filepath.Join(k.node.Paths.Manifests(), "[a-z]*.yaml"))
		for _, f := range files {
			if data, err := os.ReadFile(f); err == nil {
				there[f] = string(data)
			}
		}
		for f, p := range pods {
			if there[f] != p.manifest {
				p.stop()
				delete(pods, f)
				continue
			}
			select {
			case <-p.done: // it ended by itself, and is started again after a while
				if time.Since(p.started) > 2*time.Second {
					delete(pods, f)
				}
			default:
			}
		}
		for f, manifest := range there {
			if _, ok := pods[f]; !ok {
				name := strings.TrimSuffix(filepath.Base(f), ".yaml")
				pods[f] = pod{start(k.t, name+" of "+k.node.Config.NodeName, k.node.argv(k.t, name)), manifest, time.Now()}
			}
		}
		sleep(ctx, 200*time.Millisecond)
	}
	for _, p := range pods {
		p.stop()
	}
}

// argv is the command line of a static pod on the node's own address, below the
// node's folder. The controller manager and the scheduler are on 127.0.0.1, where
// firstboot looks for them.
func (c *Cluster) argv(t *testing.T, name string) []string {
	command := Manifests(t, filepath.Join(c.Paths.Manifests(), name+".yaml"))["Pod "+name].(*corev1.Pod).Spec.Containers[0].Command
	var flags []string
	for _, a := range command[1:] {
		if !strings.HasPrefix(a, "--bind-address=") {
			a = c.local(a)
		}
		flags = append(flags, a)
	}
	switch name {
	case staticpod.Etcd:
		return append([]string{c.etcd}, flags...)
	case staticpod.APIServer:
		flags = append(flags, "--bind-address="+c.Config.AdvertiseAddress.String(), "--endpoint-reconciler-type=none")
	}
	return append([]string{c.kubernetes, name}, flags...)
}

// serve gets the kubelet's certificate, registers its Node and reports it Ready.
func (k *kubelet) serve(ctx context.Context) {
	for ctx.Err() == nil {
		err := k.bootstrap(ctx)
		if err == nil {
			err = k.beNode(ctx)
		}
		if err != nil && ctx.Err() == nil {
			k.t.Logf("kubelet of %s: %v", k.node.Config.NodeName, err)
			sleep(ctx, time.Second)
		}
	}
}

const currentPEM = "/var/lib/kubelet/pki/kubelet-client-current.pem"

// bootstrap makes kubelet.conf if it is not there.
func (k *kubelet) bootstrap(ctx context.Context) error {
	paths := k.node.Paths
	if _, err := os.Stat(paths.Kubeconfig("kubelet.conf")); err == nil {
		return nil
	}
	rc, err := clientcmd.BuildConfigFromFlags("", paths.Kubeconfig("bootstrap-kubelet.conf"))
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(rc)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "system:node:" + k.node.Config.NodeName, Organization: []string{"system:nodes"}},
	}, key)
	if err != nil {
		return err
	}
	name, uid, err := csr.RequestCertificate(client, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), "",
		certificatesv1.KubeAPIServerClientKubeletSignerName, nil, []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth}, key)
	if err != nil {
		return err
	}
	cert, err := csr.WaitForCertificate(ctx, client, name, uid)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	both := append(cert, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})...)
	if err := os.MkdirAll(filepath.Dir(paths.At(currentPEM)), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(paths.At(currentPEM), both, 0o600); err != nil {
		return err
	}
	kc := clientcmdapi.NewConfig()
	kc.Clusters["default-cluster"] = &clientcmdapi.Cluster{Server: rc.Host, CertificateAuthorityData: rc.CAData}
	kc.AuthInfos["default-auth"] = &clientcmdapi.AuthInfo{ClientCertificate: currentPEM, ClientKey: currentPEM}
	kc.Contexts["default-context"] = &clientcmdapi.Context{Cluster: "default-cluster", AuthInfo: "default-auth"}
	kc.CurrentContext = "default-context"
	return clientcmd.WriteToFile(*kc, paths.Kubeconfig("kubelet.conf"))
}

// beNode registers the Node, reports it Ready, and runs what is placed on it.
func (k *kubelet) beNode(ctx context.Context) error {
	client, err := k.client()
	if err != nil {
		return err
	}
	name := k.node.Config.NodeName
	labels := kubeletconfig.Labels(k.node.Config)
	labels[corev1.LabelHostname], labels[corev1.LabelOSStable] = name, "linux"
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	if _, err := client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	status := []byte(`{"status":{"allocatable":{"cpu":"4","memory":"4Gi","pods":"110"},"capacity":{"cpu":"4","memory":"4Gi","pods":"110"},"conditions":[{"type":"Ready","status":"True","reason":"KubeletReady","message":"kubelet is posting ready status"}]}}`)
	if node, err = client.CoreV1().Nodes().Patch(ctx, name, "application/strategic-merge-patch+json", status, metav1.PatchOptions{}, "status"); err != nil {
		return err
	}
	for ctx.Err() == nil {
		if err := k.mirror(ctx, client, node); err != nil {
			return err
		}
		for _, ns := range []string{metav1.NamespaceSystem, "kube-flannel"} {
			pods, err := client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + name})
			if err != nil {
				return err
			}
			for _, p := range pods.Items {
				if p.Status.Phase == corev1.PodRunning {
					continue
				}
				p.Status.Phase = corev1.PodRunning
				p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue})
				if _, err := client.CoreV1().Pods(ns).UpdateStatus(ctx, &p, metav1.UpdateOptions{}); err != nil {
					return err
				}
			}
		}
		sleep(ctx, 500*time.Millisecond)
	}
	return nil
}

// mirror shows the node's static pods in the API.
func (k *kubelet) mirror(ctx context.Context, client kubernetes.Interface, node *corev1.Node) error {
	yes := true
	for _, name := range []string{staticpod.Etcd, staticpod.APIServer, staticpod.ControllerManager, staticpod.Scheduler} {
		path := filepath.Join(k.node.Paths.Manifests(), name+".yaml")
		if _, err := os.Stat(path); err != nil {
			continue
		}
		p := Manifests(k.t, path)["Pod "+name].(*corev1.Pod).DeepCopy()
		mirror := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: metav1.NamespaceSystem, Name: name + "-" + node.Name, Labels: p.Labels, Annotations: map[string]string{corev1.MirrorPodAnnotationKey: "hash"},
				OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID, Controller: &yes}},
			},
			Spec: corev1.PodSpec{NodeName: node.Name, HostNetwork: true, Containers: []corev1.Container{{Name: name, Image: name}}},
		}
		for key, v := range p.Annotations {
			mirror.Annotations[key] = v
		}
		if _, err := client.CoreV1().Pods(mirror.Namespace).Create(ctx, mirror, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	return nil
}

// client is one with kubelet.conf, whose certificate is below the node's folder.
func (k *kubelet) client() (kubernetes.Interface, error) {
	kc, err := clientcmd.LoadFromFile(k.node.Paths.Kubeconfig("kubelet.conf"))
	if err != nil {
		return nil, err
	}
	for _, a := range kc.AuthInfos {
		if a.ClientCertificate != "" {
			a.ClientCertificate, a.ClientKey = k.node.Paths.At(a.ClientCertificate), k.node.Paths.At(a.ClientKey)
		}
	}
	rc, err := clientcmd.NewDefaultClientConfig(*kc, nil).ClientConfig()
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(rc)
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// file reads a file of the node.
func file(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// gone fails the test if the file exists.
func gone(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Error(fmt.Errorf("%s is still there: %w", path, err))
	}
}
