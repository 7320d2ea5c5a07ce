package units

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestStartOrder runs the script on a folder of manifests, with an API server that
// is ready when a file says so.
func TestStartOrder(t *testing.T) {
	dir := t.TempDir()
	script, err := files.ReadFile("system/usr/lib/kiln/start-order")
	if err != nil {
		t.Fatal(err)
	}
	manifests := filepath.Join(dir, "manifests")
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("start-order", string(script))
	write("api-server-ready", "echo \"$1\" >> "+dir+"/asked; test \"$(wc -l < "+dir+"/asked)\" = 2\n")
	// It notes what the kubelet sees while the leases are given back.
	write("bin/firstboot", "#!/bin/sh\necho \"$*: $(ls "+manifests+")\" >> "+dir+"/leases\n")
	if err := os.Chmod(filepath.Join(dir, "bin/firstboot"), 0o755); err != nil {
		t.Fatal(err)
	}
	write("cpu.weight", "100\n")
	t.Setenv("SYSTEM_SLICE", dir)
	write("bin/systemctl", "#!/bin/sh\necho \"$*\" >> "+dir+"/systemctl\n")
	if err := os.Chmod(filepath.Join(dir, "bin/systemctl"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("RUNTIME_DIRECTORY", dir)
	t.Setenv("PATH", filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	port := server.Addr().(*net.TCPAddr).Port
	write("manifests/kube-apiserver.yaml", fmt.Sprintf("  - command:\n    - kube-apiserver\n    - --advertise-address=fd00::101\n    - --secure-port=%d\n", port))
	write("manifests/kube-scheduler.yaml", "scheduler")
	write("manifests/kube-controller-manager.yaml", "manager")
	run := func(verb string) {
		t.Helper()
		if out, err := exec.Command("sh", filepath.Join(dir, "start-order"), verb, manifests).CombinedOutput(); err != nil || len(out) > 0 {
			t.Fatalf("start-order %s: %v\n%s", verb, err, out)
		}
	}
	// visible is what the kubelet starts: it ignores names that begin with a dot.
	visible := func() string {
		t.Helper()
		names, err := filepath.Glob(filepath.Join(manifests, "[^.]*"))
		if err != nil {
			t.Fatal(err)
		}
		for i, n := range names {
			b, err := os.ReadFile(n)
			if err != nil {
				t.Fatal(err)
			}
			names[i] = strings.TrimSuffix(filepath.Base(n), ".yaml")
			if names[i] != "kube-apiserver" {
				names[i] += "=" + string(b)
			}
		}
		return strings.Join(names, " ")
	}
	all := "kube-apiserver kube-controller-manager=manager kube-scheduler=scheduler"
	run("hold")
	run("hold") // the machine was reset before the release
	if got := visible(); got != "kube-apiserver" {
		t.Errorf("held: the kubelet sees %s", got)
	}
	run("wait")
	if asked, err := os.ReadFile(filepath.Join(dir, "asked")); err != nil || string(asked) != strings.Repeat(fmt.Sprintf("[fd00::101]:%d\n", port), 2) {
		t.Errorf("asked %q, %v", asked, err)
	}
	if leases, err := os.ReadFile(filepath.Join(dir, "leases")); err != nil || string(leases) != "release-leases: kube-apiserver.yaml\n" {
		t.Errorf("leases: %q, %v", leases, err)
	}
	run("release")
	run("release")
	if got := visible(); got != all {
		t.Errorf("released: the kubelet sees %s", got)
	}
	calls, err := os.ReadFile(filepath.Join(dir, "systemctl"))
	const set = "set-property --runtime system.slice CPUWeight="
	if want := set + "10\n" + set + "10\n" + set + "100\n"; err != nil || string(calls) != want {
		t.Errorf("systemctl: %q, %v, want %q", calls, err, want)
	}
	// A manifest that somebody writes in between is newer than the one that is held.
	run("hold")
	write("manifests/kube-scheduler.yaml", "upgraded")
	run("release")
	if got := visible(); got != strings.Replace(all, "=scheduler", "=upgraded", 1) {
		t.Errorf("upgraded: the kubelet sees %s", got)
	}
	if entries, err := os.ReadDir(manifests); err != nil || len(entries) != 3 {
		t.Errorf("left over: %v, %v", entries, err)
	}
}
