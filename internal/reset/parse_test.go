package reset

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/internal/bootplan"
)

// TestStampOfImagegen reads a stamp that imagegen renders.
func TestStampOfImagegen(t *testing.T) {
	config, err := os.ReadFile("../render/testdata/init.ign.json")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("config.ign", string(config))
	if _, err := readStamp(dir); err == nil || !strings.Contains(err.Error(), "has no checksum") {
		t.Errorf("without a checksum: %v", err)
	}
	write("config.ign.sha256", strings.Repeat("0", 64)+"  config.ign\n")
	if _, err := readStamp(dir); err == nil || !strings.Contains(err.Error(), "the stamp is damaged") {
		t.Errorf("with a wrong checksum: %v", err)
	}
	write("config.ign.sha256", fmt.Sprintf("%x  config.ign\n", sha256.Sum256(config)))
	files, err := readStamp(dir)
	if err != nil {
		t.Fatal(err)
	}
	byPath := map[string]File{}
	for _, f := range files {
		byPath[f.Path] = f
	}
	for _, key := range clusterKeys {
		f, ok := byPath["/etc/kubernetes/pki/"+key]
		if !ok || f.Data.IsZero() || f.Remote {
			t.Errorf("the stamp has no %s", key)
		}
		if want := fs.FileMode(0o600); strings.HasSuffix(key, ".key") && f.Mode != want {
			t.Errorf("%s has mode %o", key, f.Mode)
		}
	}
	if _, err := bootplan.Parse(byPath[bootplan.Path].Data.Reveal()); err != nil {
		t.Errorf("the boot plan: %v", err)
	}
}

func TestParseStamp(t *testing.T) {
	one := func(contents string) string {
		return `{"storage":{"files":[{"path":"/a","contents":` + contents + `}]}}`
	}
	for in, want := range map[string]string{
		one(`{"source":"data:,geheim%20x"}`):      "geheim x",
		one(`{"source":"data:;base64,Z2VoZWlt"}`): "geheim",
		one(`{}`): "",
		one(`{"compression":"gzip","source":"data:;base64,H4sIAAAAAAAA/0tPzUjNzAUAJmKVXQYAAAA="}`): "",
	} {
		files, err := ParseStamp([]byte(in))
		if strings.Contains(in, "gzip") {
			// The checksum of that one is wrong on purpose.
			if err == nil || strings.Contains(err.Error(), "H4sI") {
				t.Errorf("%s: %v", in, err)
			}
			continue
		}
		if err != nil || len(files) != 1 || files[0].Data.RevealString() != want || files[0].Mode != 0o644 {
			t.Errorf("%s: %v, %v", in, files, err)
		}
	}
	if files, err := ParseStamp([]byte(one(`{"source":"https://example.org/a"}`))); err != nil || !files[0].Remote {
		t.Errorf("%v, %v", files, err)
	}
	for in, want := range map[string]string{
		"geheim": "no Ignition config", `{"storage":{"files":[{"path":"../a"}]}}`: "not absolute and clean", `{"storage":{"files":[{"path":"/a/../b"}]}}`: "not absolute and clean",
		one(`{"source":"data:geheim"}`): "no data URL", one(`{"source":"data:,x","compression":"xz"}`): "unknown way", one(`{"source":"data:,x","compression":"gzip"}`): "not gzip",
	} {
		if _, err := ParseStamp([]byte(in)); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %v, want %q", in, err, want)
		}
	}
}

func FuzzParseStamp(f *testing.F) {
	f.Add([]byte(`{"storage":{"files":[{"path":"/a","mode":384,"contents":{"source":"data:;base64,Z2VoZWlt"}}]}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		files, err := ParseStamp(in)
		if err != nil {
			return
		}
		for _, file := range files {
			if !filepath.IsAbs(file.Path) || strings.Contains(file.Path, "/../") {
				t.Errorf("path %q", file.Path)
			}
		}
	})
}

const mountinfo = `22 27 0:20 / /sys rw,nosuid shared:7 - sysfs sysfs rw
96 27 0:45 / /var/lib/kubelet/pods/a/volumes/kubernetes.io~projected/x rw shared:1 - tmpfs tmpfs rw
97 27 8:1 /d /var/lib/kubelet/pods/a\040b\134c rw - ext4 /dev/sda1 rw
`

func TestParseMounts(t *testing.T) {
	got, err := parseMounts(strings.NewReader(mountinfo))
	want := []string{"/sys", "/var/lib/kubelet/pods/a/volumes/kubernetes.io~projected/x", `/var/lib/kubelet/pods/a b\c`}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := parseMounts(strings.NewReader("22 27 0:20 /\n")); err == nil {
		t.Error("a line that is cut off is accepted")
	}
}

func FuzzParseMounts(f *testing.F) {
	f.Add(mountinfo)
	f.Fuzz(func(t *testing.T, in string) { _, _ = parseMounts(strings.NewReader(in)) })
}

// TestNetfilterScript has a shortened listing of a node's rules, and some of its
// administrator's.
func TestNetfilterScript(t *testing.T) {
	listing, err := os.ReadFile("testdata/ruleset.json")
	if err != nil {
		t.Fatal(err)
	}
	got, err := netfilterScript(listing)
	if err != nil {
		t.Fatal(err)
	}
	const want = `delete table ip flannel-ipv4
delete table ip6 kube-proxy
delete rule ip nat PREROUTING handle 7
delete rule ip nat POSTROUTING handle 9
flush chain ip nat KUBE-SERVICES
flush chain ip nat CNI-HOSTPORT-DNAT
delete chain ip nat KUBE-SERVICES
delete chain ip nat CNI-HOSTPORT-DNAT
`
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	for in, want := range map[string]string{
		`{"nftables":[{"metainfo":{"version":"1.1.3"}}]}`:                                              "",
		`{"nftables":[{"chain":{"family":"ip","table":"nat; flush ruleset","name":"KUBE-X"}}]}`:        "is not one that Kubernetes gives",
		`{"nftables":[{"rule":{"family":"ip","table":"nat","chain":"A","expr":[{"jump":"KUBE-X"}]}}]}`: "a jump without a target",
		`x`: "no JSON",
	} {
		got, err := netfilterScript([]byte(in))
		if want == "" && (err != nil || got != "") || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %q, %v", in, got, err)
		}
	}
}

func FuzzNetfilterScript(f *testing.F) {
	listing, err := os.ReadFile("testdata/ruleset.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(listing)
	f.Fuzz(func(t *testing.T, in []byte) {
		script, err := netfilterScript(in)
		if err == nil && strings.Trim(script, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_. \n") != "" {
			t.Errorf("script %q", script)
		}
	})
}
