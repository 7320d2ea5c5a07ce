//go:build integration

package apitest

import (
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kiln-os/kiln/internal/kubeclient"
	"github.com/kiln-os/kiln/internal/resume"
	"github.com/kiln-os/kiln/internal/staticpod"
)

// TestReleaseLease lets a scheduler lose its power: the next one does not wait until
// the lease of the first has run out.
func TestReleaseLease(t *testing.T) {
	c := New(t, nil)
	c.Start(t, staticpod.Etcd, staticpod.APIServer, staticpod.ControllerManager)
	pod := Manifests(t, c.Paths.Manifests()+"/"+staticpod.Scheduler+".yaml")["Pod "+staticpod.Scheduler].(*corev1.Pod)
	argv := append([]string{c.kubernetes}, pod.Spec.Containers[0].Command...)
	first := start(t, staticpod.Scheduler, argv)
	c.StartKubelet()
	run(t, c, "wait-control-plane")
	// The component's own rights are enough.
	f, err := kubeclient.Read(c.Paths.Kubeconfig("scheduler.conf"))
	if err != nil {
		t.Fatal(err)
	}
	client, err := f.Client()
	if err != nil {
		t.Fatal(err)
	}
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	holder := func() string {
		l, err := client.CoordinationV1().Leases(metav1.NamespaceSystem).Get(t.Context(), staticpod.Scheduler, metav1.GetOptions{})
		if err != nil || l.Spec.HolderIdentity == nil {
			return ""
		}
		return *l.Spec.HolderIdentity
	}
	wait := func(within time.Duration, old string) string {
		t.Helper()
		for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			if h := holder(); h != "" && h != old {
				return h
			}
		}
		t.Fatalf("after %s the lease is held by %q", within, holder())
		return ""
	}
	was := wait(time.Minute, "")
	first.stop()
	if !strings.HasPrefix(was, hostname+"_") {
		t.Fatalf("%s holds the lease, want one of %s", was, hostname)
	}

	if released, err := resume.ReleaseLease(t.Context(), client, staticpod.Scheduler, hostname+"-2"); released || err != nil || holder() != was {
		t.Errorf("of another node: %t, %v", released, err)
	}
	if released, err := resume.ReleaseLease(t.Context(), client, "no-such-component", hostname); released || err != nil {
		t.Errorf("of a component without a lease: %t, %v", released, err)
	}
	released, err := resume.ReleaseLease(t.Context(), client, staticpod.Scheduler, hostname)
	if !released || err != nil {
		t.Fatalf("%t, %v", released, err)
	}
	if h := holder(); h != "" {
		t.Errorf("the lease is still %q's", h)
	}
	if released, err := resume.ReleaseLease(t.Context(), client, staticpod.Scheduler, hostname); released || err != nil {
		t.Errorf("a second time: %t, %v", released, err)
	}
	begin := time.Now()
	start(t, staticpod.Scheduler, argv)
	wait(30*time.Second, was)
	t.Logf("the next scheduler leads after %.1f s", time.Since(begin).Seconds())
}
