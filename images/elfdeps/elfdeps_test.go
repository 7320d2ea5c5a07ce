package elfdeps

import (
	"debug/elf"
	"slices"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/images/elfdeps/elftest"
	"github.com/kiln-os/kiln/images/tree"
)

const (
	lib    = "usr/lib/x86_64-linux-gnu"
	interp = "/lib64/ld-linux-x86-64.so.2"
)

// system is a small Debian: a loader behind a link, a C library, and what the
// cases add.
func system(files map[string]elftest.File, links map[string]string) *tree.Tree {
	t := tree.New()
	add := func(p string, f elftest.File) { t.AddFile(p, 0o755, f.Bytes()) }
	t.AddSymlink("usr/lib64/ld-linux-x86-64.so.2", "../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
	add(lib+"/ld-linux-x86-64.so.2", elftest.File{})
	add(lib+"/libc.so.6", elftest.File{Needed: []string{"ld-linux-x86-64.so.2"}})
	for p, f := range files {
		add(p, f)
	}
	for p, l := range links {
		t.AddSymlink(p, l)
	}
	return t
}

var base = []string{lib + "/ld-linux-x86-64.so.2", lib + "/libc.so.6", "usr/lib64/ld-linux-x86-64.so.2"}

func TestClosure(t *testing.T) {
	prog := func(needed ...string) elftest.File { return elftest.File{Interp: interp, Needed: needed} }
	cases := []struct {
		name  string
		files map[string]elftest.File
		links map[string]string
		roots []string
		want  []string // besides base
	}{
		{
			name:  "libraries of libraries, through their version links",
			files: map[string]elftest.File{"usr/bin/p": prog("liba.so.1", "libc.so.6"), lib + "/liba.so.1.2": {Needed: []string{"libb.so.3"}}, lib + "/libb.so.3": {}},
			links: map[string]string{lib + "/liba.so.1": "liba.so.1.2"},
			roots: []string{"usr/bin/p"},
			want:  []string{"usr/bin/p", lib + "/liba.so.1", lib + "/liba.so.1.2", lib + "/libb.so.3"},
		},
		{
			name:  "a program that is a link in a merged folder",
			files: map[string]elftest.File{"usr/sbin/multi": prog("libc.so.6")},
			links: map[string]string{"usr/sbin/tool": "multi"},
			roots: []string{"/sbin/tool"},
			want:  []string{"usr/sbin/multi", "usr/sbin/tool"},
		},
		{
			name:  "RUNPATH with ORIGIN comes before the system's folders",
			files: map[string]elftest.File{"usr/bin/p": {Interp: interp, Needed: []string{"libx.so", "libc.so.6"}, Runpath: "/nowhere:$ORIGIN/../lib/private"}, "usr/lib/private/libx.so": {}, lib + "/libx.so": {}},
			roots: []string{"usr/bin/p"},
			want:  []string{"usr/bin/p", "usr/lib/private/libx.so"},
		},
		{
			name:  "RPATH in a folder that is merged into /usr",
			files: map[string]elftest.File{"usr/bin/p": {Interp: interp, Needed: []string{"libx.so", "libc.so.6"}, Rpath: "/lib/systemd"}, "usr/lib/systemd/libx.so": {}},
			roots: []string{"usr/bin/p"},
			want:  []string{"usr/bin/p", "usr/lib/systemd/libx.so"},
		},
		{
			name:  "a library that the program has loaded meets its libraries' need",
			files: map[string]elftest.File{"usr/bin/p": {Interp: interp, Needed: []string{"libp.so", "libc.so.6"}, Runpath: "$ORIGIN/priv"}, "usr/bin/priv/libp.so": {Needed: []string{"libq.so"}}, "usr/bin/priv/libq.so": {}},
			roots: []string{"usr/bin/p"},
			want:  []string{"usr/bin/p", "usr/bin/priv/libp.so", "usr/bin/priv/libq.so"},
		},
		{
			name: "another machine's library is passed over",
			files: map[string]elftest.File{"usr/bin/p": prog("libx.so", "libc.so.6"),
				"usr/lib/aarch64-linux-gnu/libx.so": {Machine: elf.EM_AARCH64}, lib + "/libx.so": {}},
			roots: []string{"usr/bin/p"},
			want:  []string{"usr/bin/p", lib + "/libx.so"},
		},
		{
			name:  "libraries that need each other",
			files: map[string]elftest.File{"usr/bin/p": prog("liba.so", "libc.so.6"), lib + "/liba.so": {Needed: []string{"libb.so"}}, lib + "/libb.so": {Needed: []string{"liba.so"}}},
			roots: []string{"usr/bin/p"},
			want:  []string{"usr/bin/p", lib + "/liba.so", lib + "/libb.so"},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := Closure(system(c.files, c.links), c.roots)
			if err != nil {
				t.Fatal(err)
			}
			want := append(slices.Clone(base), c.want...)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("closure\n got %q\nwant %q", got, want)
			}
		})
	}
}

func TestClosureOfOtherFiles(t *testing.T) {
	s := system(nil, nil)
	s.AddFile("usr/bin/script", 0o755, []byte("#!/bin/sh\n"))
	got, err := Closure(s, []string{"usr/bin/script"})
	if err != nil || !slices.Equal(got, []string{"usr/bin/script"}) {
		t.Errorf("script: %q, %v", got, err)
	}
}

func TestClosureErrors(t *testing.T) {
	files := map[string]elftest.File{
		"usr/bin/p":   {Interp: interp, Needed: []string{"libgone.so.1"}},
		"usr/bin/arm": {Interp: "/lib/ld-linux-aarch64.so.1", Machine: elf.EM_AARCH64},
	}
	s := system(files, map[string]string{"usr/bin/loop": "loop", "usr/bin/dangling": "nothing"})
	s.AddFile("usr/bin/cut", 0o755, files["usr/bin/p"].Bytes()[:100])
	for _, c := range []struct{ root, words string }{
		{"usr/bin/p", "/usr/bin/p needs libgone.so.1"},
		{"usr/bin/arm", "ld-linux-aarch64.so.1"},
		{"usr/bin/loop", "too many levels"},
		{"usr/bin/dangling", "usr/bin/nothing"},
		{"usr/bin/absent", "no /usr/bin/absent"},
		{"usr/bin/cut", "/usr/bin/cut"},
		{lib, "is no file"},
	} {
		_, err := Closure(s, []string{c.root})
		if err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: error %v, expected %q in it", c.root, err, c.words)
		}
	}
}

// FuzzClosure feeds arbitrary bytes as a program: packages are foreign input.
func FuzzClosure(f *testing.F) {
	f.Add(elftest.File{Interp: interp, Needed: []string{"libc.so.6"}, Runpath: "$ORIGIN"}.Bytes())
	f.Add([]byte("\x7fELF"))
	f.Add([]byte("#!/bin/sh"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := system(nil, nil)
		s.AddFile("usr/bin/p", 0o755, b)
		got, err := Closure(s, []string{"usr/bin/p"})
		if err == nil && !slices.Contains(got, "usr/bin/p") {
			t.Errorf("the closure %q lacks the program", got)
		}
	})
}
