// Package patches is kubeadm's patches folder (cmd/kubeadm/app/util/patches of
// kubeadm 1.37): files whose names say what they change and how,
// target[suffix][+patchtype].extension. imagegen reads and checks the folder,
// firstboot applies the files to what it writes.
package patches

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/internal/bootplan"
)

// The targets that are no static pods; those have the names of their components.
const (
	KubeletConfiguration = "kubeletconfiguration"
	CoreDNSDeployment    = "corednsdeployment"
	KubeProxyDaemonSet   = "kubeproxydaemonset"
)

// object is an empty object of each target, which says how lists of it are merged.
var object = map[string]any{
	"etcd":                    corev1.Pod{},
	"kube-apiserver":          corev1.Pod{},
	"kube-controller-manager": corev1.Pod{},
	"kube-scheduler":          corev1.Pod{},
	KubeletConfiguration:      kubeletv1beta1.KubeletConfiguration{},
	CoreDNSDeployment:         appsv1.Deployment{},
	KubeProxyDaemonSet:        appsv1.DaemonSet{},
}

// targets in kubeadm's order.
var targets = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", KubeletConfiguration, CoreDNSDeployment, KubeProxyDaemonSet}

// The patch types; the last is the default.
const (
	jsonType  = "json"
	mergeType = "merge"
	strategic = "strategic"
)

var (
	types      = []string{jsonType, mergeType, strategic}
	extensions = []string{"json", "yaml"}
	extension  = regexp.MustCompile(`.+\.(json|yaml)$`)
	fileName   = regexp.MustCompile(`^(` + strings.Join(targets, "|") + `)([^.+\n]*)?(\+)?(` + strings.Join(types, "|") + `)?`)
)

// parseName reads the name of a patch file. The messages are kubeadm's.
func parseName(name string) (target, patchType string, err error) {
	if !extension.MatchString(name) {
		return "", "", fmt.Errorf("the file extension must be one of %v", extensions)
	}
	sub := fileName.FindStringSubmatch(name)
	if sub == nil {
		return "", "", fmt.Errorf("unknown target, must be one of %v", targets)
	}
	rest := strings.TrimPrefix(name, sub[0])
	if sub[3] != "" && (sub[4] == "" || !strings.HasPrefix(rest, ".")) {
		return "", "", fmt.Errorf("unknown or missing patch type after '+', must be one of %v", types)
	}
	if sub[4] == "" {
		return sub[1], strategic, nil
	}
	return sub[1], sub[4], nil
}

// ReadDir reads the patches of a folder and the folders in it, in the order in which
// kubeadm applies them. Unlike kubeadm, which passes over them, it takes files that
// are no patches for mistakes: a patch that is not applied goes unnoticed until
// something else fails.
func ReadDir(dir string) (list []bootplan.Patch, errs []error) {
	st, err := os.Stat(dir)
	if err != nil {
		return nil, []error{err}
	}
	if !st.IsDir() {
		return nil, []error{fmt.Errorf("%s: not a directory", dir)}
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			errs = append(errs, err)
			return nil
		}
		p := bootplan.Patch{File: d.Name(), Data: string(data)}
		switch err := Check(p); {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
		case len(bytes.TrimSpace(data)) == 0:
			errs = append(errs, fmt.Errorf("%s: the file is empty", path))
		default:
			list = append(list, p)
		}
		return nil
	})
	if err != nil {
		errs = append(errs, err)
	}
	return list, errs
}

// Check reports what is wrong with a patch, as far as that can be said without what
// it is for.
func Check(p bootplan.Patch) error {
	target, patchType, err := parseName(p.File)
	if err != nil {
		return err
	}
	docs, err := documents(p.Data)
	if err != nil {
		return err
	}
	for _, d := range docs {
		if patchType == jsonType {
			if _, err := jsonpatch.DecodePatch(d); err != nil {
				return fmt.Errorf("not a JSON patch, a list of operations: %w", err)
			}
			continue
		}
		if d[0] != '{' {
			return fmt.Errorf("a patch of type %s is a mapping with what is to be changed in %s", patchType, target)
		}
		if _, err := apply(target, patchType, []byte("{}"), d); err != nil {
			return err
		}
	}
	return nil
}

// documents splits a patch file and turns its documents into JSON.
func documents(data string) ([][]byte, error) {
	var out [][]byte
	r := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(data)))
	for {
		doc, err := r.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if doc = bytes.TrimSpace(doc); len(doc) == 0 {
			continue
		}
		j, err := yaml.YAMLToJSONStrict(doc)
		if err != nil {
			return nil, err
		}
		if string(j) != "null" { // comments alone
			out = append(out, j)
		}
	}
}

// Apply changes obj, which is what firstboot would write for a target, by the
// patches that are for it. What a patch adds and the object's type does not have is
// an error.
func Apply[T any](list []bootplan.Patch, target string, obj *T) error {
	if _, ok := object[target]; !ok {
		return fmt.Errorf("unknown patch target name %q, must be one of %v", target, targets)
	}
	if !slices.ContainsFunc(list, func(p bootplan.Patch) bool { t, _, err := parseName(p.File); return err != nil || t == target }) {
		return nil
	}
	data, err := yaml.Marshal(obj)
	if err != nil {
		return err
	}
	if data, err = yaml.YAMLToJSON(data); err != nil {
		return err
	}
	for _, p := range list {
		t, patchType, err := parseName(p.File)
		if err != nil {
			return fmt.Errorf("patch %s: %w", p.File, err)
		}
		if t != target {
			continue
		}
		docs, err := documents(p.Data)
		if err != nil {
			return fmt.Errorf("patch %s: %w", p.File, err)
		}
		for _, d := range docs {
			if data, err = apply(target, patchType, data, d); err != nil {
				return fmt.Errorf("patch %s: could not apply it to %s: %w", p.File, target, err)
			}
		}
	}
	var out T
	if err := yaml.UnmarshalStrict(data, &out); err != nil {
		return fmt.Errorf("%s with its patches: %w", target, err)
	}
	*obj = out
	return nil
}

// apply returns data, a JSON object, with one patch applied.
func apply(target, patchType string, data, patch []byte) ([]byte, error) {
	switch patchType {
	case jsonType:
		ops, err := jsonpatch.DecodePatch(patch)
		if err != nil {
			return nil, err
		}
		return ops.Apply(data)
	case mergeType:
		return jsonpatch.MergePatch(data, patch)
	}
	return strategicpatch.StrategicMergePatch(data, patch, object[target])
}
