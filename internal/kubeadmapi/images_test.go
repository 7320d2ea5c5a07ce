package kubeadmapi_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/internal/staticpod"
	"github.com/kiln-os/kiln/payload"
)

func TestImages(t *testing.T) {
	plain := kubeadmapi.ClusterConfiguration{KubernetesVersion: payload.KubernetesVersion}
	list := kubeadmapi.Images(plain)
	for _, want := range []string{
		staticpod.Registry + "/kube-apiserver:" + payload.KubernetesVersion, staticpod.EtcdImage,
		staticpod.Registry + "/coredns/coredns:" + payload.CoreDNSVersion,
	} {
		if !slices.Contains(list, want) {
			t.Errorf("%v lacks %s", list, want)
		}
	}
	// What the node's containerd starts pods with is the pause image of the list.
	config, err := os.ReadFile("../../units/system/etc/containerd/config.toml")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(config), "'"+list[5]+"'") {
		t.Errorf("containerd's sandbox image is not %s", list[5])
	}

	own := plain
	own.ImageRepository = "r.example/k8s"
	own.DNS.ImageTag, own.Proxy.Disabled = "v9", true
	own.Etcd.Local = &kubeadmapi.LocalEtcd{ImageMeta: kubeadmapi.ImageMeta{ImageRepository: "e.example", ImageTag: "1"}}
	if got := kubeadmapi.Images(own)[3:]; !slices.Equal(got, []string{"r.example/k8s/coredns:v9", "r.example/k8s/pause:3.10.2", "e.example/etcd:1"}) {
		t.Errorf("%v", got)
	}
	bare := plain
	bare.DNS.Disabled, bare.Etcd.External = true, &kubeadmapi.ExternalEtcd{}
	if got := kubeadmapi.Images(bare); len(got) != 5 || !strings.Contains(got[4], "/pause:") {
		t.Errorf("%v", got)
	}
}

func TestParseVersion(t *testing.T) {
	for in, want := range map[string]string{"v1.37.2": "v1.37.2", "1.36.0": "v1.36.0", "v1.37.0-rc.1": "v1.37.0-rc.1"} {
		if got, err := kubeadmapi.ParseVersion(in); err != nil || got != want {
			t.Errorf("%s: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "stable", "v1.37", "v2.37.1", "v1.35.1", "v1.38.0", "v1.37.2 ", "v1.99999999999999999999.1"} {
		if got, err := kubeadmapi.ParseVersion(in); err == nil {
			t.Errorf("%q: %q", in, got)
		}
	}
}
