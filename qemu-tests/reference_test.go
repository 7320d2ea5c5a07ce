//go:build boot && (bench || long)

package qemutests

import (
	"archive/tar"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/kiln-os/kiln/images/oci"
	"github.com/kiln-os/kiln/internal/testtools"
)

//go:embed testdata/kubeadm.sh testdata/kubeadm.yaml
var referenceFiles embed.FS

// referenceSnippet lets the unit of firstboot run the reference's script instead, and
// leaves out what Kiln does at boots for the control plane. The kubelet and containerd
// start as the units say that their own projects ship: after the network is online,
// which systemd-networkd's service waits for where it is enabled, and after dbus.
const referenceSnippet = `butane:
  - variant: fcos
    version: 1.4.0
    systemd:
      units:
        - name: kiln-start-order.service
          dropins:
            - name: 50-reference.conf
              contents: |
                [Unit]
                ConditionPathExists=/never
        - name: kiln-resume.service
          dropins:
            - name: 50-reference.conf
              contents: |
                [Unit]
                ConditionPathExists=/never
        - name: systemd-networkd-wait-online.service
          enabled: true
        - name: kubelet.service
          dropins:
            - name: 50-reference.conf
              contents: |
                [Unit]
                Wants=network-online.target
                After=network-online.target
                [Service]
                UnsetEnvironment=GOGC
        - name: containerd.service
          dropins:
            - name: 50-reference.conf
              contents: |
                [Unit]
                After=network.target local-fs.target dbus.service
                [Service]
                UnsetEnvironment=GOGC
        - name: firstboot.service
          dropins:
            - name: 50-reference.conf
              contents: |
                [Service]
                ExecStart=
                ExecStart=/bin/sh -c 'mkdir -p /run/reference && mount -o ro /dev/vdb /run/reference && exec sh /run/reference/kubeadm.sh'
                Restart=no
`

// referenceDisk makes the disk with what real kubeadm needs for the cluster that
// kiln, a running node, has: the same programs, images and pod network. config is
// kubeadm's.
func referenceDisk(t *testing.T, kiln *node, config []byte) string {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "kubeadm.sh"), referenceFile(t, "kubeadm.sh"))
	writeFile(t, filepath.Join(dir, "kubeadm.yaml"), config)
	writeFile(t, filepath.Join(dir, "10-flannel.conflist"), []byte(kiln.sh(t, "cat /etc/cni/net.d/10-flannel.conflist")))
	writeFile(t, filepath.Join(dir, "flannel.json"), flannelObjects(t, kiln))
	return kubeadmDisk(t, dir, kiln.image, nil)
}

func referenceFile(t *testing.T, name string) []byte {
	t.Helper()
	b, err := referenceFiles.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// kubeadmDisk makes a disk of the files in dir, real kubeadm, and an archive of the
// container images of a node's disk image, and more.
func kubeadmDisk(t *testing.T, dir, image string, more map[name.Reference]v1.Image) string {
	t.Helper()
	kubeadm, err := os.ReadFile(testtools.Kubeadm(t))
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "kubeadm"), kubeadm)
	archiveImages(t, image, filepath.Join(dir, "images.tar"), more)
	img := filepath.Join(t.TempDir(), "reference.img")
	if out, err := testtools.Command(t, "mke2fs", "-q", "-t", "ext4", "-d", dir, img, "1500M").CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v\n%s", err, out)
	}
	return img
}

func writeFile(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
}

// archiveImages writes the container images of a node's disk image as an archive
// with gzip layers, as `docker save` and mirrors of registries do; and more.
func archiveImages(t *testing.T, image, to string, more map[name.Reference]v1.Image) {
	t.Helper()
	dir, usr := filepath.Join(t.TempDir(), "usr"), partition(t, image, "kiln-usr-a")
	out, err := testtools.Command(t, "unsquashfs", "-q", "-n", "-no-xattrs", "-d", dir, "-o", fmt.Sprint(usr.Offset), image, "share/kiln/images").CombinedOutput()
	if err != nil {
		t.Fatalf("unsquashfs: %v\n%s", err, out)
	}
	root := filepath.Join(dir, "share/kiln/images")
	index, err := layout.ImageIndexFromPath(root)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	images := map[name.Reference]v1.Image{}
	maps.Copy(images, more)
	layers := map[v1.Hash]v1.Layer{} // those that images share are there once
	for _, m := range manifest.Manifests {
		ref, err := name.NewTag(m.Annotations["io.containerd.image.name"])
		if err != nil {
			t.Fatal(err)
		}
		from, err := index.Image(m.Digest)
		if err != nil {
			t.Fatal(err)
		}
		config, err := from.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		var list []v1.Layer
		for _, id := range config.RootFS.DiffIDs {
			if layers[id] == nil {
				files := filepath.Join(root, oci.LayersDir, id.Hex)
				if layers[id], err = tarball.LayerFromOpener(func() (io.ReadCloser, error) { return tarOf(files), nil }); err != nil {
					t.Fatal(err)
				}
			}
			list = append(list, layers[id])
		}
		config.RootFS.DiffIDs, config.History = nil, nil
		img, err := mutate.ConfigFile(empty.Image, config)
		if err == nil {
			img, err = mutate.AppendLayers(img, list...)
		}
		if err != nil {
			t.Fatal(err)
		}
		images[ref] = img
	}
	if err := tarball.MultiRefWriteToFile(to, images); err != nil {
		t.Fatal(err)
	}
}

func tarOf(dir string) io.ReadCloser {
	r, w := io.Pipe()
	go func() {
		tw := tar.NewWriter(w)
		err := tw.AddFS(os.DirFS(dir))
		if err == nil {
			err = tw.Close()
		}
		w.CloseWithError(err)
	}()
	return r
}

// flannelObjects returns the objects of the pod network as a list for kubectl.
func flannelObjects(t *testing.T, n *node) []byte {
	t.Helper()
	ctx, c := context.Background(), n.client
	const ns = "kube-flannel"
	var list []runtime.Object
	add := func(o runtime.Object, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, o)
	}
	g := metav1.GetOptions{}
	namespace, err := c.CoreV1().Namespaces().Get(ctx, ns, g)
	add(&corev1.Namespace{ObjectMeta: plain(namespace.ObjectMeta)}, err)
	account, err := c.CoreV1().ServiceAccounts(ns).Get(ctx, "flannel", g)
	add(&corev1.ServiceAccount{ObjectMeta: plain(account.ObjectMeta)}, err)
	cm, err := c.CoreV1().ConfigMaps(ns).Get(ctx, "kube-flannel-cfg", g)
	add(&corev1.ConfigMap{ObjectMeta: plain(cm.ObjectMeta), Data: cm.Data}, err)
	role, err := c.RbacV1().ClusterRoles().Get(ctx, "flannel", g)
	add(&rbacv1.ClusterRole{ObjectMeta: plain(role.ObjectMeta), Rules: role.Rules}, err)
	binding, err := c.RbacV1().ClusterRoleBindings().Get(ctx, "flannel", g)
	add(&rbacv1.ClusterRoleBinding{ObjectMeta: plain(binding.ObjectMeta), Subjects: binding.Subjects, RoleRef: binding.RoleRef}, err)
	ds, err := c.AppsV1().DaemonSets(ns).Get(ctx, "kube-flannel-ds", g)
	add(&appsv1.DaemonSet{ObjectMeta: plain(ds.ObjectMeta), Spec: ds.Spec}, err)

	kinds := []schema.GroupVersionKind{
		corev1.SchemeGroupVersion.WithKind("Namespace"), corev1.SchemeGroupVersion.WithKind("ServiceAccount"), corev1.SchemeGroupVersion.WithKind("ConfigMap"),
		rbacv1.SchemeGroupVersion.WithKind("ClusterRole"), rbacv1.SchemeGroupVersion.WithKind("ClusterRoleBinding"), appsv1.SchemeGroupVersion.WithKind("DaemonSet"),
	}
	for i, o := range list {
		o.GetObjectKind().SetGroupVersionKind(kinds[i])
	}
	b, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "List", "items": list})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func plain(m metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: m.Name, Namespace: m.Namespace, Labels: m.Labels}
}
