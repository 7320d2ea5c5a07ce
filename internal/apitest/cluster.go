// Package apitest runs a real etcd, kube-apiserver, kube-controller-manager and
// kube-scheduler on loopback, for tests of what firstboot says to an API server.
//
// The programs are the payload's. Certificates, kubeconfigs and command lines are
// those that firstboot's own phases make for a node whose advertise address is one
// of 127.0.0.0/8, chosen at random: the ports can be the real ones, and several
// tests, or a node on the host, do not meet.
package apitest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeletconfig"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/internal/phases/certs"
	"github.com/kiln-os/kiln/internal/phases/kubeconfig"
	"github.com/kiln-os/kiln/internal/staticpod"
	"github.com/kiln-os/kiln/payload"
	"github.com/kiln-os/kiln/pki"
)

// ProgramsEnv names a folder with the programs etcd and kubernetes to use instead
// of the payload's; kubernetes-v1.36.3 is that of another version than the payload's.
const ProgramsEnv = "KILN_PAYLOAD_DIR"

// Cluster is a control plane without a kubelet.
type Cluster struct {
	Config nodeconfig.Config
	// Paths is the node's file system, with all files that phases before
	// wait-control-plane write.
	Paths host.Paths
	// Report writes to the test's log.
	Report phase.Report

	etcd, kubernetes string // programs
	secrets          string // folder of the cluster's authority
	kubelet          atomic.Bool
}

// New prepares a control plane of which nothing runs yet. With change the plan can
// be made another one.
func New(t *testing.T, change func(*bootplan.Plan)) *Cluster {
	t.Helper()
	return NewAt(t, randomLoopback(t), change)
}

// NewAt is New with the address at which everything listens.
func NewAt(t *testing.T, addr string, change func(*bootplan.Plan)) *Cluster {
	t.Helper()
	c := &Cluster{Paths: host.Paths{Root: t.TempDir()}, Report: phase.NewPrinter(logWriter{t})}
	c.Config = Config(addr)
	c.secrets = filepath.Join(t.TempDir(), "secrets")
	authority, err := pki.LoadOrCreate(c.secrets, pki.Options{
		Algorithm: pki.Algorithm(c.Config.Plan.Cluster.EncryptionAlgorithm), ClusterName: c.Config.Plan.Cluster.Name,
		Endpoint: c.Config.LocalAPIEndpoint(), TokenTTL: time.Hour, Now: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Config.Plan.Tokens = []bootplan.Token{{ID: authority.Token.ID, Secret: authority.Token.Secret, Expires: authority.Token.Expires}}
	if change != nil {
		change(&c.Config.Plan)
	}
	c.findPrograms(t)
	c.installAuthority(t)
	for _, run := range []func(context.Context, nodeconfig.Config, host.Paths, phase.Report) error{certs.Run, kubeconfig.Run} {
		if err := run(t.Context(), c.Config, c.Paths, c.Report); err != nil {
			t.Fatal(err)
		}
	}
	c.writeKubelet(t)
	c.writeManifests(t)
	return c
}

// findPrograms sets the programs' paths, of the plan's version of Kubernetes. A test
// that cannot have them fails.
func (c *Cluster) findPrograms(t *testing.T) {
	t.Helper()
	version := c.Config.Plan.Cluster.KubernetesVersion
	if dir := os.Getenv(ProgramsEnv); dir != "" {
		c.etcd, c.kubernetes = filepath.Join(dir, payload.Etcd), filepath.Join(dir, payload.Kubernetes)
		if version != payload.KubernetesVersion {
			c.kubernetes += "-" + version
		}
	} else {
		a, err := arch.Get(runtime.GOARCH)
		if err != nil {
			t.Fatal(err)
		}
		r, err := payload.Build(t.Context(), payload.Options{
			Arch: a, Kubernetes: version, Components: []string{"etcd", "kubernetes"}, Progress: func(s string) { t.Log(s) },
		})
		if err != nil {
			t.Fatal(err)
		}
		for name, path := range map[string]*string{payload.Etcd: &c.etcd, payload.Kubernetes: &c.kubernetes} {
			b, err := r.Get(name)
			if err != nil {
				t.Fatal(err)
			}
			*path = b.Path
		}
	}
	for _, p := range []string{c.etcd, c.kubernetes} {
		if _, err := os.Stat(p); err != nil {
			t.Fatalf("%v; make the programs with imagegen payload, or name their folder with %s", err, ProgramsEnv)
		}
	}
}

// randomLoopback returns an address of 127.0.0.0/8 whose API port is free.
func randomLoopback(t *testing.T) string {
	t.Helper()
	for range 20 {
		var b [3]byte
		if _, err := rand.Read(b[:]); err != nil {
			t.Fatal(err)
		}
		addr := fmt.Sprintf("127.%d.%d.%d", b[0]%254+1, b[1], b[2]%254+1)
		l, err := net.Listen("tcp", net.JoinHostPort(addr, fmt.Sprint(bootplan.DefaultAPIPort)))
		if err == nil {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			return addr
		}
	}
	t.Fatal("no address of 127.0.0.0/8 has a free port 6443")
	return ""
}

// installAuthority puts the cluster's CAs and keys where Ignition puts them.
func (c *Cluster) installAuthority(t *testing.T) {
	t.Helper()
	for _, name := range []string{
		"ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "etcd/ca.crt", "etcd/ca.key", "sa.key", "sa.pub",
	} {
		data, err := os.ReadFile(filepath.Join(c.secrets, name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, c.Paths.PKI(name), data)
	}
}

// writeKubelet writes the kubelet's configuration with a health port of its own,
// behind which a server answers that stands for the kubelet: one that is not
// healthy until StartKubelet.
func (c *Cluster) writeKubelet(t *testing.T) {
	t.Helper()
	kc, err := kubeletconfig.ForNode(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	port := c.serveHealth(t)
	kc.HealthzPort = &port
	data, err := kubeletconfig.Marshal(kc)
	if err != nil {
		t.Fatal(err)
	}
	write(t, c.Paths.Kubelet("config.yaml"), data)
}

// serveHealth starts the server that stands for the kubelet's and returns its port.
func (c *Cluster) serveHealth(t *testing.T) int32 {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !c.kubelet.Load() || r.URL.Path != "/healthz" {
			http.Error(w, "kubelet is not healthy yet", http.StatusInternalServerError)
		}
	}))
	t.Cleanup(s.Close)
	return int32(s.Listener.Addr().(*net.TCPAddr).Port)
}

// writeManifests writes the static pods, whose components listen on the cluster's
// own address and work below the test's folder.
func (c *Cluster) writeManifests(t *testing.T) {
	t.Helper()
	pods, err := staticpod.ControlPlane(c.Config, c.Paths)
	if err != nil {
		t.Fatal(err)
	}
	etcd, err := staticpod.EtcdPod(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range append(pods, etcd) {
		command := pod.Spec.Containers[0].Command
		for i, a := range command {
			command[i] = c.local(a)
		}
		if pod.Name == staticpod.APIServer {
			// Endpoints of the Service kubernetes cannot be loopback addresses.
			pod.Spec.Containers[0].Command = append(command, "--bind-address="+c.Config.AdvertiseAddress.String(), "--endpoint-reconciler-type=none")
		}
		if _, err := staticpod.Write(c.Paths, pod); err != nil {
			t.Fatal(err)
		}
	}
}

// local moves the paths and addresses of a flag.
func (c *Cluster) local(flag string) string {
	name, value, ok := strings.Cut(flag, "=")
	if !ok {
		return flag
	}
	var out []string
	seen := map[string]bool{}
	for _, v := range strings.Split(value, ",") {
		if strings.HasPrefix(v, "/etc/kubernetes/") || strings.HasPrefix(v, "/var/lib/") {
			v = c.Paths.At(v)
		}
		v = strings.ReplaceAll(v, "127.0.0.1", c.Config.AdvertiseAddress.String())
		if !seen[v] {
			seen[v] = true
			out = append(out, v)
		}
	}
	return name + "=" + strings.Join(out, ",")
}

// StartKubelet makes the stand-in for the kubelet's health endpoint healthy.
func (c *Cluster) StartKubelet() { c.kubelet.Store(true) }

// Start runs components by their static pods' command lines until the test ends.
// It does not wait until they answer.
func (c *Cluster) Start(t *testing.T, components ...string) {
	t.Helper()
	for _, name := range components {
		pod := Manifests(t, filepath.Join(c.Paths.Manifests(), name+".yaml"))["Pod "+name].(*corev1.Pod)
		argv := append([]string{c.kubernetes}, pod.Spec.Containers[0].Command...)
		if name == staticpod.Etcd {
			argv = append([]string{c.etcd}, pod.Spec.Containers[0].Command[1:]...)
		}
		start(t, name, argv)
	}
}

// process is a program that was started.
type process struct {
	stop func()        // kills it and waits until it is gone
	done chan struct{} // is closed when it is gone
}

// start runs a program until the test ends, or until it is stopped. If the test
// fails, the end of what the program printed goes into the test's log.
func start(t *testing.T, name string, argv []string) process {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	// The program must not outlive a test that is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	done := make(chan struct{})
	go func() {
		// The signal is sent when the thread ends that started the program, so that
		// thread is kept.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ends stands in its log
		}
		close(done)
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	stop := func() {
		_ = cmd.Process.Kill() // it may have ended already
		<-done
	}
	t.Cleanup(func() {
		stop()
		if err := out.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the end of what %s printed:\n%s", name, tail(out.Name()))
		}
	})
	return process{stop, done}
}

func tail(path string) string {
	const limit = 6000
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-limit):])
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

type logWriter struct{ t *testing.T }

func (w logWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSuffix(string(b), "\n"))
	return len(b), nil
}
