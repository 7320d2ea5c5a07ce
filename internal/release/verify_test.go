package release

import (
	"bytes"
	"os"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/images/elfdeps/elftest"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/release/releasetest"
	"github.com/kiln-os/kiln/payload"
)

func TestVerify(t *testing.T) {
	b, err := program()
	if err != nil {
		t.Fatal(err)
	}
	arm64, err := releasetest.Program(t.TempDir(), "arm64")
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		bytes   []byte
		group   group
		version string
		words   string
	}{
		"right":                {b, kubernetes, payload.KubernetesVersion, ""},
		"without the v":        {b, etcd, strings.TrimPrefix(payload.EtcdVersion, "v"), ""},
		"another version":      {b, kubernetes, "v1.37.99", "does not have the text 1.37.99"},
		"part of a version":    {b, kubernetes, "v1.37", "does not have the text"},
		"other machine":        {arm64, kubernetes, payload.KubernetesVersion, "it is for EM_AARCH64"},
		"script":               {[]byte("#!/bin/sh\n"), kubernetes, "v1", "no ELF program"},
		"not made by Go":       {elftest.File{}.Bytes(), kubernetes, "v1.37.2", "no program made by Go"},
		"pause is a C program": {append(elftest.File{}.Bytes(), payload.PauseVersion...), pause, payload.PauseVersion, ""},
		"built from others":    {self, coredns, payload.CoreDNSVersion, "it is built from github.com/kiln-os/kiln, not from github.com/coredns/coredns"},
		"cut":                  {b[:len(b)/2], kubernetes, payload.KubernetesVersion, "no"},
	} {
		err := verify(bytes.NewReader(c.bytes), int64(len(c.bytes)), amd64(t), c.group, c.version)
		if c.words == "" && err != nil || c.words != "" && (err == nil || !strings.Contains(err.Error(), c.words)) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	a, err := arch.Get("arm64")
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(bytes.NewReader(arm64), int64(len(arm64)), a, kubernetes, payload.KubernetesVersion); err != nil {
		t.Error(err)
	}
}

func TestHasVersion(t *testing.T) {
	long := strings.Repeat("x", 1<<20-3)
	for text, want := range map[string]bool{
		"1.2.3": true, "v1.2.3": true, "x1.2.3y": true, "1.2.34": false, "11.2.3": false, "0.1.2.3": false, "1.2.3.4": false, "1.2.3.": true, "1.2.3..4": true,
		"1.2.34 1.2.3": true, long + "1.2.3" + long: true, long + "xx1.2.3": true, long + "1.2.34": false, long + "91.2.3": false, "": false,
	} {
		got, err := hasVersion(strings.NewReader(text), "v1.2.3")
		if err != nil || got != want {
			t.Errorf("%.12s… (%d): %v, %v", text, len(text), got, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	f.Add(elftest.File{Interp: "/x", Needed: []string{"libc.so.6"}}.Bytes())
	f.Fuzz(func(_ *testing.T, b []byte) {
		a, err := arch.Get("amd64")
		if err == nil {
			_ = verify(bytes.NewReader(b), int64(len(b)), a, kubernetes, "v1.37.2")
		}
	})
}

func TestModuleVersion(t *testing.T) {
	main := func(path, version string) *debug.BuildInfo {
		return &debug.BuildInfo{Main: debug.Module{Path: path, Version: version}}
	}
	wrapped := main("example.com/wrapper", "(devel)")
	wrapped.Deps = []*debug.Module{{Path: "github.com/containerd/containerd/api", Version: "v1.12.0"}, {Path: "github.com/containerd/containerd/v2", Version: "v2.4.2"}}
	merged := main("example.com/merged", "(devel)")
	merged.Deps = []*debug.Module{{Path: "go.etcd.io/etcd/api/v3", Version: "v2.4.0"}, {Path: "go.etcd.io/etcd/server/v3", Version: "v2.4.2"}}
	client := main("example.com/client", "v2.4.2")
	client.Deps = merged.Deps[:1]
	checkout := main("github.com/containerd/containerd/v2", "(devel)")
	checkout.Deps = wrapped.Deps[:1]
	for name, c := range map[string]struct {
		info  *debug.BuildInfo
		group group
		known bool
		words string
	}{
		"the version":                   {main("github.com/containerd/containerd/v2", "v2.4.2"), containerd, true, ""},
		"another":                       {main("github.com/containerd/containerd/v2", "v2.4.1"), containerd, true, "it is of version v2.4.1"},
		"dirty":                         {main("github.com/containerd/containerd/v2", "v2.4.2+dirty"), containerd, true, ""},
		"pseudo-version":                {main("github.com/containerd/containerd/v2", "v2.4.3-0.20260101000000-0123456789ab"), containerd, false, ""},
		"checkout":                      {checkout, containerd, false, ""},
		"wrapped":                       {wrapped, containerd, true, ""},
		"wrapped, of several modules":   {merged, etcd, true, ""},
		"what has etcd's clients alone": {client, etcd, true, "not from go.etcd.io/etcd"},
		"below the module":              {main("go.etcd.io/etcd/server/v3", "v2.4.2"), etcd, true, ""},
		"another project":               {main("go.etcd.io/etcdx", "v2.4.2"), etcd, true, "not from go.etcd.io/etcd"},
		"no modules":                    {&debug.BuildInfo{}, etcd, false, ""},
		"need not be by Go":             {main("example.com/pause", "v9.9.9"), pause, false, ""},
	} {
		known, err := moduleVersion(c.info, c.group, "v2.4.2")
		if known != c.known || c.words == "" && err != nil || c.words != "" && (err == nil || !strings.Contains(err.Error(), c.words)) {
			t.Errorf("%s: %v, %v", name, known, err)
		}
	}
}
