package cluster

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kiln-os/kiln/internal/secret"
)

const adminConf = `apiVersion: v1
kind: Config
clusters:
- name: demo
  cluster:
    server: https://192.168.76.10:6443
    certificate-authority-data: Y2E=
contexts:
- name: kubernetes-admin@demo
  context: {cluster: demo, user: kubernetes-admin}
current-context: kubernetes-admin@demo
users:
- name: kubernetes-admin
  user: {client-certificate-data: Y2VydA==, client-key-data: a2V5}
`

func TestKubeconfig(t *testing.T) {
	kc, err := Kubeconfig(secret.FromString(adminConf), 40123)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := clientcmd.RESTConfigFromKubeConfig(kc.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Host != "https://127.0.0.1:40123" || cfg.ServerName != "kubernetes" || string(cfg.CAData) != "ca" || string(cfg.KeyData) != "key" || cfg.Insecure {
		t.Errorf("host %s, server name %s, CA %q", cfg.Host, cfg.ServerName, cfg.CAData)
	}
	for _, bad := range []string{"", "{]", "apiVersion: v1\nkind: Config\n"} {
		if _, err := Kubeconfig(secret.FromString(bad), 1); err == nil || !strings.Contains(err.Error(), "admin.conf") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func node(ready corev1.ConditionStatus) corev1.Node {
	n := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready, Message: "cni plugin not initialized"}}
	return n
}

func pod(phase corev1.PodPhase, ready corev1.ConditionStatus) corev1.Pod {
	p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "p"}}
	p.Status.Phase = phase
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}
	return p
}

func TestPending(t *testing.T) {
	waiting := pod(corev1.PodPending, corev1.ConditionFalse)
	waiting.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImageNeverPull", Message: "not\npresent"}}}}
	crashed := pod(corev1.PodFailed, corev1.ConditionFalse)
	crashed.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 3, Reason: "Error"}}}}
	unscheduled := pod(corev1.PodPending, corev1.ConditionFalse)
	unscheduled.Status.Conditions = append(unscheduled.Status.Conditions, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "0/1 nodes are available"})
	ready := func(pods ...corev1.Pod) State {
		return State{Nodes: []corev1.Node{node(corev1.ConditionTrue)}, Pods: pods}
	}
	ok := pod(corev1.PodRunning, corev1.ConditionTrue)
	unseen := ready(ok)
	unseen.Deployments = []appsv1.Deployment{{ObjectMeta: metav1.ObjectMeta{Name: "d", Generation: 1}}}
	nowhere := ready(ok)
	nowhere.DaemonSets = []appsv1.DaemonSet{{ObjectMeta: metav1.ObjectMeta{Name: "ds"}}}

	others := ready(ok)
	others.DaemonSets = []appsv1.DaemonSet{{ObjectMeta: metav1.ObjectMeta{Name: "others"}}}
	others.DaemonSets[0].Spec.Template.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
			{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "kiln-os.dev/pod-network", Operator: corev1.NodeSelectorOpDoesNotExist}}},
		}},
	}}
	labelled := others
	labelled.Nodes = []corev1.Node{node(corev1.ConditionTrue)}
	labelled.Nodes[0].Labels = map[string]string{"kiln-os.dev/pod-network": "flannel"}
	selected := ready(ok)
	selected.DaemonSets = []appsv1.DaemonSet{{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}}}
	selected.DaemonSets[0].Spec.Template.Spec.NodeSelector = map[string]string{"gpu": "yes"}

	for _, tc := range []struct {
		name  string
		s     State
		nodes []string
		want  string
	}{
		{"ready", ready(ok), []string{"n1"}, ""},
		{"a finished pod is no trouble", ready(ok, pod(corev1.PodSucceeded, corev1.ConditionFalse)), nil, ""},
		{"nothing", State{}, nil, "no node is registered; there are no pods"},
		{"missing node", ready(ok), []string{"n1", "n2"}, "node n2: not registered"},
		{"not ready", State{Nodes: []corev1.Node{node(corev1.ConditionFalse)}, Pods: []corev1.Pod{ok}}, nil, "node n1: cni plugin not initialized"},
		{"silent node", State{Nodes: []corev1.Node{{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}}, Pods: []corev1.Pod{ok}}, nil, "node n1: the kubelet has not reported yet"},
		{"waiting", ready(waiting), nil, "pod kube-system/p: Pending: c: ErrImageNeverPull not present"},
		{"crashed", ready(crashed), nil, "pod kube-system/p: Failed: c ended with code 3 Error"},
		{"unscheduled", ready(unscheduled), nil, "pod kube-system/p: Pending: 0/1 nodes are available"},
		{"probe", ready(pod(corev1.PodRunning, corev1.ConditionFalse)), nil, "pod kube-system/p: running, not ready"},
		{"deployment its controller has not seen", unseen, nil, "deployment /d: 0 of 1 available"},
		{"daemon set without pods", nowhere, nil, "daemon set /ds: 0 of 0 ready"},
		{"daemon set for this node", others, nil, "daemon set /others: 0 of 0 ready"},
		{"daemon set for other nodes", labelled, nil, ""},
		{"daemon set for selected nodes", selected, nil, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := strings.Join(tc.s.Pending(tc.nodes...), "; "); got != tc.want {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
		})
	}
	if table := ready(ok).Table(); !strings.Contains(table, "kube-system") || !strings.Contains(table, "n1") {
		t.Errorf("table:\n%s", table)
	}
}

func TestNotReported(t *testing.T) {
	on := func(node, container string) corev1.Pod {
		p := pod(corev1.PodRunning, corev1.ConditionTrue)
		p.Name, p.Spec.NodeName = "on-"+node, node
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{ContainerID: container, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
		return p
	}
	before := State{Pods: []corev1.Pod{on("n1", "a"), on("n2", "b")}}
	for _, tc := range []struct {
		name string
		now  State
		want string
	}{
		{"nothing has reported", before, "pod kube-system/on-n1: no report since the boot"},
		{"a new container", State{Pods: []corev1.Pod{on("n1", "c"), on("n2", "b")}}, ""},
		{"other nodes keep theirs", State{Pods: []corev1.Pod{on("n2", "b")}}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := strings.Join(tc.now.notReported("n1", before), "; "); got != tc.want {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
		})
	}
}

// sshServer is a real SSH server that accepts one key and runs three commands.
func sshServer(t *testing.T, authorized string, hostKey func() ssh.Signer) int {
	t.Helper()
	want, _, _, _, err := ssh.ParseAuthorizedKey([]byte(authorized))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	serve := func(c net.Conn) {
		defer c.Close()
		cfg := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if !bytes.Equal(key.Marshal(), want.Marshal()) {
				return nil, errors.New("unknown key")
			}
			return nil, nil
		}}
		cfg.AddHostKey(hostKey())
		_, chans, reqs, err := ssh.NewServerConn(c, cfg)
		if err != nil {
			return
		}
		go ssh.DiscardRequests(reqs)
		for nc := range chans {
			ch, reqs, err := nc.Accept()
			if err != nil {
				return
			}
			for r := range reqs {
				if r.Type != "exec" {
					_ = r.Reply(false, nil)
					continue
				}
				_ = r.Reply(true, nil)
				code := uint32(0)
				switch cmd := string(r.Payload[4:]); cmd {
				case "hang":
					select {}
				case "fail":
					_, _ = io.WriteString(ch.Stderr(), "no such thing\n")
					code = 7
				default:
					fmt.Fprintf(ch, "ran %s\n", cmd)
				}
				_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{code}))
				_ = ch.Close()
			}
		}
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

func newHostKey(t *testing.T) ssh.Signer {
	t.Helper()
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSSH(t *testing.T) {
	key, err := NewKey("kiln test")
	if err != nil {
		t.Fatal(err)
	}
	if parsed, err := ssh.ParsePrivateKey(key.Private.Reveal()); err != nil || !strings.HasPrefix(key.Authorized, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(parsed.PublicKey())))) {
		t.Errorf("private and public key differ: %v", err)
	}
	host := newHostKey(t)
	var current atomic.Pointer[ssh.Signer]
	current.Store(&host)
	s := &SSH{Port: sshServer(t, key.Authorized, func() ssh.Signer { return *current.Load() }), User: "root", Key: key}
	if err := s.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out, err := s.Run(t.Context(), "uptime"); out != "ran uptime\n" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	_, err = s.Run(t.Context(), "fail")
	var remote *RemoteError
	if !errors.As(err, &remote) || remote.Code != 7 || remote.Output != "no such thing" {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("too slow"))
	defer cancel()
	if _, err := s.Run(ctx, "hang"); err == nil || !strings.Contains(err.Error(), "too slow") {
		t.Errorf("got %v", err)
	}
	impostor := newHostKey(t)
	current.Store(&impostor)
	if _, err := s.Run(t.Context(), "uptime"); err == nil || !strings.Contains(err.Error(), "host key has changed") {
		t.Errorf("got %v", err)
	}
	current.Store(&host)
	other, err := NewKey("other")
	if err != nil {
		t.Fatal(err)
	}
	stranger := &SSH{Port: s.Port, User: "root", Key: other}
	if _, err := stranger.Run(t.Context(), "uptime"); err == nil || errors.As(err, &remote) {
		t.Errorf("a stranger's key: %v", err)
	}
}
