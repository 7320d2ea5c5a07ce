package release

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/internal/release/releasetest"
	"github.com/kiln-os/kiln/payload"
)

const digest64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

const head = "apiVersion: kiln-os.dev/v1alpha1\nkind: Payload\n"

func TestMistakes(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"no manifest": {"- a\n", "p.yaml:1:1: a payload manifest is a mapping, this is a list"},
		"empty":       {"", "p.yaml: the file is empty"},
		"other kind":  {"apiVersion: v1\nkind: Cluster\nbinaries: []\n", "p.yaml:1:13: apiVersion: \"v1\" is not a version this program reads; want kiln-os.dev/v1alpha1\np.yaml:2:7: kind: \"Cluster\" is not a payload manifest; want Payload"},
		"unknown key": {head + "binaries:\n- {name: kubelet, versoin: v1.37.2, arch: amd64, url: https://downloads.example.com/kubelet, sha256: " + digest64 + "}\n",
			"p.yaml:4:19: binaries[0].versoin: unknown key \"versoin\"; did you mean version?"},
		"no digest": {head + "binaries:\n- name: kubelet\n  version: v1.37.2\n  arch: amd64\n  url: https://downloads.example.com/kubelet\n",
			"p.yaml:4:3: binaries[0].sha256: is missing; run imagegen payload pin p.yaml"},
		"short digest": {head + "binaries:\n- {name: kubelet, version: v1.37.2, arch: amd64, url: https://downloads.example.com/kubelet, sha256: abc}\n",
			"binaries[0].sha256: \"abc\" is no digest; want 64 of 0-9 and a-f"},
		"unknown program": {head + "binaries:\n- {name: kubelt, version: v1.37.2, arch: amd64, url: https://downloads.example.com/kubelet, sha256: " + digest64 + "}\n",
			"p.yaml:4:10: binaries[0].name: \"kubelt\" is not a program that nodes have; did you mean kubelet?"},
		"unknown architecture": {head + "binaries:\n- {name: kubelet, version: v1.37.2, arch: x86_64, url: https://downloads.example.com/kubelet, sha256: " + digest64 + "}\n",
			"\"x86_64\" is not a known architecture; want one of amd64, arm, arm64, ppc64le"},
		"another minor version": {head + "binaries:\n- {name: kubelet, version: v1.36.4, arch: amd64, url: https://downloads.example.com/kubelet, sha256: " + digest64 + "}\n",
			"v1.36.4 is not of the Kubernetes minor version that this Kiln's firstboot sets up; want a v1.37 version"},
		"two versions": {head + "binaries:\n- {name: kubelet, version: v1.37.2, arch: amd64, url: https://downloads.example.com/kubelet, sha256: " + digest64 + "}\n- {name: kubectl, version: v1.37.1, arch: amd64, url: https://downloads.example.com/kubectl, sha256: " + digest64 + "}\n",
			"p.yaml:5:28: binaries[1].version: Kubernetes is v1.37.1 here and v1.37.2 in binaries[0].version; want one version"},
		"version of what firstboot names": {head + "binaries: []\nimages:\n- {name: etcd, version: 3.6.0, ref: 'registry.example.com/etcd:3.6.0-0@sha256:" + digest64 + "'}\n",
			"nodes of this Kiln ask for etcd " + payload.EtcdVersion + ", not 3.6.0; want " + payload.EtcdVersion},
		"twice": {head + "binaries:\n- {name: kubelet, version: v1.37.2, arch: amd64, url: https://downloads.example.com/a, sha256: " + digest64 + "}\n- {name: kubelet, version: v1.37.2, arch: amd64, url: https://downloads.example.com/b, sha256: " + digest64 + "}\n",
			"kubelet for amd64 is in binaries[0].name already; remove one"},
		"no whole URL": {head + "binaries:\n- {name: kubelet, version: v1.37.2, arch: amd64, url: kubelet, sha256: " + digest64 + "}\n",
			"\"kubelet\" is no whole URL; write the whole URL, or set baseURL"},
		"scheme":   {head + "binaries:\n- {name: kubelet, version: v1.37.2, arch: amd64, url: 'file:///x', sha256: " + digest64 + "}\n", "this is no http or https URL"},
		"password": {head + "binaries:\n- {name: kubelet, version: v1.37.2, arch: amd64, url: 'https://ada:hidden-word@downloads.example.com/x', sha256: " + digest64 + "}\n", "has a user or password in it"},
		"member out of the archive": {head + "binaries:\n- {name: x, version: v2.4.2, arch: amd64, url: https://downloads.example.com/x.tgz, sha256: " + digest64 + ", members: {ctr: ../ctr}}\n",
			"binaries[0].members.ctr: \"../ctr\" is not the path of a file in an archive"},
		"image without digest": {head + "binaries: []\nimages:\n- {name: pause, version: '" + payload.PauseVersion + "', ref: 'registry.example.com/pause:3'}\n",
			"images[0].ref: \"registry.example.com/pause:3\" has no digest; run imagegen payload pin p.yaml"},
		"image without registry": {head + "binaries: []\nimages:\n- {name: pause, version: '" + payload.PauseVersion + "', ref: '/pause:3'}\n", "has no registry; write the registry too, or set registry"},
		"image of a default registry": {head + "binaries: []\nimages:\n- {name: pause, version: '" + payload.PauseVersion + "', ref: 'pause'}\n",
			"\"pause\" is not a reference with a registry and a tag or digest"},
		"unknown image": {head + "binaries: []\nimages:\n- {name: kube-dns, version: v1, ref: 'registry.example.com/x:1@sha256:" + digest64 + "'}\n",
			"\"kube-dns\" is not an image that nodes have; want one of kube-apiserver"},
		"SHA-512 image": {head + "binaries: []\nimages:\n- {name: pause, version: '" + payload.PauseVersion + "', ref: 'registry.example.com/x@sha512:" + digest64 + digest64 + "'}\n", "images[0].ref"},
		"size":          {head + "binaries:\n- {name: kubelet, version: v1.37.2, arch: amd64, url: https://downloads.example.com/a, sha256: " + digest64 + ", size: -1}\n", "-1 is no size"},
		"base URL":      {head + "baseURL: downloads\nbinaries: []\n", "p.yaml:3:10: baseURL: this is no http or https URL"},
		"registry":      {head + "registry: https://registry.example.com\nbinaries: []\n", "p.yaml:3:11: registry: \"https://registry.example.com\" is not a registry"},
		"version":       {head + "binaries:\n- {name: kubelet, version: latest, arch: amd64, url: https://downloads.example.com/a, sha256: " + digest64 + "}\n", "\"latest\" is not a version; such as v1.37.2"},
	} {
		_, mistakes := parse("p.yaml", []byte(c.text), false)
		if got := mistakes.Error(); !strings.Contains(got, c.want) || strings.Contains(got, "hidden-word") {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, c.want)
		}
	}
	if _, mistakes := Load(t.TempDir()+"/none.yaml", false); len(mistakes) != 1 || !strings.Contains(mistakes.Error(), "there is no such file") {
		t.Error(mistakes)
	}
}

func TestMissing(t *testing.T) {
	m, mistakes := parse("p.yaml", []byte(head+"binaries:\n- {name: etcd, version: "+payload.EtcdVersion+", arch: arm64, url: https://downloads.example.com/a, sha256: "+digest64+"}\nimages:\n- {name: pause, version: '"+payload.PauseVersion+"', ref: 'registry.example.com/pause@sha256:"+digest64+"'}\n"), false)
	if len(mistakes) > 0 {
		t.Fatal(mistakes)
	}
	got := m.Missing("arm64").Error()
	for _, want := range []string{"p.yaml:3:1: binaries: there is no kubelet for arm64; add an entry", "there is no bridge for arm64", "p.yaml:5:1: images: there is neither an image etcd nor a program etcdctl for arm64"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	for _, not := range []string{"program etcd for", "pause"} {
		if strings.Contains(got, not) {
			t.Errorf("%q in\n%s", not, got)
		}
	}
	if !strings.Contains(m.Missing("amd64").Error(), "nor a program etcd for amd64") {
		t.Error("etcd for arm64 is taken for amd64's")
	}
}

func TestParseDigest(t *testing.T) {
	for text, want := range map[string]string{
		digest64:                                                 digest64,
		digest64 + "  kubelet\n":                                 digest64,
		digest64 + " *bin/kubelet\n":                             digest64,
		"SHA256 (kubelet) = " + digest64:                         digest64,
		strings.ToUpper(digest64) + "\r\n":                       digest64,
		digest64[1:] + "0  kubectl\n" + digest64 + "  kubelet\n": digest64,
		digest64 + "  kubectl\n":                                 "",
		digest64 + "\n" + digest64[1:] + "0\n":                   "",
		digest64[1:]:                                             "",
		"<html>":                                                 "",
		"":                                                       "",
	} {
		if got, err := parseDigest(text, "kubelet", 64); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(head + "binaries:\n- {name: kubelet, version: v1.37.2, arch: amd64, url: x, members: {a: b}}\nimages: [{name: pause, ref: /x}]\nbaseURL: https://downloads.example.com\nregistry: registry.example.com\n"))
	f.Add([]byte(head + "binaries:\n- name: kubelet\n  url: 'https://downloads.example.com/é'\n  version: v1.37.2\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, mistakes := parse("p.yaml", b, true)
		if len(mistakes) > 0 {
			return
		}
		m.Missing("amd64")
		// What was added can be read back, and nothing else has changed.
		e := editor{m: m}
		for i := range m.Binaries {
			e.set([]any{"binaries", i}, "url", "sha256", digest64)
		}
		text, err := e.apply()
		if err != nil {
			return
		}
		again, mistakes := parse("p.yaml", text, true)
		if len(mistakes) > 0 {
			t.Fatalf("%v\n%s", mistakes, text)
		}
		for i, b := range again.Binaries {
			if b.SHA256 != digest64 || b.URL != m.Binaries[i].URL || b.Name != m.Binaries[i].Name {
				t.Errorf("%+v", b)
			}
		}
	})
}

func FuzzDigestFile(f *testing.F) {
	f.Add(digest64 + "  kubelet\n")
	f.Add("SHA256 (kubelet) = " + digest64)
	f.Fuzz(func(t *testing.T, text string) {
		if d, err := parseDigest(text, "kubelet", 64); err == nil && len(d) != 64 {
			t.Errorf("%q", d)
		}
	})
}

// Archives are foreign bytes: whatever they are, only members come out of them.
func FuzzArchive(f *testing.F) {
	files := map[string][]byte{"bin/ctr": []byte("x"), "bin/other": []byte("y")}
	f.Add(releasetest.Tar(files))
	f.Add(releasetest.TarGz(files))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decompress(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			return
		}
		found := 0
		err = extractTar(&limited{r, 1 << 20}, map[string]string{"ctr": "bin/ctr"}, func(program string, content io.Reader) error {
			if found++; program != "ctr" {
				t.Errorf("program %q", program)
			}
			_, err := io.Copy(io.Discard, content)
			return err
		})
		if err == nil && found != 1 {
			t.Errorf("found %d times", found)
		}
	})
}
