//go:build boot

package qemutests

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kiln-os/kiln/internal/qemu/cluster"
)

// inCluster is the kubeconfig of a pod that reaches the API by its DNS name with
// its own service account.
const inCluster = `apiVersion: v1
kind: Config
current-context: pod
contexts:
- name: pod
  context: {cluster: pod, user: pod}
clusters:
- name: pod
  cluster:
    server: https://kubernetes.default.svc
    certificate-authority: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt
users:
- name: pod
  user: {tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token}
`

// checkPodNetwork runs pods that must resolve a Service's name (CoreDNS), reach
// its virtual address (kube-proxy) and, behind it, a pod (the pod network), and
// identify themselves to the API server (service accounts). Reading their logs
// goes through the API server to the kubelet, which needs kubeadm's RBAC for it.
//
// Nothing can be downloaded, so the pods use kubectl out of an image that every
// control plane has.
func checkPodNetwork(t *testing.T, n *node) {
	ctx := n.within(t, 10*time.Minute)
	apiserver, err := n.client.CoreV1().Pods(kubeSystem).Get(ctx, "kube-apiserver-"+nodeName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	image := apiserver.Spec.Containers[0].Image
	ns, err := n.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "kiln-test-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() { // a pod that failed is evidence
			if err := n.client.CoreV1().Namespaces().Delete(n.within(t, time.Minute), ns.Name, metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
		}
	})
	_, err = n.client.CoreV1().ConfigMaps(ns.Name).Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "kubeconfig"}, Data: map[string]string{"config": inCluster},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}

	cases := []struct {
		name string
		args []string
		want string // in the log
	}{
		{
			"metrics-of-coredns",
			[]string{"--server=http://kube-dns.kube-system.svc." + dnsDomain + ":9153", "get", "--raw", "/metrics"},
			"coredns_build_info",
		},
		{
			// A name that only the search list of the pod's resolv.conf completes.
			"api-by-its-name",
			[]string{"--kubeconfig=/config/config", "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"},
			"system:serviceaccount:" + ns.Name + ":default",
		},
		{
			"api-version",
			[]string{"--kubeconfig=/config/config", "get", "--raw", "/version"},
			`"gitVersion": "` + imageTag(image) + `"`,
		},
	}
	// One after the other: three programs that start at once take an emulated machine
	// from its control plane for longer than the liveness probes wait.
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			start := time.Now()
			if err := createPod(ctx, n, kubectlPod(ns.Name, tc.name, image, tc.args)); err != nil {
				t.Fatal(err)
			}
			done, err := waitPod(ctx, n, ns.Name, tc.name)
			if err != nil {
				t.Fatal(err)
			}
			log, err := n.client.CoreV1().Pods(ns.Name).GetLogs(tc.name, &corev1.PodLogOptions{}).DoRaw(ctx)
			if err != nil {
				t.Fatalf("the pod's log cannot be read through the API: %v", err)
			}
			if done.Status.Phase != corev1.PodSucceeded || !strings.Contains(string(log), tc.want) {
				t.Errorf("%s; its log has no %q:\n%s", done.Status.Phase, tc.want, log)
			}
			if done.Status.PodIP == "" || done.Status.PodIP == nodeAddr().String() {
				t.Errorf("the pod's address is %q: it is not on the pod network", done.Status.PodIP)
			}
			t.Logf("%.1f s", time.Since(start).Seconds())
		})
	}
}

// kubectlPod runs kubectl once. It is a plain pod in every respect: no host
// network, no privileges, the cluster's DNS.
func kubectlPod(namespace, name, image string, args []string) *corev1.Pod {
	args = append([]string{"--request-timeout=60s"}, args...)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever,
			Containers: []corev1.Container{{
				Name: "kubectl", Image: image, ImagePullPolicy: corev1.PullNever,
				Command:      []string{"/usr/local/bin/kubectl"},
				Args:         args,
				Env:          []corev1.EnvVar{{Name: "HOME", Value: "/tmp"}},
				VolumeMounts: []corev1.VolumeMount{{Name: "config", MountPath: "/config", ReadOnly: true}, {Name: "tmp", MountPath: "/tmp"}},
			}},
			Volumes: []corev1.Volume{
				{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "kubeconfig"}}}},
				{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			},
		},
	}
}

// createPod creates a pod as soon as the namespace's default service account
// exists, which a controller makes a moment after the namespace.
func createPod(ctx context.Context, n *node, pod *corev1.Pod) error {
	for {
		_, err := n.client.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{})
		if err == nil || !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "serviceaccount") {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w", context.Cause(ctx), err)
		case <-time.After(time.Second):
		}
	}
}

// waitPod waits until the pod has ended, well or not.
func waitPod(ctx context.Context, n *node, namespace, name string) (*corev1.Pod, error) {
	for {
		p, err := n.client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return nil, err
		case err == nil && (p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed):
			return p, nil
		}
		select {
		case <-ctx.Done():
			if err != nil {
				return nil, fmt.Errorf("pod %s: %w: %w", name, context.Cause(ctx), err)
			}
			return nil, fmt.Errorf("pod %s: %w: %s", name, context.Cause(ctx), cluster.PodTrouble(*p))
		case <-time.After(time.Second):
		}
	}
}
