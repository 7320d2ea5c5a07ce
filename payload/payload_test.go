package payload

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"debug/elf"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/arch"
)

func getArch(t *testing.T, name string) arch.Arch {
	t.Helper()
	a, err := arch.Get(name)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// goMod is what `go mod edit -json` says about a component's module.
type goMod struct {
	Module  struct{ Path string }
	Require []struct{ Path, Version string }
	Replace []struct {
		Old, New struct{ Path, Version string }
	}
	Tool []struct{ Path string }
}

func readGoMod(t *testing.T, c Component) goMod {
	t.Helper()
	cmd := exec.Command("go", "mod", "edit", "-json")
	cmd.Dir = c.Module
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", c.Name, err)
	}
	var m goMod
	if err := json.Unmarshal(out, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func componentsOf(t *testing.T, kubernetes string) []Component {
	t.Helper()
	list, err := Components(kubernetes)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// everyComponent are those of all versions of Kubernetes, each once.
func everyComponent(t *testing.T) []Component {
	t.Helper()
	var out []Component
	for _, v := range KubernetesVersions() {
		for _, c := range componentsOf(t, v) {
			if !slices.ContainsFunc(out, func(o Component) bool { return o.Module == c.Module }) {
				out = append(out, c)
			}
		}
	}
	return out
}

func TestTableMatchesModules(t *testing.T) {
	names := map[string]string{}
	for _, c := range everyComponent(t) {
		m := readGoMod(t, c)
		if want := "github.com/kiln-os/kiln/payload/" + c.Module; m.Module.Path != want {
			t.Errorf("%s: module %s, expected %s", c.Name, m.Module.Path, want)
		}
		version := func(path string) string {
			for _, r := range m.Require {
				if r.Path == path {
					return r.Version
				}
			}
			return ""
		}
		if c.Pin != "" && version(c.Pin) != c.Version {
			t.Errorf("%s: go.mod pins %s %q, the table says %s", c.Name, c.Pin, version(c.Pin), c.Version)
		}
		for _, r := range m.Replace {
			if r.New.Version == "" {
				t.Errorf("%s: %s is replaced by the folder %s: nothing checks its bytes", c.Name, r.Old.Path, r.New.Path)
			}
			if c.Name == "kubernetes" && r.New.Version != strings.Replace(c.Version, "v1.", "v0.", 1) {
				t.Errorf("%s: %s is of %s", c.Module, r.New.Path, r.New.Version)
			}
		}
		if c.Name == "etcd" && version("go.etcd.io/etcd/etcdctl/v3") != EtcdVersion {
			t.Errorf("etcdctl is of %s", version("go.etcd.io/etcd/etcdctl/v3"))
		}
		for _, p := range c.Programs {
			if by := names[p.Name]; by != "" && by != c.Name {
				t.Errorf("two programs are called %s", p.Name)
			}
			names[p.Name] = c.Name
			// A program of another module is a tool of ours, so that go.sum has all of it.
			local := p.Package == "." || strings.HasPrefix(p.Package, "./")
			if !local && !slices.ContainsFunc(m.Tool, func(t struct{ Path string }) bool { return t.Path == p.Package }) {
				t.Errorf("%s: %s is no tool in go.mod", c.Name, p.Package)
			}
		}
	}
	for _, n := range append(CNIPlugins(), Kubernetes, Etcd, Etcdctl, Containerd, Shim, Ctr, CoreDNS, Flanneld, FlannelInstallConf, Pause) {
		if names[n] == "" {
			t.Errorf("no component builds %s", n)
		}
	}
}

// TestModulesAreWhole fails if a go.mod or go.sum lacks something for any of the
// architectures: go build would then fail, or worse, take what it finds.
func TestModulesAreWhole(t *testing.T) {
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range everyComponent(t) {
		for _, a := range arch.Names() {
			o := Options{Arch: getArch(t, a), Go: "go", SourceDir: here}
			args := []string{"list", "-mod=readonly", "-deps", "-f", "{{.ImportPath}}"}
			args = append(args, c.modfile(o)...)
			for _, p := range c.Programs {
				args = append(args, p.Package)
			}
			if _, err := run(command(t.Context(), o, c.Name, args...)); err != nil {
				t.Errorf("%s for %s: %v", c.Module, a, err)
			}
		}
	}
}

func TestKubernetesVersions(t *testing.T) {
	if v := KubernetesVersions(); v[0] != KubernetesVersion || v[1] != PreviousKubernetesVersion {
		t.Errorf("versions %v", v)
	}
	now, before := componentsOf(t, KubernetesVersion), componentsOf(t, PreviousKubernetesVersion)
	for i, c := range before {
		if c.Name != now[i].Name || (c.Version != now[i].Version) != (c.Name == "kubernetes") {
			t.Errorf("%s %s instead of %s %s", c.Name, c.Version, now[i].Name, now[i].Version)
		}
	}
	if flags := before[0].ldflags(); !strings.Contains(flags, "gitVersion="+PreviousKubernetesVersion) || strings.Contains(flags, KubernetesVersion) {
		t.Errorf("linker flags %s", flags)
	}
	_, err := Components("v1.35.0")
	for _, words := range []string{`"v1.35.0"`, KubernetesVersion + " and " + PreviousKubernetesVersion} {
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("error %v, expected %q in it", err, words)
		}
	}
	if _, err := Build(t.Context(), Options{Kubernetes: "v1.35.0"}); err == nil {
		t.Error("v1.35.0 is built")
	}
}

// TestKubernetesKeys: the versions have one source, and each its go.mod and go.sum.
func TestKubernetesKeys(t *testing.T) {
	dir := t.TempDir()
	files := []string{"kubernetes/main.go"}
	for _, r := range kubernetesReleases {
		files = append(files, r.module+"/go.mod", r.module+"/go.sum")
	}
	for _, f := range files {
		p := filepath.Join(dir, f)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(f), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	keys := func() map[string]string {
		out := map[string]string{}
		for _, v := range KubernetesVersions() {
			k, err := entryKey(Options{Arch: getArch(t, "amd64"), SourceDir: dir}, componentsOf(t, v)[0], "go1.26.6")
			if err != nil {
				t.Fatal(err)
			}
			out[v] = k
		}
		return out
	}
	before := keys()
	if before[KubernetesVersion] == before[PreviousKubernetesVersion] {
		t.Error("two versions have one key")
	}
	for _, f := range files {
		p := filepath.Join(dir, f)
		if err := os.WriteFile(p, []byte("changed"), 0o644); err != nil {
			t.Fatal(err)
		}
		after := keys()
		for _, r := range kubernetesReleases {
			want := f == "kubernetes/main.go" || strings.HasPrefix(f, r.module+"/")
			if (before[r.version] != after[r.version]) != want {
				t.Errorf("a change of %s: the key of %s changes: %v", f, r.version, !want)
			}
		}
		before = after
	}
}

// TestNestedTests runs the tests of the modules that hold code of Kiln's own.
func TestNestedTests(t *testing.T) {
	for _, m := range []string{"pause", "cni", "flannel"} {
		for _, args := range [][]string{{"vet", "./..."}, {"test", "./..."}} {
			cmd := command(t.Context(), Options{Arch: getArch(t, runtime.GOARCH), Go: "go"}, m, args...)
			if _, err := run(cmd); err != nil {
				t.Errorf("%s: %v", m, err)
			}
		}
	}
}

// pauseSource is a source folder with the pause module alone, to change.
func pauseSource(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"pause", "kubernetes"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"pause/go.mod", "pause/main.go", "kubernetes/go.mod"} {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, f), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func options(t *testing.T) Options {
	return Options{
		Arch: getArch(t, runtime.GOARCH), CacheDir: t.TempDir(), SourceDir: pauseSource(t), Components: []string{"pause"},
	}
}

// buildPause returns pause and how often it was compiled.
func buildPause(t *testing.T, o Options) (Binary, int) {
	t.Helper()
	compiled := 0
	o.Progress = func(line string) {
		if strings.HasPrefix(line, "compile ") {
			compiled++
		}
	}
	r, err := Build(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.Get(Pause)
	if err != nil {
		t.Fatal(err)
	}
	return b, compiled
}

func TestCache(t *testing.T) {
	o := options(t)
	first, compiled := buildPause(t, o)
	if compiled != 1 {
		t.Fatalf("compiled %d times", compiled)
	}
	good, err := os.ReadFile(first.Path)
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(good)) != first.Size || first.Version != PauseVersion || first.Component != "pause" {
		t.Errorf("%d bytes, described as %+v", len(good), first)
	}
	if again, compiled := buildPause(t, o); again != first || compiled != 0 {
		t.Errorf("second build: compiled %d times, %+v", compiled, again)
	}
	for name, damage := range map[string]func() error{
		"one byte":     func() error { return os.WriteFile(first.Path, append([]byte{good[0] ^ 1}, good[1:]...), 0o755) },
		"cut":          func() error { return os.Truncate(first.Path, first.Size/2) },
		"program gone": func() error { return os.Remove(first.Path) },
		"list gone":    func() error { return os.Remove(filepath.Join(filepath.Dir(first.Path), listName)) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		b, compiled := buildPause(t, o)
		now, err := os.ReadFile(b.Path)
		if err != nil || compiled != 1 || !bytes.Equal(now, good) {
			t.Errorf("%s: compiled %d times, same bytes: %v, %v", name, compiled, bytes.Equal(now, good), err)
		}
	}
}

func TestKeyFollowsInputs(t *testing.T) {
	key := func(o Options, c Component, goVersion string) string {
		t.Helper()
		k, err := entryKey(o, c, goVersion)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	o := options(t)
	pause, err := component(componentsOf(t, KubernetesVersion), "pause")
	if err != nil {
		t.Fatal(err)
	}
	base := key(o, pause, "go1.26.6")
	seen := map[string]string{base: "the first"}
	note := func(what, k string) {
		if by, ok := seen[k]; ok {
			t.Errorf("%s has the key of %s", what, by)
		}
		seen[k] = what
	}
	note("another Go", key(o, pause, "go1.26.7"))
	other := o
	for _, a := range arch.Names() {
		if a != o.Arch.Go {
			other.Arch = getArch(t, a)
			note(a, key(other, pause, "go1.26.6"))
		}
	}
	other.Arch.GoARM = "6"
	note("another GOARM", key(other, pause, "go1.26.6"))
	flagged := pause
	flagged.set = []string{"main.version=3.10.3"}
	note("another linker flag", key(o, flagged, "go1.26.6"))
	dir := filepath.Join(o.SourceDir, "pause")
	for _, f := range []string{"main.go", "go.mod", "new.go"} {
		p := filepath.Join(dir, f)
		old, _ := os.ReadFile(p)
		if err := os.WriteFile(p, append(slices.Clone(old), "// more\n"...), 0o644); err != nil {
			t.Fatal(err)
		}
		note("a change of "+f, key(o, pause, "go1.26.6"))
		if old == nil {
			os.Remove(p)
		} else if err := os.WriteFile(p, old, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// Tests are in no program.
	if err := os.WriteFile(filepath.Join(dir, "main_test.go"), []byte("package main\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if key(o, pause, "go1.26.6") != base {
		t.Error("a test changes the key, or something was not put back")
	}
}

func TestTwoBuildsAtOnce(t *testing.T) {
	o := options(t)
	var mu sync.Mutex
	compiled := 0
	o.Progress = func(line string) {
		mu.Lock()
		defer mu.Unlock()
		if strings.HasPrefix(line, "compile ") {
			compiled++
		}
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := Build(t.Context(), o); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if compiled != 1 {
		t.Errorf("compiled %d times", compiled)
	}
}

// TestBytesDoNotDependOnThePlace builds from two folders into two caches.
func TestBytesDoNotDependOnThePlace(t *testing.T) {
	t.Setenv("GOFLAGS", "-tags=something") // nor on the user's settings
	a, _ := buildPause(t, options(t))
	t.Setenv("GOFLAGS", "")
	b, _ := buildPause(t, options(t))
	if a.SHA256 != b.SHA256 {
		t.Errorf("two builds differ: %s, %s", a.SHA256, b.SHA256)
	}
}

func TestEveryArchitecture(t *testing.T) {
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "arm": elf.EM_ARM, "ppc64le": elf.EM_PPC64}
	o := options(t)
	for _, name := range arch.Names() {
		o.Arch = getArch(t, name)
		b, _ := buildPause(t, o)
		f, err := elf.Open(b.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if f.Machine != machines[name] {
			t.Errorf("%s: machine %s", name, f.Machine)
		}
		if libs, _ := f.ImportedLibraries(); len(libs) != 0 {
			t.Errorf("%s: needs %v", name, libs)
		}
		info, err := buildinfo.ReadFile(b.Path)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range info.Settings {
			if strings.HasPrefix(s.Key, "vcs") {
				t.Errorf("%s: holds %s=%s", name, s.Key, s.Value)
			}
		}
	}
}

func TestPauseRuns(t *testing.T) {
	b, _ := buildPause(t, options(t))
	out, err := exec.Command(b.Path, "-v").Output()
	if err != nil || !strings.Contains(string(out), PauseVersion) {
		t.Errorf("pause -v: %q, %v", out, err)
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		cmd := exec.Command(b.Path)
		stderr, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// It says that it is not the first process once it has its signal handlers.
		if _, err := stderr.Read(make([]byte, 256)); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("after %v: %v", sig, err)
			}
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			t.Errorf("%v does not end it", sig)
		}
	}
}

func TestFailedBuildSaysWhy(t *testing.T) {
	o := options(t)
	broken := "package main\n\nfunc main() { undefinedThing() }\n"
	if err := os.WriteFile(filepath.Join(o.SourceDir, "pause/main.go"), []byte(broken), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Build(t.Context(), o)
	for _, words := range []string{"payload pause", "undefined: undefinedThing", "go build"} {
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("error %v, expected %q in it", err, words)
		}
	}
	entries, _ := filepath.Glob(filepath.Join(o.CacheDir, "payload/*/*/pause"))
	if len(entries) != 0 {
		t.Errorf("a failed build left %v", entries)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Build(ctx, o); err == nil {
		t.Error("a cancelled build succeeds")
	}
	o.Go = filepath.Join(t.TempDir(), "no-go")
	if _, err := Build(t.Context(), o); err == nil {
		t.Error("a build without Go succeeds")
	}
	o.Go, o.Components = "", []string{"paws"}
	if _, err := Build(t.Context(), o); err == nil || !strings.Contains(err.Error(), "paws") {
		t.Errorf("unknown component: %v", err)
	}
}

func TestFindSource(t *testing.T) {
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(SourceEnv, "")
	// The tests run in payload/, below the checkout.
	if got, err := FindSource(""); err != nil || got != here {
		t.Errorf("from the working folder: %s, %v", got, err)
	}
	elsewhere := t.TempDir()
	t.Chdir(elsewhere)
	if _, err := FindSource(""); err == nil || !strings.Contains(err.Error(), SourceEnv) || !strings.Contains(err.Error(), "--payload-dir") {
		t.Errorf("outside a checkout: %v", err)
	}
	if got, err := FindSource(here); err != nil || got != here {
		t.Errorf("given: %s, %v", got, err)
	}
	if _, err := FindSource(elsewhere); err == nil || !strings.Contains(err.Error(), elsewhere) {
		t.Errorf("a wrong folder: %v", err)
	}
	t.Setenv(SourceEnv, here)
	if got, err := FindSource(""); err != nil || got != here {
		t.Errorf("from the environment: %s, %v", got, err)
	}
}

func TestTailOf(t *testing.T) {
	long := strings.Repeat("line of output\n", 1000) + "the end\n"
	got := tailOf(long, 100)
	if len(got) > 120 || !strings.HasSuffix(got, "the end") || !strings.HasPrefix(got, "[…]\nline of output\n") {
		t.Errorf("tail %q", got)
	}
	if got := tailOf(" short\n", 100); got != "short" {
		t.Errorf("tail %q", got)
	}
}
