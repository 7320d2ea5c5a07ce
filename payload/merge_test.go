package payload

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestFiles(t *testing.T) {
	c := Component{Programs: []Program{{Name: "a"}, {Name: "b"}, {Name: "c", In: "a"}, {Name: "d", In: "b"}, {Name: "e", In: "a"}}}
	var got []string
	for _, list := range c.files() {
		var names []string
		for _, p := range list {
			names = append(names, p.Name)
		}
		got = append(got, strings.Join(names, " "))
	}
	if want := []string{"a c e", "b d"}; !slices.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
	for _, c := range everyComponent(t) {
		for i, p := range c.Programs {
			if p.In != "" && !slices.ContainsFunc(c.Programs[:i], func(o Program) bool { return o.Name == p.In && o.In == "" }) {
				t.Errorf("%s is in %s, which is no earlier program of %s with a file of its own", p.Name, p.In, c.Name)
			}
		}
	}
}

// mergeSource writes a component with programs of two files, with a function of the same name in
// each, and compiles it.
func mergeSource(t *testing.T) (dir string, err error) {
	t.Helper()
	root := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module github.com/kiln-os/kiln/payload/tools\n\ngo 1.26\n",
		"one-two/main.go": `// Package main is one.
package main

import "os"

func main() {
	say(os.Args[1:])
}
`,
		"one-two/say.go": "package main\n\nimport \"fmt\"\n\nfunc say(a []string) { fmt.Println(\"package main says\", a) }\n",
		"three/main.go":  "package main\n\nimport \"os\"\n\nfunc say() int { return 3 }\n\nfunc main() { os.Exit(say()) }\n",
		"none/none.go":   "package none\n",
	} {
		file := filepath.Join(root, "tools", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := Component{Name: "tools", Module: "tools", Version: "v1", Programs: []Program{
		{Name: "one-two", Package: "./one-two"}, {Name: "three", Package: "./three", In: "one-two"},
	}}
	dir = t.TempDir()
	o := Options{Arch: getArch(t, runtime.GOARCH), Go: "go", SourceDir: root, Progress: func(string) {}}
	if err := compile(t.Context(), o, c, dir); err != nil {
		return "", err
	}
	c.Programs[1].Package = "./none"
	if err := compile(t.Context(), o, c, t.TempDir()); err == nil || !strings.Contains(err.Error(), "./none has no function main") {
		t.Errorf("a package without main: %v", err)
	}
	return dir, nil
}

func TestMerge(t *testing.T) {
	dir, err := mergeSource(t)
	if err != nil {
		t.Fatal(err)
	}
	status := func(want int, name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(filepath.Join(dir, name), args...)
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Errorf("%s %q: status %d, want %d\n%s", name, args, got, want, out)
		}
		return string(out)
	}
	if out := status(0, "one-two", "x"); out != "package main says [x]\n" {
		t.Errorf("one-two: %q", out)
	}
	status(3, "three")
	if err := os.Rename(filepath.Join(dir, "three"), filepath.Join(dir, "other")); err != nil {
		t.Fatal(err)
	}
	status(3, "other", "three")
	if out := status(2, "other"); !strings.Contains(out, "PROGRAM is one of one-two, three") {
		t.Errorf("an unknown name: %s", out)
	}
	first, err := os.ReadFile(filepath.Join(dir, "one-two"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := mergeSource(t)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := os.ReadFile(filepath.Join(again, "one-two")); err != nil || !slices.Equal(first, second) {
		t.Errorf("the same sources in another folder give other bytes (%v)", err)
	}
}
