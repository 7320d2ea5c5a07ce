//go:build root

package keepalived

import (
	"context"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kiln-os/kiln/images/deb"
	"github.com/kiln-os/kiln/images/elfdeps"
	"github.com/kiln-os/kiln/images/osbase"
	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/cache"
	"github.com/kiln-os/kiln/internal/hosttools"
	"github.com/kiln-os/kiln/units"
)

// nodeFiles are the programs of a node's /usr that the tests run, with the libraries
// that are left of them after everything that no node needs is removed, and the
// node's /etc. They are resolved, verified and unpacked as for an image.
var nodeFiles = sync.OnceValues(func() (*tree.Tree, error) {
	ctx := context.Background()
	host, err := arch.Get(runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	c, err := cache.Open("")
	if err != nil {
		return nil, err
	}
	mirror, err := deb.FindMirror("", "/etc/apt")
	if err != nil {
		return nil, err
	}
	suite, err := osbase.GetSuite(hosttools.Suite)
	if err != nil {
		return nil, err
	}
	archive := &deb.Archive{Mirror: mirror, Suite: hosttools.Suite, Components: []string{"main"}, Cache: c, Now: time.Now()}
	lock, err := archive.Resolve(ctx, host.Debian, deb.Request{Roots: suite.Roots(), Exclude: suite.Exclude(), Prefer: osbase.Preferred})
	if err != nil {
		return nil, err
	}
	packages, err := archive.Fetch(ctx, lock, nil)
	if err != nil {
		return nil, err
	}
	all, err := deb.Unpack(ctx, c, lock, packages)
	if err != nil {
		return nil, err
	}
	vars := units.Vars{ESPUUID: "e", StateUUID: "s", RepartArch: "x86-64", UsrSize: 1, VeritySize: 1, Platform: "qemu"}
	if err := osbase.Configure(all, nil, vars, "test"); err != nil {
		return nil, err
	}
	if _, err := osbase.Seal(all); err != nil { // strips all
		return nil, err
	}
	paths, err := elfdeps.Closure(all, []string{"usr/sbin/keepalived", "usr/bin/openssl", "usr/bin/sh", "usr/bin/sed", "usr/bin/sleep", "usr/bin/ip"})
	if err != nil {
		return nil, err
	}
	root := tree.New()
	for _, p := range paths {
		root.Set(p, all.Get(p))
	}
	for _, p := range all.Paths() {
		if strings.HasPrefix(p, "etc/") || strings.HasPrefix(p, "usr/lib/kiln/") || strings.HasPrefix(p, "usr/lib/ssl/") {
			root.Set(p, all.Get(p))
		}
	}
	for _, p := range []string{"bin", "sbin", "lib", "lib64"} {
		root.AddSymlink(p, "usr/"+p)
	}
	for _, p := range []string{"proc", "dev", "run", "tmp", "etc/kiln"} {
		root.AddDir(p, 0o755)
	}
	return root, nil
})

// machine is a node without kernel and systemd: a root folder and a network of its
// own, in which a thread of the test lives.
type machine struct {
	t    *testing.T
	name string
	root string
	tid  int
	work chan func()
}

// newMachine makes a machine whose loopback is up. It needs root: in a user namespace
// that somebody else made keepalived cannot become the user of its health check, and
// then takes it for successful.
func newMachine(t *testing.T, name string) *machine {
	t.Helper()
	if groups, err := os.ReadFile("/proc/self/setgroups"); os.Geteuid() != 0 || err != nil || strings.TrimSpace(string(groups)) != "allow" {
		t.Fatalf("these tests need root, of a machine or of a name space with setgroups(2): user %d, setgroups %s, %v", os.Geteuid(), groups, err)
	}
	files, err := nodeFiles()
	if err != nil {
		t.Fatalf("the node's packages: %v", err)
	}
	m := &machine{t: t, name: name, root: t.TempDir(), work: make(chan func())}
	// The script of the health check runs as another user.
	for dir := m.root; dir != filepath.Clean(os.TempDir()); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := files.Walk(func(p string, e *tree.Entry) error { return write(filepath.Join(m.root, p), e) }); err != nil {
		t.Fatal(err)
	}
	ready := make(chan error)
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Never unlocked: the thread ends with the goroutine, and its namespaces with
		// the last process in them.
		runtime.LockOSThread()
		m.tid = unix.Gettid()
		ready <- m.enter()
		for f := range m.work {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatalf("namespaces for %s: %v", name, err)
	}
	t.Cleanup(func() { close(m.work); <-done })
	m.run("ip", "link", "set", "lo", "up")
	return m
}

func (m *machine) enter() error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWNET); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("mount /", err)
	}
	for _, dir := range []string{"/proc", "/dev"} {
		if err := unix.Mount(dir, m.root+dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return os.NewSyscallError("mount "+dir, err)
		}
	}
	if err := unix.Chroot(m.root); err != nil {
		return os.NewSyscallError("chroot", err)
	}
	return unix.Chdir("/")
}

func write(dst string, e *tree.Entry) error {
	switch e.Type {
	case tree.Dir:
		return os.MkdirAll(dst, 0o755)
	case tree.Symlink:
		return os.Symlink(e.Link, dst)
	case tree.File:
	default:
		return &fs.PathError{Op: "write", Path: dst, Err: syscall.ENOTSUP}
	}
	r, err := e.Content.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(dst, os.O_CREATE|os.O_WRONLY|os.O_EXCL, fs.FileMode(e.Mode&0o777))
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(f, r); err != nil {
		return err
	}
	return f.Close()
}

// inside runs f in the machine.
func (m *machine) inside(f func()) {
	done := make(chan struct{})
	m.work <- func() { defer close(done); f() }
	<-done
}

// start starts a program of the machine. The test's end kills it with its children.
func (m *machine) start(output io.Writer, argv ...string) *exec.Cmd {
	m.t.Helper()
	cmd := &exec.Cmd{Path: argv[0], Args: argv, Env: []string{"PATH=/usr/sbin:/usr/bin"}, Stdout: output, Stderr: output, SysProcAttr: &syscall.SysProcAttr{Setpgid: true}}
	var err error
	m.inside(func() {
		if !strings.Contains(cmd.Path, "/") {
			cmd.Path = "/usr/bin/" + cmd.Path
		}
		err = cmd.Start()
	})
	if err != nil {
		m.t.Fatalf("%s: %s: %v", m.name, strings.Join(argv, " "), err)
	}
	return cmd
}

// run runs a program of the machine and returns what it prints.
func (m *machine) run(argv ...string) string {
	m.t.Helper()
	var out strings.Builder
	if err := m.start(&out, argv...).Wait(); err != nil {
		m.t.Fatalf("%s: %s: %v\n%s", m.name, strings.Join(argv, " "), err, out.String())
	}
	return out.String()
}

// file writes a file of the machine.
func (m *machine) file(path string, data []byte) {
	m.t.Helper()
	path = filepath.Join(m.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		m.t.Fatal(err)
	}
}
