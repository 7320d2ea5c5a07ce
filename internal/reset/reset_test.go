package reset_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/nodetest"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/internal/reset"
	"github.com/kiln-os/kiln/internal/secret"
)

// fake is a machine of which nothing but files is real.
type fake struct {
	paths   host.Paths
	kubelet bool
	pods    []reset.Pod
	mounts  []string
	network []string
	stamp   []reset.File // nil: there is no stamp
	events  []string
}

func (f *fake) event(format string, args ...any) {
	f.events = append(f.events, fmt.Sprintf(format, args...))
}

func (f *fake) Reload(context.Context) error { return nil }
func (f *fake) Restart(context.Context, string) error {
	return errors.New("nothing is started by a reset")
}
func (f *fake) Enabled(context.Context, string) (string, error) { return "enabled", nil }
func (f *fake) Active(_ context.Context, unit string) (bool, error) {
	return unit == "kubelet.service" && f.kubelet, nil
}
func (f *fake) Pods(context.Context) ([]reset.Pod, error) { return slices.Clone(f.pods), nil }
func (f *fake) Mounts() ([]string, error)                 { return append([]string{"/", "/proc"}, f.mounts...), nil }

func (f *fake) Stop(_ context.Context, unit string) error {
	f.event("stop %s", unit)
	f.kubelet = false
	return nil
}

func (f *fake) RemovePod(_ context.Context, id string) error {
	f.event("remove %s", id)
	f.pods = slices.DeleteFunc(f.pods, func(p reset.Pod) bool { return p.ID == id })
	return nil
}

func (f *fake) Unmount(path string) error {
	f.event("unmount %s", strings.TrimPrefix(path, f.paths.Root))
	f.mounts = slices.DeleteFunc(f.mounts, func(m string) bool { return m == path })
	return nil
}

func (f *fake) Network(_ context.Context, subnets []string) (out []reset.Change, err error) {
	for _, n := range f.network {
		out = append(out, reset.Change{Text: "delete the interface " + n, Do: func(context.Context) error {
			f.event("delete %s", n)
			f.network = slices.DeleteFunc(f.network, func(have string) bool { return have == n })
			return nil
		}})
	}
	return out, nil
}

func (f *fake) Stamp() ([]reset.File, error) {
	if f.stamp == nil {
		return nil, fs.ErrNotExist
	}
	return f.stamp, nil
}

func put(t *testing.T, path, data string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

// used is a node that has served its cluster for a while.
func used(t *testing.T, change func(*bootplan.Plan)) (reset.Node, *fake) {
	t.Helper()
	cfg := nodetest.Config()
	if change != nil {
		change(&cfg.Plan)
	}
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	paths := host.Paths{Root: root}
	if err := nodetest.ControlPlane(t.Context(), cfg, paths, phase.NewPrinter(t.Output())); err != nil {
		t.Fatal(err)
	}
	if cfg.Plan.Role == bootplan.RoleJoinWorker {
		for _, f := range nodetest.Delivered() {
			if err := os.Remove(paths.PKI(f)); err != nil {
				t.Fatal(err)
			}
		}
		put(t, paths.PKI("ca.crt"), "the cluster's CA")
	}
	// No cluster answers: the kubeconfigs name one that does not exist.
	for _, conf := range []string{"admin.conf", "controller-manager.conf", "kubelet.conf", "bootstrap-kubelet.conf", "scheduler.conf"} {
		put(t, paths.Kubeconfig(conf), "not a kubeconfig")
	}
	for _, f := range []string{
		"/etc/kubernetes/manifests/kube-apiserver.yaml", "/var/lib/kubelet/config.yaml", "/var/lib/kubelet/pki/kubelet-client-current.pem",
		"/var/lib/kubelet/pods/1/volumes/v/data", "/var/lib/etcd/member/snap/db", "/etc/cni/net.d/10-flannel.conflist", "/var/lib/cni/networks/cbr0/10.244.0.2",
		"/run/flannel/subnet.env", "/var/log/pods/kube-system_x/0.log", "/etc/kubernetes/tmp/backup", "/run/containerd/containerd.sock",
		"/var/lib/kiln/firstboot.json", "/var/lib/kiln/firstboot.done", "/var/lib/kiln/ignition.done", "/var/lib/kiln/join/discovery.conf", "/etc/hostname",
	} {
		put(t, paths.At(f), "x")
	}
	m := &fake{
		paths: paths, kubelet: true, network: []string{"cni0", "flannel.1"},
		pods:   []reset.Pod{{ID: "p1", Namespace: "kube-system", Name: "coredns"}, {ID: "p2", Namespace: "default", Name: "web"}},
		mounts: []string{paths.Kubelet("pods/1/volumes/v"), paths.Kubelet("pods/1/volumes/v/inner"), paths.At("/var/lib/kubelet2/v")},
	}
	return reset.Node{Paths: paths, Machine: m, Plan: &cfg.Plan, Name: "cp1", Report: phase.NewPrinter(t.Output())}, m
}

func files(t *testing.T, root string) []string {
	t.Helper()
	var out []string
	if err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, strings.TrimPrefix(p, root))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// left are the files of a control plane that a reset leaves.
var left = []string{
	"/etc/hostname", "/etc/kiln/boot.yaml", "/etc/kubernetes/pki/ca.crt", "/etc/kubernetes/pki/ca.key", "/etc/kubernetes/pki/etcd/ca.crt",
	"/etc/kubernetes/pki/etcd/ca.key", "/etc/kubernetes/pki/front-proxy-ca.crt", "/etc/kubernetes/pki/front-proxy-ca.key",
	"/etc/kubernetes/pki/sa.key", "/etc/kubernetes/pki/sa.pub", "/etc/kubernetes/tmp/backup", "/run/containerd/containerd.sock", "/var/lib/kiln/ignition.done",
}

func TestControlPlane(t *testing.T) {
	n, m := used(t, nil)
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := files(t, n.Paths.Root); !slices.Equal(got, left) {
		t.Errorf("left are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(left, "\n"))
	}
	want := []string{
		"stop kubelet.service", "unmount /var/lib/kubelet/pods/1/volumes/v/inner", "unmount /var/lib/kubelet/pods/1/volumes/v",
		"remove p1", "remove p2", "delete cni0", "delete flannel.1",
	}
	if !slices.Equal(m.events, want) {
		t.Errorf("events %q, want %q", m.events, want)
	}
	for _, dir := range []string{"/etc/kubernetes/manifests", "/var/lib/kubelet", "/var/lib/etcd", "/etc/cni/net.d"} {
		if _, err := os.Stat(n.Paths.At(dir)); err != nil {
			t.Errorf("the folder is gone too: %v", err)
		}
	}
	// What is left is enough for the next first boot.
	if err := nodetest.ControlPlane(t.Context(), nodetest.Config(), host.Paths{Root: t.TempDir()}, n.Report); err != nil {
		t.Fatal(err)
	}
	// Again, on a node that is reset.
	m.events = nil
	if err := n.Run(t.Context()); err != nil || len(m.events) > 0 {
		t.Errorf("the second reset: %v, %q", err, m.events)
	}
}

// stopAfter ends a reset when it begins its k-th change, as a crash would.
type stopAfter struct {
	phase.Report
	k      int
	cancel context.CancelFunc
}

func (s *stopAfter) Step(format string, args ...any) {
	if s.k--; s.k < 0 {
		s.cancel()
		panic(crash{})
	}
	s.Report.Step(format, args...)
}

type crash struct{}

// TestCrash cuts a reset off before each of its changes. The next run ends as if
// nothing had been.
func TestCrash(t *testing.T) {
	for k := 0; ; k++ {
		n, m := used(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		n.Report = &stopAfter{phase.NewPrinter(t.Output()), k, cancel}
		crashed := func() (crashed bool) {
			defer func() {
				if r := recover(); r != nil {
					if _, ok := r.(crash); !ok {
						panic(r)
					}
					crashed = true
				}
			}()
			if err := n.Run(ctx); err != nil {
				t.Fatal(err)
			}
			return false
		}()
		cancel()
		if !crashed {
			if k < 15 {
				t.Errorf("only %d changes", k)
			}
			return
		}
		pending, err := reset.Pending(n.Paths)
		if err != nil || pending == nil {
			t.Fatalf("before change %d: pending %v, %v", k, pending, err)
		}
		if _, err := os.Stat(n.Paths.Done()); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("before change %d: the next boot would not start firstboot: %v", k, err)
		}
		n.Report = phase.NewPrinter(t.Output())
		if err := n.Run(t.Context()); err != nil {
			t.Fatalf("after a crash before change %d: %v", k, err)
		}
		if got := files(t, n.Paths.Root); !slices.Equal(got, left) || len(m.pods)+len(m.network) > 0 || len(m.mounts) != 1 {
			t.Fatalf("after a crash before change %d: %q %+v", k, got, m)
		}
	}
}

func TestDryRun(t *testing.T) {
	n, m := used(t, nil)
	n.Options.CleanupTmpDir = true
	before := files(t, n.Paths.Root)
	var said strings.Builder
	n.Report = phase.NewPrinter(&said)
	if err := n.DryRun(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := files(t, n.Paths.Root); !slices.Equal(got, before) || len(m.events) > 0 {
		t.Errorf("changed: %q, %q", got, m.events)
	}
	for _, want := range []string{
		"[dryrun] cleanup-node: would stop kubelet.service\n", "would unmount ", "would remove the pod kube-system/coredns\n",
		"[dryrun] network: would delete the interface cni0\n", "would delete the contents of /etc/kubernetes/pki\n", "of /etc/kubernetes/tmp\n",
		"would delete /etc/kubernetes/admin.conf\n", "would delete firstboot's record in /var/lib/kiln\n", "warning: the Node object cp1 is left in the cluster",
	} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, said.String())
		}
	}
}

// TestWorker: what firstboot removed from the boot plan comes back from the stamp, and
// no file is left that a joining machine must not have.
func TestWorker(t *testing.T) {
	n, m := used(t, func(p *bootplan.Plan) {
		p.Role = bootplan.RoleJoinWorker
		p.Tokens = []bootplan.Token{{ID: "abcdef", Secret: secret.FromString("0123456789abcdef")}}
		p.Discovery = &bootplan.Discovery{Endpoint: "192.0.2.1:6443", CACertHashes: []string{"sha256:" + strings.Repeat("0", 64)}}
	})
	m.stamp = []reset.File{
		{Path: "/etc/kiln/boot.yaml", Mode: 0o600, Data: secret.FromString("as delivered")},
		{Path: "/etc/hostname", Mode: 0o644, Data: secret.FromString("worker1")},
		{Path: "/etc/cni/net.d/05-own.conf", Mode: 0o644, Data: secret.FromString("own")},
		{Path: "/etc/kubernetes/pki/elsewhere.crt", Mode: 0o644, Remote: true},
	}
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{"/etc/cni/net.d/05-own.conf", "/etc/hostname", "/etc/kiln/boot.yaml", "/etc/kubernetes/tmp/backup", "/run/containerd/containerd.sock", "/var/lib/kiln/ignition.done"}
	if got := files(t, n.Paths.Root); !slices.Equal(got, want) {
		t.Errorf("left are %q", got)
	}
	for path, want := range map[string]string{n.Paths.BootPlan(): "as delivered", n.Paths.At("/etc/hostname"): "x"} {
		if b, err := os.ReadFile(path); err != nil || string(b) != want {
			t.Errorf("%s: %s, %v", path, b, err)
		}
	}
	if st, err := os.Stat(n.Paths.BootPlan()); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

// TestAfterKubeadmReset: real kubeadm has emptied the certificates' folder.
func TestAfterKubeadmReset(t *testing.T) {
	n, m := used(t, nil)
	m.stamp = []reset.File{}
	for _, f := range nodetest.Delivered() {
		b, err := os.ReadFile(n.Paths.PKI(f))
		if err != nil {
			t.Fatal(err)
		}
		m.stamp = append(m.stamp, reset.File{Path: "/etc/kubernetes/pki/" + f, Mode: 0o600, Data: secret.New(b)})
	}
	if err := os.RemoveAll(n.Paths.PKI()); err != nil {
		t.Fatal(err)
	}
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := files(t, n.Paths.Root); !slices.Equal(got, left) {
		t.Errorf("left are\n%s", strings.Join(got, "\n"))
	}
}

// TestKeysThatAreGone are named if no stamp has them.
func TestKeysThatAreGone(t *testing.T) {
	n, _ := used(t, nil)
	if err := os.Remove(n.Paths.PKI("etcd/ca.key")); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	n.Report = phase.NewPrinter(&said)
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := "warning: /etc/kubernetes/pki/etcd/ca.key is neither on this node nor in its stamp"; !strings.Contains(said.String(), want) {
		t.Errorf("it says\n%s", said.String())
	}
}

// TestForeignNode: a node that Kiln did not make keeps nothing, as with kubeadm.
func TestForeignNode(t *testing.T) {
	n, _ := used(t, nil)
	n.Plan = nil
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := files(t, n.Paths.PKI()); len(got) > 0 {
		t.Errorf("left are %q", got)
	}
}

// TestStillMounted: nothing is deleted through a mount.
func TestStillMounted(t *testing.T) {
	n, m := used(t, nil)
	m.mounts = append(m.mounts, n.Paths.EtcdData()+"/member")
	err := n.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "member is still mounted") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(n.Paths.EtcdData() + "/member/snap/db"); err != nil {
		t.Error(err)
	}
}

func TestPending(t *testing.T) {
	paths := host.Paths{Root: t.TempDir()}
	if m, err := reset.Pending(paths); m != nil || err != nil {
		t.Errorf("%v, %v", m, err)
	}
	for text, want := range map[string]string{"{": "is damaged", `{"version": 2}`: "has version 2", "": "is damaged"} {
		put(t, paths.Reset(), text)
		if m, err := reset.Pending(paths); m != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v", text, m, err)
		}
	}
	put(t, paths.Reset(), `{"version": 1, "drain": true, "drainTimeout": 60000000000}`)
	if m, err := reset.Pending(paths); err != nil || !m.Drain || m.DrainTimeout != time.Minute {
		t.Errorf("%+v, %v", m, err)
	}
}
