//go:build integration

package apitest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"os"
	"reflect"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/cluster-bootstrap/token/jws"
	kubeproxyv1alpha1 "k8s.io/kube-proxy/config/v1alpha1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/internal/kubeadmconfig"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/phases/addonflannel"
)

const (
	tokens = "Group system:bootstrappers:kubeadm:default-node-token"
	nodes  = "Group system:nodes"
)

// bindings are kubeadm's.
var bindings = []struct{ namespace, name, role, subjects string }{
	{"", "kubeadm:cluster-admins", "ClusterRole cluster-admin", "Group kubeadm:cluster-admins"},
	{"", "kubeadm:get-nodes", "ClusterRole kubeadm:get-nodes", tokens},
	{"", "kubeadm:kubelet-bootstrap", "ClusterRole system:node-bootstrapper", tokens},
	{"", "kubeadm:node-autoapprove-bootstrap", "ClusterRole system:certificates.k8s.io:certificatesigningrequests:nodeclient", tokens},
	{"", "kubeadm:node-autoapprove-certificate-rotation", "ClusterRole system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", nodes},
	{"", "kubeadm:apiserver-kubelet-client", "ClusterRole system:kubelet-api-admin", "User kube-apiserver-kubelet-client"},
	{"", "kubeadm:node-proxier", "ClusterRole system:node-proxier", "ServiceAccount kube-system/kube-proxy"},
	{"", "system:coredns", "ClusterRole system:coredns", "ServiceAccount kube-system/coredns"},
	{"", "flannel", "ClusterRole flannel", "ServiceAccount kube-flannel/flannel"},
	{"kube-public", "kubeadm:bootstrap-signer-clusterinfo", "Role kubeadm:bootstrap-signer-clusterinfo", "User system:anonymous"},
	{"kube-system", "kubeadm:nodes-kubeadm-config", "Role kubeadm:nodes-kubeadm-config", tokens + "; " + nodes},
	{"kube-system", "kubeadm:kubelet-config", "Role kubeadm:kubelet-config", tokens + "; " + nodes},
	{"kube-system", "kube-proxy", "Role kube-proxy", tokens},
}

// roles are the rules, as verbs, API groups, resources and names.
var roles = []struct{ namespace, name, rules string }{
	{"", "kubeadm:get-nodes", "get [] nodes []"},
	{"", "system:coredns", "list,watch [] endpoints,services,pods,namespaces []; list,watch [discovery.k8s.io] endpointslices []"},
	{"kube-public", "kubeadm:bootstrap-signer-clusterinfo", "get [] configmaps [cluster-info]"},
	{"kube-system", "kubeadm:nodes-kubeadm-config", "get [] configmaps [kubeadm-config]"},
	{"kube-system", "kubeadm:kubelet-config", "get [] configmaps [kubelet-config]"},
	{"kube-system", "kube-proxy", "get [] configmaps [kube-proxy]"},
}

func checkRBAC(t *testing.T, client kubernetes.Interface) {
	ctx := t.Context()
	for _, want := range bindings {
		var ref rbacv1.RoleRef
		var subjects []rbacv1.Subject
		if want.namespace == "" {
			b, err := client.RbacV1().ClusterRoleBindings().Get(ctx, want.name, metav1.GetOptions{})
			if err != nil {
				t.Error(err)
				continue
			}
			ref, subjects = b.RoleRef, b.Subjects
		} else {
			b, err := client.RbacV1().RoleBindings(want.namespace).Get(ctx, want.name, metav1.GetOptions{})
			if err != nil {
				t.Error(err)
				continue
			}
			ref, subjects = b.RoleRef, b.Subjects
		}
		var list []string
		for _, s := range subjects {
			list = append(list, s.Kind+" "+strings.TrimPrefix(s.Namespace+"/"+s.Name, "/"))
		}
		sort.Strings(list)
		if got := ref.Kind + " " + ref.Name; got != want.role || strings.Join(list, "; ") != want.subjects {
			t.Errorf("%s/%s binds %s to %v", want.namespace, want.name, got, list)
		}
	}
	for _, want := range roles {
		var rules []rbacv1.PolicyRule
		if want.namespace == "" {
			r, err := client.RbacV1().ClusterRoles().Get(ctx, want.name, metav1.GetOptions{})
			if err != nil {
				t.Error(err)
				continue
			}
			rules = r.Rules
		} else {
			r, err := client.RbacV1().Roles(want.namespace).Get(ctx, want.name, metav1.GetOptions{})
			if err != nil {
				t.Error(err)
				continue
			}
			rules = r.Rules
		}
		var list []string
		for _, r := range rules {
			join := func(s []string) string { return strings.Join(s, ",") }
			list = append(list, join(r.Verbs)+" ["+join(r.APIGroups)+"] "+join(r.Resources)+" ["+join(r.ResourceNames)+"]")
		}
		if got := strings.Join(list, "; "); got != want.rules {
			t.Errorf("%s/%s allows %s", want.namespace, want.name, got)
		}
	}
}

func configMap(t *testing.T, client kubernetes.Interface, namespace, name string) *corev1.ConfigMap {
	t.Helper()
	cm, err := client.CoreV1().ConfigMaps(namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return cm
}

func checkKubeadmConfig(t *testing.T, c *Cluster, client kubernetes.Interface) {
	cm := configMap(t, client, "kube-system", "kubeadm-config")
	cfg := kubeadmconfig.ForCluster(c.Config)
	want, err := kubeadmconfig.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(cm.Data, map[string]string{"ClusterConfiguration": string(want)}) || len(cm.Annotations) != 0 {
		t.Errorf("kubeadm-config: %v %v", cm.Annotations, cm.Data)
	}
}

func checkKubeletConfig(t *testing.T, client kubernetes.Interface) {
	cm := configMap(t, client, "kube-system", "kubelet-config")
	var kc kubeletv1beta1.KubeletConfiguration
	if err := yaml.UnmarshalStrict([]byte(cm.Data["kubelet"]), &kc); err != nil {
		t.Fatal(err)
	}
	if len(cm.Data) != 1 || kc.ClusterDomain != "cluster.local" || !slices.Equal(kc.ClusterDNS, []string{"10.96.0.10"}) || kc.ResolverConfig != nil || kc.ContainerRuntimeEndpoint != "" {
		t.Errorf("kubelet-config:\n%s", cm.Data["kubelet"])
	}
	checkSigned(t, cm)
}

func checkSigned(t *testing.T, cm *corev1.ConfigMap) {
	t.Helper()
	again := cm.DeepCopy()
	kubeapi.SignConfigMap(again)
	if got := cm.Annotations[kubeapi.ConfigHashAnnotation]; got == "" || got != again.Annotations[kubeapi.ConfigHashAnnotation] {
		t.Errorf("%s: hash %q", cm.Name, got)
	}
}

func checkAddons(t *testing.T, c *Cluster, client kubernetes.Interface) {
	ctx := t.Context()
	cm := configMap(t, client, "kube-system", "kube-proxy")
	checkSigned(t, cm)
	var pc kubeproxyv1alpha1.KubeProxyConfiguration
	if err := yaml.UnmarshalStrict([]byte(cm.Data["config.conf"]), &pc); err != nil {
		t.Fatal(err)
	}
	kc, err := clientcmd.Load([]byte(cm.Data["kubeconfig.conf"]))
	if err != nil {
		t.Fatal(err)
	}
	if pc.Mode != "iptables" || pc.ClusterCIDR != "10.244.0.0/16" || kc.Clusters["default"].Server != "https://API.example.org:6443" {
		t.Errorf("kube-proxy: %v", cm.Data)
	}
	s, err := client.CoreV1().Services("kube-system").Get(ctx, "kube-dns", metav1.GetOptions{})
	if err != nil || s.Spec.ClusterIP != "10.96.0.10" {
		t.Errorf("kube-dns: %v, %v", s.Spec.ClusterIP, err)
	}
	ns, err := client.CoreV1().Namespaces().Get(ctx, "kube-flannel", metav1.GetOptions{})
	if err != nil || ns.Labels["pod-security.kubernetes.io/enforce"] != "privileged" {
		t.Errorf("kube-flannel: %v, %v", ns.Labels, err)
	}
	if err := addonflannel.Prepare(ctx, c.Config, c.Paths, c.Report); err != nil {
		t.Error(err)
	}
	if data, err := os.ReadFile(c.Paths.At("/etc/cni/net.d/10-flannel.conflist")); err != nil || string(data) != configMap(t, client, "kube-flannel", "kube-flannel-cfg").Data["cni-conf.json"] {
		t.Errorf("the node's CNI configuration: %s, %v", data, err)
	}
	// The controllers accept the objects: they make pods of them.
	eventually(t, time.Minute, "pods of the add-ons", func() (bool, error) {
		n := 0
		for _, ns := range []string{"kube-system", "kube-flannel"} {
			l, err := client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
			if err != nil {
				return false, err
			}
			n += len(l.Items)
		}
		return n == 4, nil
	})
}

// checkDiscovery does what a joining machine does first: it reads cluster-info
// without credentials and checks its signature with the token.
func checkDiscovery(t *testing.T, c *Cluster, admin kubernetes.Interface) {
	ctx, token := t.Context(), c.Config.Plan.Tokens[0]
	s, err := admin.CoreV1().Secrets("kube-system").Get(ctx, "bootstrap-token-"+token.ID, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]string{
		"token-id": token.ID, "token-secret": token.Secret.RevealString(), "expiration": token.Expires.UTC().Format(time.RFC3339),
		"usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true",
		"auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
	} {
		if string(s.Data[k]) != want {
			t.Errorf("the token's %s is not as it should be", k)
		}
	}
	if s.Type != "bootstrap.kubernetes.io/token" {
		t.Errorf("the token's Secret has type %s", s.Type)
	}
	anonymous := clientAs(t, c, "")
	var cm *corev1.ConfigMap
	eventually(t, time.Minute, "the signature of cluster-info", func() (bool, error) {
		cm, err = anonymous.CoreV1().ConfigMaps("kube-public").Get(ctx, "cluster-info", metav1.GetOptions{})
		return err == nil && cm.Data["jws-kubeconfig-"+token.ID] != "", err
	})
	want, err := jws.ComputeDetachedSignature(cm.Data["kubeconfig"], token.ID, token.Secret.RevealString())
	if err != nil || cm.Data["jws-kubeconfig-"+token.ID] != want {
		t.Errorf("signature %q, want %q, %v", cm.Data["jws-kubeconfig-"+token.ID], want, err)
	}
	kc, err := clientcmd.Load([]byte(cm.Data["kubeconfig"]))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(c.Paths.PKI("ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	cluster := kc.Clusters[""]
	if len(kc.Clusters) != 1 || len(kc.AuthInfos)+len(kc.Contexts) != 0 || cluster == nil || cluster.Server != "https://API.example.org:6443" || string(cluster.CertificateAuthorityData) != string(ca) {
		t.Errorf("cluster-info:\n%s", cm.Data["kubeconfig"])
	}
	if _, err := anonymous.CoreV1().ConfigMaps("kube-system").Get(ctx, "kubeadm-config", metav1.GetOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("without credentials kubeadm-config gives %v", err)
	}
}

// clientAs returns a client with a bearer token; "" means no credentials.
func clientAs(t *testing.T, c *Cluster, token string) kubernetes.Interface {
	t.Helper()
	rc := &rest.Config{
		Host: "https://" + c.Config.LocalAPIEndpoint(), BearerToken: token,
		TLSClientConfig: rest.TLSClientConfig{CAFile: c.Paths.PKI("ca.crt")},
	}
	client, err := kubernetes.NewForConfig(rc)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// checkTLSBootstrap does what kubeadm join and a new kubelet do with the token:
// read the configuration, look for the node, and get a certificate.
func checkTLSBootstrap(t *testing.T, c *Cluster) {
	ctx, token := t.Context(), c.Config.Plan.Tokens[0]
	client := clientAs(t, c, token.ID+"."+token.Secret.RevealString())
	r, err := client.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if u := r.Status.UserInfo; u.Username != "system:bootstrap:"+token.ID || !slices.Contains(u.Groups, kubeapi.NodeTokenGroup) {
		t.Errorf("the token is %s in %v", u.Username, u.Groups)
	}
	for _, name := range []string{"kubeadm-config", "kubelet-config", "kube-proxy"} {
		configMap(t, client, "kube-system", name)
	}
	if _, err := client.CoreV1().Nodes().Get(ctx, "worker1", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("a node that does not exist gives %v", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "system:node:worker1", Organization: []string{"system:nodes"}},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	csrs := client.CertificatesV1().CertificateSigningRequests()
	csr, err := csrs.Create(ctx, &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "node-csr-"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request}),
			SignerName: certificatesv1.KubeAPIServerClientKubeletSignerName,
			Usages:     []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the certificate of worker1", func() (bool, error) {
		csr, err = csrs.Get(context.WithoutCancel(ctx), csr.Name, metav1.GetOptions{})
		return err == nil && len(csr.Status.Certificate) > 0, err
	})
}
