//go:build boot

package qemutests

import (
	"bytes"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/kiln-os/kiln/internal/qemu/cluster"
	"github.com/kiln-os/kiln/internal/spec"
)

func TestClusterFileIsValid(t *testing.T) {
	key, err := cluster.NewKey("kiln-boot-test")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := words("qemu-amd64", "")
	w["Key"] = key.Authorized
	if err := clusterFile.Execute(&b, w); err != nil {
		t.Fatal(err)
	}
	_, mistakes := spec.Parse("cluster.yaml", b.Bytes(), spec.Known{Profiles: []string{"qemu-amd64"}, Versions: []string{spec.DefaultKubernetesVersion}})
	if len(mistakes) != 0 {
		t.Errorf("%v\n%s", mistakes, b.String())
	}
}

func TestTimeline(t *testing.T) {
	l := newTimeline()
	n := l.addAnalyze("Startup finished in 5.021s (firmware) + 892ms (loader) + 4.1s (kernel) + 13.002s (initrd) + 1min 2.345s (userspace) = 1min 25.360s \nmulti-user.target reached after 1min 1.9s in userspace.")
	if n != 5 || len(l.rows) != 5 || l.rows[1].took != 892*time.Millisecond || l.rows[4].took != 62345*time.Millisecond {
		t.Errorf("%d: %+v", n, l.rows)
	}
	if s := l.String(); !strings.Contains(s, "systemd: userspace") || !strings.Contains(s, "62.3 s") {
		t.Error(s)
	}
}

func TestLists(t *testing.T) {
	rules := []rbacv1.PolicyRule{
		{Verbs: []string{"watch", "list"}, APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}},
		{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{"kube-proxy"}},
	}
	if got := ruleList(rules); got != "get configmaps/kube-proxy; list,watch endpointslices.discovery.k8s.io" {
		t.Error(got)
	}
	if got := subjectList([]rbacv1.Subject{{Kind: "User", Name: "u"}, {Kind: "ServiceAccount", Namespace: "n", Name: "s"}}); got != "ServiceAccount n/s; User u" {
		t.Error(got)
	}
	for ref, want := range map[string]string{
		"registry.k8s.io/kube-proxy:v1.37.2": "v1.37.2", "localhost:5000/x": "", "registry.k8s.io/etcd:3.7.0-0": "3.7.0-0",
	} {
		if got := imageTag(ref); got != want {
			t.Errorf("%s: %q", ref, got)
		}
	}
	for tag, ok := range map[string]bool{"3.7.0-0": true, "v1.37.2": true, "latest": false, "1.2": false} {
		if semver.MatchString(tag) != ok {
			t.Errorf("%s: want %v", tag, ok)
		}
	}
}
