package build

import (
	"testing"

	"github.com/kiln-os/kiln/images/tree"
)

func TestShareFiles(t *testing.T) {
	program := tree.HostFile{Path: "kubernetes", Len: 10}
	file := func(mode uint32, c tree.Content) *tree.Entry {
		return &tree.Entry{Type: tree.File, Mode: mode, Content: c}
	}
	usr := tree.New()
	const layers = "share/kiln/images/layers/"
	for p, e := range map[string]*tree.Entry{
		"bin/kubernetes":                 file(0o755, program),
		"bin/copy":                       file(0o755, program), // the node's own files stay as they are
		"share/factory/etc/certs":        file(0o644, tree.HostFile{Path: "certs", Len: 5}),
		layers + "a/bin/kubernetes":      file(0o755, program),
		layers + "a/etc/certs":           file(0o644, tree.HostFile{Path: "certs", Len: 5}),
		layers + "b/etc/certs":           file(0o644, tree.HostFile{Path: "certs", Len: 5}),
		layers + "b/other-mode":          file(0o700, program),
		layers + "b/section":             file(0o755, tree.HostFile{Path: "kubernetes", Offset: 1, Len: 9}),
		layers + "b/in-memory":           file(0o755, tree.Bytes("program")),
		layers + "b/in-memory-too":       file(0o755, tree.Bytes("program")),
		layers + "b/bin/with-capability": {Type: tree.File, Mode: 0o755, Content: program, Xattrs: map[string]string{"security.capability": "x"}},
	} {
		usr.Set(p, e)
	}
	shareFiles(usr)
	links := map[string]string{}
	_ = usr.Walk(func(p string, e *tree.Entry) error {
		if e.Type == tree.Hardlink {
			links[p] = e.Link
		}
		return nil
	})
	want := map[string]string{layers + "a/bin/kubernetes": "bin/copy", layers + "b/etc/certs": layers + "a/etc/certs"}
	if len(links) != len(want) {
		t.Errorf("links %v", links)
	}
	for p, target := range want {
		if links[p] != target {
			t.Errorf("%s links to %q, want %q", p, links[p], target)
		}
	}
}
