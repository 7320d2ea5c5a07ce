//go:build boot

package qemutests

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	bootstrapapi "k8s.io/cluster-bootstrap/token/api"
	"k8s.io/cluster-bootstrap/token/jws"
	kubeproxyv1alpha1 "k8s.io/kube-proxy/config/v1alpha1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"
)

const kubeSystem = metav1.NamespaceSystem

// semver is what kubeadm accepts as a component's image tag.
var semver = regexp.MustCompile(`^v?\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$`)

// checkKubeadm checks what kubeadm's join, token, certs and upgrade commands
// read from a cluster (cmd/kubeadm/app/util/config/cluster.go and its callers).
func checkKubeadm(t *testing.T, n *node) {
	ctx := n.within(t, 5*time.Minute)
	version, err := n.client.Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	admin, err := clientcmd.Load(n.adminConf.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	adminCluster := admin.Clusters[admin.Contexts[admin.CurrentContext].Cluster]

	t.Run("kubeadm-config", func(t *testing.T) {
		var c clusterConfiguration
		strict(t, configMap(ctx, t, n, kubeSystem, "kubeadm-config").Data["ClusterConfiguration"], &c)
		for _, f := range []struct{ what, got, want string }{
			{"apiVersion", c.APIVersion, "kubeadm.k8s.io/v1beta4"},
			{"kind", c.Kind, "ClusterConfiguration"},
			{"kubernetesVersion", c.KubernetesVersion, version.GitVersion},
			{"certificatesDir", c.CertificatesDir, "/etc/kubernetes/pki"},
			{"imageRepository", c.ImageRepository, "registry.k8s.io"},
			{"networking.dnsDomain", c.Networking.DNSDomain, dnsDomain},
			{"networking.serviceSubnet", c.Networking.ServiceSubnet, "10.96.0.0/12"},
			{"clusterName", c.ClusterName, admin.Contexts[admin.CurrentContext].Cluster},
		} {
			if f.got != f.want {
				t.Errorf("%s is %q, want %q", f.what, f.got, f.want)
			}
		}
		if c.Etcd.Local == nil || c.Etcd.Local.DataDir != "/var/lib/etcd" || c.Etcd.External != nil {
			t.Errorf("etcd: %+v", c.Etcd)
		}
		if _, err := netip.ParsePrefix(c.Networking.PodSubnet); err != nil {
			t.Errorf("networking.podSubnet: %v", err)
		}
	})

	t.Run("kubelet-config", func(t *testing.T) {
		cm := configMap(ctx, t, n, kubeSystem, "kubelet-config")
		var c kubeletv1beta1.KubeletConfiguration
		strict(t, cm.Data["kubelet"], &c)
		checkHash(t, cm)
		if c.StaticPodPath != "/etc/kubernetes/manifests" || c.ClusterDomain != dnsDomain || !slices.Equal(c.ClusterDNS, []string{"10.96.0.10"}) || !c.RotateCertificates {
			t.Errorf("kubelet-config: %s", cm.Data["kubelet"])
		}
		// These two are a node's own and would be wrong on every other node.
		if c.ResolverConfig != nil || c.ContainerRuntimeEndpoint != "" {
			t.Errorf("node-local settings are in the cluster's kubelet-config: resolvConf %v, containerRuntimeEndpoint %q", c.ResolverConfig, c.ContainerRuntimeEndpoint)
		}
	})

	t.Run("kube-proxy", func(t *testing.T) {
		cm := configMap(ctx, t, n, kubeSystem, "kube-proxy")
		var c kubeproxyv1alpha1.KubeProxyConfiguration
		strict(t, cm.Data["config.conf"], &c)
		checkHash(t, cm)
		if c.Mode == "" {
			t.Error("the mode is not set; kube-proxy's default is about to change")
		}
		kc, err := clientcmd.Load([]byte(cm.Data["kubeconfig.conf"]))
		if err != nil {
			t.Fatal(err)
		}
		if s := kc.Clusters["default"]; s == nil || s.Server != adminCluster.Server {
			t.Errorf("kube-proxy's server is %+v, want %s", s, adminCluster.Server)
		}
	})

	t.Run("cluster-info", func(t *testing.T) {
		// As a joining node does it: with no credentials at all.
		anonymous, err := kubernetes.NewForConfig(rest.AnonymousClientConfig(n.rest))
		if err != nil {
			t.Fatal(err)
		}
		cm, err := anonymous.CoreV1().ConfigMaps(metav1.NamespacePublic).Get(ctx, bootstrapapi.ConfigMapClusterInfo, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		content := cm.Data[bootstrapapi.KubeConfigKey]
		kc, err := clientcmd.Load([]byte(content))
		if err != nil {
			t.Fatal(err)
		}
		c := kc.Clusters[""]
		if len(kc.Clusters) != 1 || c == nil || len(kc.AuthInfos) != 0 || len(kc.Contexts) != 0 {
			t.Fatalf("want one unnamed cluster and nothing else: %s", content)
		}
		if c.Server != adminCluster.Server || string(c.CertificateAuthorityData) != string(adminCluster.CertificateAuthorityData) {
			t.Errorf("server %s or its CA differs from admin.conf's (%s)", c.Server, adminCluster.Server)
		}
		tokens := bootstrapTokens(ctx, t, n)
		if len(tokens) == 0 {
			t.Fatal("there is no bootstrap token")
		}
		for _, s := range tokens {
			id, key := string(s.Data[bootstrapapi.BootstrapTokenIDKey]), string(s.Data[bootstrapapi.BootstrapTokenSecretKey])
			if s.Name != bootstrapapi.BootstrapTokenSecretPrefix+id {
				t.Errorf("the Secret of token %s is called %s", id, s.Name)
			}
			for k, want := range map[string]string{
				bootstrapapi.BootstrapTokenUsageAuthentication: "true", bootstrapapi.BootstrapTokenUsageSigningKey: "true",
				bootstrapapi.BootstrapTokenExtraGroupsKey: "system:bootstrappers:kubeadm:default-node-token",
			} {
				if got := string(s.Data[k]); got != want {
					t.Errorf("token %s: %s is %q, want %q", id, k, got, want)
				}
			}
			want, err := jws.ComputeDetachedSignature(content, id, key)
			if err != nil {
				t.Fatal(err)
			}
			if got := cm.Data[bootstrapapi.JWSSignatureKeyPrefix+id]; got != want {
				t.Errorf("the signature of cluster-info for token %s is %q, which does not match", id, got)
			}
		}
		if _, err := anonymous.CoreV1().ConfigMaps(kubeSystem).Get(ctx, "kubeadm-config", metav1.GetOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("without credentials kubeadm-config gives %v, want Forbidden", err)
		}
	})

	t.Run("admin.conf", func(t *testing.T) {
		r, err := n.client.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if u := r.Status.UserInfo; u.Username != "kubernetes-admin" || !slices.Contains(u.Groups, "kubeadm:cluster-admins") || slices.Contains(u.Groups, "system:masters") {
			t.Errorf("admin.conf is %s in %v", u.Username, u.Groups)
		}
		if want := "https://" + net.JoinHostPort(nodeAddr().String(), "6443"); adminCluster.Server != want {
			t.Errorf("its server is %s, want %s", adminCluster.Server, want)
		}
	})

	t.Run("serving certificate", func(t *testing.T) {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(adminCluster.CertificateAuthorityData)
		conn, err := tls.Dial("tcp", strings.TrimPrefix(n.rest.Host, "https://"), &tls.Config{RootCAs: roots, ServerName: "kubernetes"})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		leaf := conn.ConnectionState().PeerCertificates[0]
		if leaf.Subject.CommonName != "kube-apiserver" {
			t.Errorf("its CN is %q", leaf.Subject.CommonName)
		}
		for _, name := range []string{nodeName, "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + dnsDomain, "10.96.0.1", nodeAddr().String()} {
			if err := leaf.VerifyHostname(name); err != nil {
				t.Error(err)
			}
		}
	})

	t.Run("node", func(t *testing.T) {
		obj, err := n.client.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for k, want := range map[string]string{
			"node-role.kubernetes.io/control-plane":                   "",
			"node.kubernetes.io/exclude-from-external-load-balancers": "",
			"example.org/rack": "r1",
		} {
			if got, ok := obj.Labels[k]; !ok || got != want {
				t.Errorf("label %s is %q (%v), want %q", k, got, ok, want)
			}
		}
		if len(obj.Spec.Taints) != 0 {
			t.Errorf("taints %v, want none, as the cluster file says", obj.Spec.Taints)
		}
		if obj.Status.NodeInfo.KubeletVersion != version.GitVersion {
			t.Errorf("kubelet %s, API server %s", obj.Status.NodeInfo.KubeletVersion, version.GitVersion)
		}
		if len(obj.Status.Addresses) == 0 || obj.Status.Addresses[0].Address != nodeAddr().String() {
			t.Errorf("addresses %v", obj.Status.Addresses)
		}
	})

	t.Run("control plane pods", func(t *testing.T) {
		for _, c := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"} {
			pods, err := n.client.CoreV1().Pods(kubeSystem).List(ctx, metav1.ListOptions{LabelSelector: "tier=control-plane,component=" + c})
			if err != nil {
				t.Fatal(err)
			}
			if len(pods.Items) != 1 || pods.Items[0].Spec.NodeName != nodeName || pods.Items[0].Name != c+"-"+nodeName {
				t.Errorf("%s: %d pods", c, len(pods.Items))
				continue
			}
			p := pods.Items[0]
			if c != "etcd" {
				if got := imageTag(p.Spec.Containers[0].Image); got != version.GitVersion {
					t.Errorf("%s: image %s, want tag %s", c, p.Spec.Containers[0].Image, version.GitVersion)
				}
			}
			switch c {
			case "kube-apiserver":
				a := p.Annotations["kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint"]
				if ap, err := netip.ParseAddrPort(a); err != nil || ap != netip.AddrPortFrom(nodeAddr(), 6443) {
					t.Errorf("endpoint annotation %q: %v", a, err)
				}
			case "etcd":
				a := p.Annotations["kubeadm.kubernetes.io/etcd.advertise-client-urls"]
				if want := "https://" + net.JoinHostPort(nodeAddr().String(), "2379"); a != want {
					t.Errorf("client URL annotation %q, want %q", a, want)
				}
				if tag := imageTag(p.Spec.Containers[0].Image); !semver.MatchString(tag) {
					t.Errorf("image %s: its tag is no semantic version", p.Spec.Containers[0].Image)
				}
				if !slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool {
					return v.Name == "etcd-data" && v.HostPath != nil && v.HostPath.Path == "/var/lib/etcd"
				}) {
					t.Errorf("there is no volume etcd-data of /var/lib/etcd: %v", p.Spec.Volumes)
				}
			}
		}
	})

	t.Run("CoreDNS", func(t *testing.T) {
		d, err := n.client.AppsV1().Deployments(kubeSystem).List(ctx, metav1.ListOptions{LabelSelector: "k8s-app=kube-dns"})
		if err != nil {
			t.Fatal(err)
		}
		if len(d.Items) != 1 || d.Items[0].Name != "coredns" {
			t.Fatalf("%d deployments with label k8s-app=kube-dns, want coredns alone", len(d.Items))
		}
		if configMap(ctx, t, n, kubeSystem, "coredns").Data["Corefile"] == "" {
			t.Error("the ConfigMap coredns has no Corefile")
		}
		s, err := n.client.CoreV1().Services(kubeSystem).Get(ctx, "kube-dns", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if s.Spec.ClusterIP != "10.96.0.10" {
			t.Errorf("kube-dns has the address %s", s.Spec.ClusterIP)
		}
	})

	t.Run("images have tags", func(t *testing.T) {
		pods, err := n.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range pods.Items {
			for _, c := range append(slices.Clone(p.Spec.InitContainers), p.Spec.Containers...) {
				if strings.Contains(c.Image, "@") || imageTag(c.Image) == "" {
					t.Errorf("%s/%s: image %s: kubeadm upgrade reads versions from tags", p.Namespace, p.Name, c.Image)
				}
			}
		}
	})
}

func nodeAddr() netip.Addr { return netip.MustParsePrefix(address).Addr() }

// imageTag is what stands behind the colon of the last path element.
func imageTag(ref string) string {
	name := ref[strings.LastIndex(ref, "/")+1:]
	_, tag, _ := strings.Cut(name, ":")
	return tag
}

func configMap(ctx context.Context, t *testing.T, n *node, namespace, name string) *corev1.ConfigMap {
	t.Helper()
	cm, err := n.client.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return cm
}

func bootstrapTokens(ctx context.Context, t *testing.T, n *node) []corev1.Secret {
	t.Helper()
	l, err := n.client.CoreV1().Secrets(kubeSystem).List(ctx, metav1.ListOptions{FieldSelector: "type=" + string(bootstrapapi.SecretTypeBootstrapToken)})
	if err != nil {
		t.Fatal(err)
	}
	return l.Items
}

// strict decodes YAML; a key that the type does not have is an error.
func strict(t *testing.T, doc string, into any) {
	t.Helper()
	if doc == "" {
		t.Fatal("the document is empty or its key is missing")
	}
	if err := yaml.UnmarshalStrict([]byte(doc), into); err != nil {
		t.Fatalf("%v\n%s", err, doc)
	}
}

// checkHash recomputes the annotation by which kubeadm tells what it generated
// from what a user supplied (cmd/kubeadm/app/componentconfigs/checksums.go).
func checkHash(t *testing.T, cm *corev1.ConfigMap) {
	t.Helper()
	keys := make([]string, 0, len(cm.Data))
	for k := range cm.Data {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	h := sha256.New()
	for _, k := range keys {
		fmt.Fprint(h, cm.Data[k])
	}
	const annotation = "kubeadm.kubernetes.io/component-config.hash"
	if got, want := cm.Annotations[annotation], "sha256:"+hex.EncodeToString(h.Sum(nil)); got != want {
		t.Errorf("%s: %s is %q, want %q", cm.Name, annotation, got, want)
	}
}
