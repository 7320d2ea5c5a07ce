package kubeapi

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/pki"
)

var kube = metav1.ObjectMeta{Namespace: "kube-system", Name: "x"}

// failing makes the first requests of a verb fail, one error after the other.
func failing(client *fake.Clientset, verb string, errs ...error) *int {
	n := new(int)
	client.PrependReactor(verb, "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		if *n++; *n <= len(errs) {
			return true, nil, errs[*n-1]
		}
		return false, nil, nil
	})
	return n
}

func newAPI(client *fake.Clientset, bound time.Duration) (*API, *bytes.Buffer) {
	var said bytes.Buffer
	a := New(client, bound, phase.NewPrinter(&said))
	a.interval = time.Millisecond
	return a, &said
}

// TestPatience: what an API server that is just starting says is waited out.
func TestPatience(t *testing.T) {
	gr := schema.GroupResource{Resource: "configmaps"}
	for _, verb := range []string{"get", "create"} {
		client := fake.NewClientset()
		n := failing(client, verb, errors.New("connection refused"), apierrors.NewForbidden(gr, "x", errors.New("no RBAC yet")),
			apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "kube-system"), apierrors.NewServiceUnavailable("starting"),
			apierrors.NewTooManyRequestsError("later"))
		a, said := newAPI(client, time.Minute)
		if err := a.ApplyConfigMap(t.Context(), &corev1.ConfigMap{ObjectMeta: kube}); err != nil {
			t.Errorf("%s: %v", verb, err)
		}
		if *n < 3 || !strings.Contains(said.String(), "waiting for ConfigMap kube-system/x to be accepted (0s of 1m): connection refused") {
			t.Errorf("%s: %d requests, said %q", verb, *n, said)
		}
	}
	client := fake.NewClientset(&corev1.ConfigMap{ObjectMeta: kube})
	failing(client, "update", apierrors.NewConflict(gr, "x", errors.New("modified")))
	a, _ := newAPI(client, time.Minute)
	if err := a.ApplyConfigMap(t.Context(), &corev1.ConfigMap{ObjectMeta: kube, Data: map[string]string{"k": "v"}}); err != nil {
		t.Errorf("conflict: %v", err)
	}
}

func TestBoundAndPermanentErrors(t *testing.T) {
	invalid := apierrors.NewInvalid(schema.GroupKind{Kind: "ConfigMap"}, "x", nil)
	client := fake.NewClientset()
	n := failing(client, "create", invalid, invalid)
	a, _ := newAPI(client, time.Minute)
	if err := a.ApplyConfigMap(t.Context(), &corev1.ConfigMap{ObjectMeta: kube}); !phase.IsPermanent(err) || *n != 1 || !strings.Contains(err.Error(), "ConfigMap kube-system/x") {
		t.Errorf("an invalid object: %v after %d requests", err, *n)
	}

	// The address that an interrupted creation holds is free again after a while.
	taken := apierrors.NewInvalid(schema.GroupKind{Kind: "Service"}, "x", nil)
	client = fake.NewClientset()
	failing(client, "create", taken, taken)
	a, _ = newAPI(client, time.Minute)
	if err := a.ApplyService(t.Context(), &corev1.Service{ObjectMeta: kube, Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.10"}}); err != nil {
		t.Errorf("an address that was taken: %v", err)
	}
	err := a.ApplyService(t.Context(), &corev1.Service{ObjectMeta: kube, Spec: corev1.ServiceSpec{ClusterIP: "10.97.0.10"}})
	if !phase.IsPermanent(err) || !strings.Contains(err.Error(), "has the address 10.96.0.10, want 10.97.0.10") {
		t.Errorf("another address: %v", err)
	}

	client = fake.NewClientset()
	client.PrependReactor("get", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("connection refused")
	})
	a, _ = newAPI(client, 10*time.Millisecond)
	if err := a.ApplyConfigMap(t.Context(), &corev1.ConfigMap{ObjectMeta: kube}); err == nil || phase.IsPermanent(err) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("after the bound: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.ApplyConfigMap(ctx, &corev1.ConfigMap{ObjectMeta: kube}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestForeignKeys: keys of others stay, except in what is signed as a whole.
func TestForeignKeys(t *testing.T) {
	live := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "x", Labels: map[string]string{"theirs": "1"}, Annotations: map[string]string{"theirs": "1"}},
		Data:       map[string]string{"theirs": "1", "ours": "old"},
	}
	for _, signed := range []bool{false, true} {
		client := fake.NewClientset(live.DeepCopy())
		want := &corev1.ConfigMap{ObjectMeta: kube, Data: map[string]string{"ours": "new"}}
		want.Labels = map[string]string{"ours": "1"}
		if signed {
			SignConfigMap(want)
		}
		a, _ := newAPI(client, time.Minute)
		for range 2 {
			if err := a.ApplyConfigMap(t.Context(), want); err != nil {
				t.Fatal(err)
			}
		}
		got, err := client.CoreV1().ConfigMaps("kube-system").Get(t.Context(), "x", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got.Labels["theirs"] != "1" || got.Labels["ours"] != "1" || got.Annotations["theirs"] != "1" {
			t.Errorf("labels %v, annotations %v", got.Labels, got.Annotations)
		}
		if _, kept := got.Data["theirs"]; kept == signed || got.Data["ours"] != "new" {
			t.Errorf("signed %v: data %v", signed, got.Data)
		}
		updates := 0
		for _, action := range client.Actions() {
			if action.GetVerb() == "update" {
				updates++
			}
		}
		if updates != 1 {
			t.Errorf("signed %v: %d updates", signed, updates)
		}
	}
}

func TestLoadSpeaksToTheLocalAPIServer(t *testing.T) {
	cfg := nodeconfig.Config{
		AdvertiseAddress: netip.MustParseAddr("2001:db8::10"),
		Plan:             bootplan.Plan{Cluster: bootplan.Cluster{ControlPlaneEndpoint: "api.example.org"}, Timeouts: bootplan.DefaultTimeouts()},
	}
	paths := host.Paths{Root: t.TempDir()}
	if _, err := Load(cfg, paths, SuperAdminConf, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
	ca, err := pki.NewCA(pki.Certificate{File: "ca", CN: "kubernetes"}, "ECDSA-P256", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	out, err := ca.IssueKubeconfig(pki.Kubeconfigs()[0], "cp1", "kiln", "https://"+cfg.ControlPlaneEndpoint(), "ECDSA-P256", 0, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	path := paths.Kubeconfig(AdminConf)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, out.Reveal(), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HTTPS_PROXY", "http://proxy.example.org:3128")
	if rc, err := restConfig(path, ""); err != nil || rc.Host != "https://api.example.org:6443" {
		t.Errorf("with its own server: %v", err)
	}
	rc, err := restConfig(path, "https://"+cfg.LocalAPIEndpoint())
	if err != nil {
		t.Fatal(err)
	}
	if rc.Host != "https://[2001:db8::10]:6443" || len(rc.CertData) == 0 {
		t.Errorf("host %s, certificate of %d bytes", rc.Host, len(rc.CertData))
	}
	if proxy, err := rc.Proxy(nil); proxy != nil || err != nil {
		t.Errorf("proxy %v, %v", proxy, err)
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, out.Reveal()) {
		t.Errorf("the file was changed: %v", err)
	}
	if err := os.WriteFile(path, []byte("users: [{name: x, user: {token: dG9wc2VjcmV0"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(cfg, paths, AdminConf, nil); err == nil || strings.Contains(err.Error(), "dG9w") {
		t.Errorf("a damaged file: %v", err)
	}
}

func TestSubjectsAsTheServerStoresThem(t *testing.T) {
	got := withGroups(BindClusterRole("a", "b", Group("g"), User("u"), ServiceAccount("n", "s")).Subjects)
	for i, want := range []string{"rbac.authorization.k8s.io", "rbac.authorization.k8s.io", ""} {
		if got[i].APIGroup != want {
			t.Errorf("%s: API group %q", got[i].Name, got[i].APIGroup)
		}
	}
}

// TestReader: a dry run's client sends what reads, and refuses everything else itself.
func TestReader(t *testing.T) {
	var sent []string
	r := reader{roundTripper(func(req *http.Request) (*http.Response, error) {
		sent = append(sent, req.Method)
		return &http.Response{StatusCode: http.StatusOK}, nil
	})}
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		req, err := http.NewRequestWithContext(t.Context(), method, "https://192.0.2.1:6443/api/v1/nodes", nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.RoundTrip(req)
		if (err == nil) != (method == http.MethodGet) {
			t.Errorf("%s: %v", method, err)
		}
		if err != nil && err.Error() != "a dry run does not send "+method+" /api/v1/nodes" {
			t.Error(err)
		}
	}
	if len(sent) != 1 {
		t.Errorf("sent %v", sent)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
