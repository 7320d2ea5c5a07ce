//go:build integration

package apitest

import (
	"context"
	"reflect"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// owned are the objects that must exist after a first boot, with the phase that
// makes each. TOKEN stands for the id of the plan's token.
var owned = []struct{ phase, resource, namespace, name string }{
	{"wait-control-plane", "clusterrolebindings", "", "kubeadm:cluster-admins"},
	{"upload-config", "configmaps", "kube-system", "kubeadm-config"},
	{"upload-config", "roles", "kube-system", "kubeadm:nodes-kubeadm-config"},
	{"upload-config", "rolebindings", "kube-system", "kubeadm:nodes-kubeadm-config"},
	{"upload-config", "configmaps", "kube-system", "kubelet-config"},
	{"upload-config", "roles", "kube-system", "kubeadm:kubelet-config"},
	{"upload-config", "rolebindings", "kube-system", "kubeadm:kubelet-config"},
	{"bootstrap-token", "secrets", "kube-system", "bootstrap-token-TOKEN"},
	{"bootstrap-token", "clusterroles", "", "kubeadm:get-nodes"},
	{"bootstrap-token", "clusterrolebindings", "", "kubeadm:get-nodes"},
	{"bootstrap-token", "clusterrolebindings", "", "kubeadm:kubelet-bootstrap"},
	{"bootstrap-token", "clusterrolebindings", "", "kubeadm:node-autoapprove-bootstrap"},
	{"bootstrap-token", "clusterrolebindings", "", "kubeadm:node-autoapprove-certificate-rotation"},
	{"bootstrap-token", "clusterrolebindings", "", "kubeadm:apiserver-kubelet-client"},
	{"bootstrap-token", "configmaps", "kube-public", "cluster-info"},
	{"bootstrap-token", "roles", "kube-public", "kubeadm:bootstrap-signer-clusterinfo"},
	{"bootstrap-token", "rolebindings", "kube-public", "kubeadm:bootstrap-signer-clusterinfo"},
	{"addon-coredns", "configmaps", "kube-system", "coredns"},
	{"addon-coredns", "clusterroles", "", "system:coredns"},
	{"addon-coredns", "clusterrolebindings", "", "system:coredns"},
	{"addon-coredns", "serviceaccounts", "kube-system", "coredns"},
	{"addon-coredns", "deployments", "kube-system", "coredns"},
	{"addon-coredns", "services", "kube-system", "kube-dns"},
	{"addon-kube-proxy", "configmaps", "kube-system", "kube-proxy"},
	{"addon-kube-proxy", "daemonsets", "kube-system", "kube-proxy"},
	{"addon-kube-proxy", "serviceaccounts", "kube-system", "kube-proxy"},
	{"addon-kube-proxy", "clusterrolebindings", "", "kubeadm:node-proxier"},
	{"addon-kube-proxy", "roles", "kube-system", "kube-proxy"},
	{"addon-kube-proxy", "rolebindings", "kube-system", "kube-proxy"},
	{"addon-flannel", "clusterroles", "", "flannel"},
	{"addon-flannel", "clusterrolebindings", "", "flannel"},
	{"addon-flannel", "serviceaccounts", "kube-flannel", "flannel"},
	{"addon-flannel", "configmaps", "kube-flannel", "kube-flannel-cfg"},
	{"addon-flannel", "daemonsets", "kube-flannel", "kube-flannel-ds"},
	{"addon-flannel", "daemonsets", "kube-flannel", "kube-flannel-install"},
}

// objects reads, deletes and compares the owned objects with the rights of
// super-admin.conf, which no object can take away.
type objects struct {
	client dynamic.Interface
	token  string
}

func newObjects(t *testing.T, c *Cluster) objects {
	t.Helper()
	client, err := dynamic.NewForConfig(superAdmin(t, c))
	if err != nil {
		t.Fatal(err)
	}
	return objects{client, c.Config.Plan.Tokens[0].ID}
}

func superAdmin(t *testing.T, c *Cluster) *rest.Config {
	t.Helper()
	rc, err := clientcmd.BuildConfigFromFlags("", c.Paths.Kubeconfig("super-admin.conf"))
	if err != nil {
		t.Fatal(err)
	}
	rc.QPS, rc.Host = 100, "https://"+c.Config.LocalAPIEndpoint()
	return rc
}

func (o objects) resource(i int) (dynamic.ResourceInterface, string) {
	w := owned[i]
	gvr := schema.GroupVersionResource{Version: "v1", Resource: w.resource}
	switch w.resource {
	case "roles", "rolebindings", "clusterroles", "clusterrolebindings":
		gvr.Group = "rbac.authorization.k8s.io"
	case "deployments", "daemonsets":
		gvr.Group = "apps"
	}
	name := strings.ReplaceAll(w.name, "TOKEN", o.token)
	if w.namespace == "" {
		return o.client.Resource(gvr), name
	}
	return o.client.Resource(gvr).Namespace(w.namespace), name
}

// get returns what somebody wrote into the object, without what the API server
// and controllers add over time.
func (o objects) get(ctx context.Context, t *testing.T, i int) map[string]any {
	t.Helper()
	r, name := o.resource(i)
	u, err := r.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		t.Errorf("phase %s: %v", owned[i].phase, err)
		return nil
	}
	for _, f := range []string{"resourceVersion", "uid", "creationTimestamp", "generation", "managedFields"} {
		unstructured.RemoveNestedField(u.Object, "metadata", f)
	}
	unstructured.RemoveNestedField(u.Object, "metadata", "annotations", "deprecated.daemonset.template.generation")
	unstructured.RemoveNestedField(u.Object, "metadata", "annotations", "deployment.kubernetes.io/revision")
	if a, _, _ := unstructured.NestedMap(u.Object, "metadata", "annotations"); len(a) == 0 {
		unstructured.RemoveNestedField(u.Object, "metadata", "annotations")
	}
	delete(u.Object, "status")
	if name == "cluster-info" { // the controller manager's signatures
		data, _, _ := unstructured.NestedMap(u.Object, "data")
		for k := range data {
			if strings.HasPrefix(k, "jws-") {
				unstructured.RemoveNestedField(u.Object, "data", k)
			}
		}
	}
	return u.Object
}

func (o objects) all(ctx context.Context, t *testing.T) []map[string]any {
	t.Helper()
	out := make([]map[string]any, len(owned))
	for i := range owned {
		out[i] = o.get(ctx, t, i)
	}
	return out
}

// same compares the cluster's objects with those of an earlier all.
func (o objects) same(ctx context.Context, t *testing.T, want []map[string]any, when string) {
	t.Helper()
	for i, got := range o.all(ctx, t) {
		if !reflect.DeepEqual(got, want[i]) {
			t.Errorf("%s, %s %s is\n%v\nwant\n%v", when, owned[i].resource, owned[i].name, got, want[i])
		}
	}
}

// delete removes an object and waits until it is gone.
func (o objects) delete(ctx context.Context, t *testing.T, i int) {
	t.Helper()
	r, name := o.resource(i)
	background := metav1.DeletePropagationBackground
	if err := r.Delete(ctx, name, metav1.DeleteOptions{PropagationPolicy: &background}); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, name+" to be deleted", func() (bool, error) {
		_, err := r.Get(ctx, name, metav1.GetOptions{})
		return apierrors.IsNotFound(err), err
	})
}

// eventually polls until ok.
func eventually(t *testing.T, bound time.Duration, what string, ok func() (bool, error)) {
	t.Helper()
	deadline := time.Now().Add(bound)
	for {
		done, err := ok()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s: %v", bound, what, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}
