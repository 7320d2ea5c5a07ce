package patches

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/kiln-os/kiln/internal/bootplan"
)

// TestNames: kubeadm's table (patches_test.go of its util/patches), and that what
// kubeadm passes over is a mistake.
func TestNames(t *testing.T) {
	for _, tc := range []struct{ name, target, patchType, err string }{
		{"etcd.yaml", "etcd", "strategic", ""},
		{"etcd.json", "etcd", "strategic", ""},
		{"etcd0.yaml", "etcd", "strategic", ""},
		{"kube-apiserver+merge.json", "kube-apiserver", "merge", ""},
		{"kube-apiserver-x+json.yaml", "kube-apiserver", "json", ""},
		{"kubeletconfiguration1+strategic.yaml", "kubeletconfiguration", "strategic", ""},
		{"corednsdeployment+json.json", "corednsdeployment", "json", ""},
		{"kubeproxydaemonset.yaml", "kubeproxydaemonset", "strategic", ""},
		{"etcd", "", "", "the file extension must be one of [json yaml]"},
		{"etcd.yml", "", "", "the file extension must be one of [json yaml]"},
		{".yaml", "", "", "the file extension must be one of"},
		{"coredns.yaml", "", "", "unknown target, must be one of [etcd kube-apiserver kube-controller-manager kube-scheduler kubeletconfiguration corednsdeployment kubeproxydaemonset]"},
		{"etcd+.yaml", "", "", "unknown or missing patch type after '+', must be one of [json merge strategic]"},
		{"etcd+foo.yaml", "", "", "unknown or missing patch type after '+'"},
		{"etcd+jsonx.yaml", "", "", "unknown or missing patch type after '+'"},
	} {
		target, patchType, err := parseName(tc.name)
		if target != tc.target || patchType != tc.patchType || (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%s: %s %s %v", tc.name, target, patchType, err)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, tc := range []struct{ name, data, err string }{
		{"etcd.yaml", "metadata: {annotations: {a: b}}\n---\n# nothing\n---\nspec: {nodeName: x}\n", ""},
		{"etcd.yaml", "- a\n", "a patch of type strategic is a mapping with what is to be changed in etcd"},
		{"etcd+merge.yaml", "text\n", "a patch of type merge is a mapping"},
		{"etcd+json.yaml", "a: b\n", "not a JSON patch, a list of operations"},
		{"etcd+json.yaml", "- {op: add, path: /metadata/x, value: 1}\n", ""},
		{"etcd.yaml", "a: [\n", "yaml"},
		{"etcd.yaml", "a: 1\na: 2\n", "already set"},
		{"foo.yaml", "", "unknown target"},
	} {
		err := Check(bootplan.Patch{File: tc.name, Data: tc.data})
		if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%s %q: %v", tc.name, tc.data, err)
		}
	}
}

func TestReadDir(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("kube-scheduler1.yaml", "metadata: {labels: {a: \"1\"}}")
	put("kube-scheduler0+json.json", `[{"op":"add","path":"/metadata/labels/b","value":"2"}]`)
	put("more/etcd.yaml", "spec: {priority: 1}")
	list, errs := ReadDir(dir)
	if len(errs) > 0 || len(list) != 3 || list[0].File != "kube-scheduler0+json.json" || list[1].File != "kube-scheduler1.yaml" || list[2].File != "etcd.yaml" {
		t.Errorf("%v, %v", list, errs)
	}
	put("README.md", "about")
	put("foo.yaml", "a: b")
	put("etcd9.yaml", "\n")
	if _, errs := ReadDir(dir); len(errs) != 3 || !strings.Contains(errs[0].Error(), "README.md: the file extension") || !strings.Contains(errs[1].Error(), "etcd9.yaml: the file is empty") || !strings.Contains(errs[2].Error(), "foo.yaml: unknown target") {
		t.Error(errs)
	}
	for _, bad := range []string{filepath.Join(dir, "none"), filepath.Join(dir, "foo.yaml")} {
		if _, errs := ReadDir(bad); len(errs) != 1 {
			t.Errorf("%s: %v", bad, errs)
		}
	}
}

func pod() *corev1.Pod {
	p := &corev1.Pod{}
	p.Name, p.Labels = "kube-scheduler", map[string]string{"component": "kube-scheduler"}
	p.Spec.Containers = []corev1.Container{{Name: "kube-scheduler", Image: "i", Command: []string{"kube-scheduler", "--v=1"}}}
	p.Spec.Volumes = []corev1.Volume{{Name: "kubeconfig"}}
	return p
}

// TestApply: the three types, in the order of the list.
func TestApply(t *testing.T) {
	p := pod()
	err := Apply([]bootplan.Patch{
		{File: "kube-scheduler0.yaml", Data: "spec:\n  containers:\n  - name: kube-scheduler\n    resources: {limits: {memory: 1Gi}}\n  volumes: [{name: more}]\n"},
		{File: "kube-scheduler1+json.yaml", Data: "- {op: add, path: /spec/containers/0/command/-, value: --v=9}\n"},
		{File: "kube-scheduler2+merge.yaml", Data: "metadata: {labels: {component: null, x: y}}\n---\nmetadata: {labels: {x: z}}\n"},
		{File: "etcd.yaml", Data: "spec: {priority: 1}"},
	}, "kube-scheduler", p)
	if err != nil {
		t.Fatal(err)
	}
	c := p.Spec.Containers
	if len(c) != 1 || c[0].Image != "i" || c[0].Resources.Limits.Memory().String() != "1Gi" || strings.Join(c[0].Command, " ") != "kube-scheduler --v=1 --v=9" ||
		len(p.Spec.Volumes) != 2 || len(p.Labels) != 1 || p.Labels["x"] != "z" || p.Spec.Priority != nil {
		t.Errorf("%+v", p)
	}
	k := &kubeletv1beta1.KubeletConfiguration{MaxPods: 110}
	if err := Apply([]bootplan.Patch{{File: "kubeletconfiguration.yaml", Data: "maxPods: 50"}}, KubeletConfiguration, k); err != nil || k.MaxPods != 50 {
		t.Errorf("%d, %v", k.MaxPods, err)
	}
}

func TestApplyFails(t *testing.T) {
	for _, tc := range []struct{ file, data, err string }{
		{"kube-scheduler+json.yaml", "- {op: remove, path: /spec/none}", "patch kube-scheduler+json.yaml: could not apply it to kube-scheduler"},
		{"kube-scheduler.yaml", "spec: {containerz: []}", "kube-scheduler with its patches"},
		{"kube-scheduler+merge.yaml", "spec: {containers: many}", "kube-scheduler with its patches"},
		{"kube-scheduler.yaml", "a: [", "patch kube-scheduler.yaml"},
		{"nobody.yaml", "a: b", "unknown target"},
	} {
		p := pod()
		err := Apply([]bootplan.Patch{{File: tc.file, Data: tc.data}}, "kube-scheduler", p)
		if err == nil || !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%s: %v", tc.file, err)
		}
		if len(p.Spec.Containers) != 1 {
			t.Errorf("%s: the pod is changed although the patch failed", tc.file)
		}
	}
	if err := Apply(nil, "kubelet", pod()); err == nil || !strings.Contains(err.Error(), `unknown patch target name "kubelet"`) {
		t.Error(err)
	}
}

func FuzzCheck(f *testing.F) {
	f.Add("etcd.yaml", "spec: {priority: 1}")
	f.Add("kube-apiserver+json.json", `[{"op":"add","path":"/a","value":1}]`)
	f.Fuzz(func(_ *testing.T, name, data string) { _ = Check(bootplan.Patch{File: name, Data: data}) })
}
