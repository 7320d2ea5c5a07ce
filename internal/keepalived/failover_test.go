//go:build root

package keepalived

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// control is a machine with keepalived and something that answers as an API server.
type control struct {
	*machine
	config     Config
	log        syncBuffer
	keepalived *exec.Cmd
	api        *httptest.Server
	readyz     atomic.Int32 // status; 0 is no answer
}

// network is a switch, control planes and a machine of a user.
type network struct {
	t        *testing.T
	hub      *machine
	user     *machine
	controls []*control
	vip      netip.Addr
}

// newNetwork makes n control planes with the first addresses of the subnet.
func newNetwork(t *testing.T, subnet netip.Prefix, vip netip.Addr, n int) *network {
	t.Helper()
	w := &network{t: t, hub: newMachine(t, "hub"), vip: vip}
	w.hub.run("ip", "link", "add", "br0", "type", "bridge")
	w.hub.run("ip", "link", "set", "br0", "up")
	a := subnet.Addr()
	for i := range n {
		a = a.Next()
		c := &control{machine: newMachine(t, fmt.Sprintf("kiln-%d", i+1))}
		c.config = Config{VirtualIP: vip, RouterID: 100, NodeName: c.name, Address: a, Rank: i}
		c.file(Path, c.config.Marshal())
		w.plug(c.machine)
		w.controls = append(w.controls, c)
	}
	for range 10 {
		a = a.Next()
	}
	w.user = newMachine(t, "user")
	w.plug(w.user)
	w.address(w.user, netip.PrefixFrom(a, subnet.Bits()))
	t.Cleanup(func() {
		for _, c := range w.controls {
			c.stop(syscall.SIGKILL)
			if t.Failed() {
				t.Logf("%s:\n%s%s", c.name, c.run("ip", "address", "show", "dev", "eth0"), c.log.String())
			}
		}
	})
	return w
}

// plug connects the machine's eth0 with the switch.
func (w *network) plug(m *machine) {
	w.t.Helper()
	port := fmt.Sprintf("p%d", m.tid)
	w.hub.run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", strconv.Itoa(m.tid))
	w.hub.run("ip", "link", "set", port, "master", "br0", "up")
	m.run("ip", "link", "set", "eth0", "up")
}

func (w *network) address(m *machine, a netip.Prefix) {
	w.t.Helper()
	argv := []string{"ip", "address", "add", a.String(), "dev", "eth0"}
	if a.Addr().Is6() {
		argv = append(argv, "nodad")
	}
	m.run(argv...)
}

// unitLine is the command of a line of the unit.
func unitLine(t *testing.T, key string) []string {
	t.Helper()
	data, err := os.ReadFile("../../units/system/usr/lib/systemd/system/kiln-virtual-ip.service")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^` + key + `=(.+)$`).FindSubmatch(data)
	if m == nil {
		t.Fatalf("the unit has no %s", key)
	}
	return strings.Fields(string(m[1]))
}

// boot starts what the unit starts.
func (c *control) boot() {
	c.t.Helper()
	c.file("/run/kiln-virtual-ip/.made", nil) // the unit's RuntimeDirectory
	c.run(unitLine(c.t, "ExecStartPre")...)
	c.keepalived = c.start(&c.log, append(unitLine(c.t, "ExecStart"), "--log-console")...)
}

// stop ends keepalived with the signal, to all of its processes if it is SIGKILL.
func (c *control) stop(signal syscall.Signal) {
	if c.keepalived == nil {
		return
	}
	pid := c.keepalived.Process.Pid
	if signal == syscall.SIGKILL {
		if data, err := os.ReadFile(filepath.Join(c.root, "run/kiln-virtual-ip/vrrp.pid")); err == nil {
			if child, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil {
				_ = syscall.Kill(child, signal)
			}
		}
	}
	_ = syscall.Kill(pid, signal)
	_ = c.keepalived.Wait()
	c.keepalived = nil
}

// serve starts the API server, which is ready.
func (c *control) serve() {
	c.t.Helper()
	c.readyz.Store(http.StatusOK)
	var l net.Listener
	var err error
	c.inside(func() { l, err = net.Listen("tcp", "[::]:6443") })
	if err != nil {
		c.t.Fatal(err)
	}
	c.api = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := int(c.readyz.Load())
		if status == 0 {
			<-r.Context().Done()
			return
		}
		w.WriteHeader(status)
		fmt.Fprint(w, c.name)
	}))
	_ = c.api.Listener.Close()
	c.api.Listener = l
	c.api.Config.ErrorLog = nil
	c.api.TLS = &tls.Config{ClientAuth: tls.RequestClientCert} // as the API server asks
	c.api.StartTLS()
	c.t.Cleanup(c.crash)
}

// crash ends the API server.
func (c *control) crash() {
	if c.api != nil {
		c.api.CloseClientConnections()
		c.api.Close()
		c.api = nil
	}
}

func (c *control) holds(vip netip.Addr) bool {
	return strings.Contains(c.run("ip", "-oneline", "address", "show", "to", vip.String()), vip.String())
}

func (w *network) holders() (names []string) {
	for _, c := range w.controls {
		if c.holds(w.vip) {
			names = append(names, c.name)
		}
	}
	return names
}

// expect waits until the named ones, and no others, hold the address.
func (w *network) expect(within time.Duration, why string, names ...string) {
	w.t.Helper()
	var got []string
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if got = w.holders(); slices.Equal(got, names) {
			return
		}
	}
	w.t.Fatalf("%s: after %s %v holds the address, want %v", why, within, got, names)
}

// other waits until one control plane, which is not the given one, holds the address, for
// longer than two that took it at once do.
func (w *network) other(within time.Duration, why string, not *control) *control {
	w.t.Helper()
	var got []string
	alone, name := 0, ""
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if got = w.holders(); len(got) != 1 || not != nil && got[0] == not.name {
			alone = 0
			continue
		}
		if got[0] != name {
			alone, name = 0, got[0]
		}
		if alone++; alone < 5 {
			continue
		}
		for _, c := range w.controls {
			if c.name == got[0] {
				return c
			}
		}
	}
	w.t.Fatalf("%s: after %s %v holds the address", why, within, got)
	return nil
}

// expectMove waits until another control plane than the killed one, which still has
// the address, answers the user.
func (w *network) expectMove(within time.Duration, killed *control) {
	w.t.Helper()
	var got string
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if got = w.ask(); strings.HasPrefix(got, "kiln-") && got != killed.name {
			return
		}
	}
	w.t.Fatalf("keepalived of %s was killed: after %s the virtual IP answers %q", killed.name, within, got)
}

// answers waits until the new holder answers the user, which is after what it tells the
// network for the second time at the latest.
func (w *network) answers(c *control) {
	w.t.Helper()
	start := time.Now()
	got := w.ask()
	for got != c.name && time.Since(start) < reached {
		got = w.ask()
	}
	if got != c.name {
		w.t.Errorf("%s holds the virtual IP: after %s it answers %q", c.name, time.Since(start), got)
	}
}

// stays holds that the address does not move.
func (w *network) stays(during time.Duration, why string, names ...string) {
	w.t.Helper()
	for deadline := time.Now().Add(during); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if got := w.holders(); !slices.Equal(got, names) {
			w.t.Fatalf("%s: %v holds the address, want %v all the time", why, got, names)
		}
	}
}

// ask asks the API server at the virtual IP from the user's machine who it is.
func (w *network) ask() string {
	w.t.Helper()
	dial := func(_ context.Context, _, addr string) (conn net.Conn, err error) {
		w.user.inside(func() { conn, err = net.DialTimeout("tcp", addr, time.Second) })
		return conn, err
	}
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DialContext: dial, DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	resp, err := client.Get("https://" + net.JoinHostPort(w.vip.String(), "6443") + "/version")
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(body)
}

// soon is longer than three advertisements, takeover well below any user's timeout.
const soon = 8 * time.Second

// reached is well below five seconds, keepalived's own time until it tells again.
const reached = 3500 * time.Millisecond

// noticed is longer than three failed health checks and a takeover.
const noticed = 25 * time.Second

func TestFailover(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		subnet netip.Prefix
		vip    netip.Addr
	}{
		"IPv4": {netip.MustParsePrefix("10.9.0.0/24"), netip.MustParseAddr("10.9.0.100")},
		"IPv6": {netip.MustParsePrefix("fd00:9::/64"), netip.MustParseAddr("fd00:9::100")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newNetwork(t, tc.subnet, tc.vip, 3)
			one, two, three := w.controls[0], w.controls[1], w.controls[2]
			for _, c := range w.controls {
				w.address(c.machine, netip.PrefixFrom(c.config.Address, tc.subnet.Bits()))
			}
			// Nobody has an API server yet. The first control plane, which will create the
			// cluster, gets the address, in whatever order they are switched on.
			two.boot()
			w.expect(soon, "alone", two.name)
			three.boot()
			one.boot()
			w.expect(soon, "all on, none ready", one.name)
			for _, c := range w.controls {
				c.run("/usr/sbin/keepalived", "--config-test", "--use-file="+Path)
			}

			one.serve()
			time.Sleep(10 * time.Second)
			w.stays(time.Second, "the first is ready", one.name)
			two.serve()
			three.serve()
			w.stays(10*time.Second, "all are ready", one.name)
			if got := w.ask(); got != one.name {
				t.Errorf("at the virtual IP answers %q", got)
			}
			flags := one.run("ip", "-oneline", "address", "show", "to", w.vip.String())
			if w.vip.Is6() && !strings.Contains(flags, "deprecated") || !strings.Contains(flags, fmt.Sprintf("%s/%d ", w.vip, w.vip.BitLen())) {
				t.Errorf("the kernel may use the address as a source: %s", flags)
			}
			if route := one.run("ip", "route", "get", three.config.Address.String()); !strings.Contains(route, "src "+one.config.Address.String()) {
				t.Errorf("the holder speaks to another node as %s", route)
			}

			// The API server dies: another node with a ready one takes over, and keeps
			// the address when the first is back.
			one.crash()
			second := w.other(noticed, "the API server is dead", one)
			w.answers(second)
			one.serve()
			w.stays(12*time.Second, "the first is back", second.name)

			// Somebody removes the address: it is not lost.
			second.run("ip", "address", "delete", fmt.Sprintf("%s/%d", w.vip, w.vip.BitLen()), "dev", "eth0")
			time.Sleep(time.Second)
			third := w.other(soon, "removed by hand", nil)

			// keepalived is killed with all its processes: what it leaves is not in the way
			// of users, and is gone when systemd starts it again.
			third.stop(syscall.SIGKILL)
			w.expectMove(soon, third)
			third.boot()
			fourth := w.other(soon, "killed and started again", third)
			w.answers(fourth)

			// A node is shut down: it gives the address up.
			start := time.Now()
			fourth.stop(syscall.SIGTERM)
			w.other(soon, "shut down", fourth)
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("the others waited %s for a node that said goodbye", took)
			}
		})
	}
}

// An API server that hangs, or says that it is not ready, is as good as none.
func TestUnhealthy(t *testing.T) {
	t.Parallel()
	for name, status := range map[string]int32{"not ready": http.StatusInternalServerError, "hangs": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newNetwork(t, netip.MustParsePrefix("10.9.0.0/24"), netip.MustParseAddr("10.9.0.100"), 2)
			for _, c := range w.controls {
				w.address(c.machine, netip.PrefixFrom(c.config.Address, 24))
				c.serve()
				c.boot()
				w.expect(soon, "switched on one after the other", w.controls[0].name)
			}
			w.stays(10*time.Second, "both ready", w.controls[0].name)
			w.controls[0].readyz.Store(status)
			w.expect(50*time.Second, name, w.controls[1].name)
		})
	}
}

// Another group of routers on the network has another number and a higher priority:
// each keeps to its own.
func TestForeignRouters(t *testing.T) {
	t.Parallel()
	w := newNetwork(t, netip.MustParsePrefix("10.9.0.0/24"), netip.MustParseAddr("10.9.0.100"), 2)
	ours, foreign := w.controls[0], w.controls[1]
	other := netip.MustParseAddr("10.8.0.100")
	config := Config{VirtualIP: other, RouterID: 99, NodeName: foreign.name, Address: foreign.config.Address}.Marshal()
	foreign.file(Path, bytes.Replace(config, []byte("priority 100"), []byte("priority 150"), 1))
	for _, c := range w.controls {
		w.address(c.machine, netip.PrefixFrom(c.config.Address, 24))
		c.boot()
	}
	w.expect(soon, "a foreign router", ours.name)
	if !foreign.holds(other) {
		time.Sleep(soon)
	}
	if !foreign.holds(other) {
		t.Error("the foreign router lost its own address")
	}
	w.stays(5*time.Second, "a foreign router", ours.name)
}

// The address of the node may come after the unit is started.
func TestAddressComesLate(t *testing.T) {
	t.Parallel()
	w := newNetwork(t, netip.MustParsePrefix("10.9.0.0/24"), netip.MustParseAddr("10.9.0.100"), 1)
	only := w.controls[0]
	only.file("/run/kiln-virtual-ip/.made", nil)
	var out bytes.Buffer
	waiting := only.start(&out, unitLine(t, "ExecStartPre")...)
	time.Sleep(3 * time.Second)
	file := filepath.Join(only.root, "run/kiln-virtual-ip/interface.conf")
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Fatalf("an interface without the address is taken: %v", err)
	}
	w.address(only.machine, netip.PrefixFrom(only.config.Address, 24))
	if err := waiting.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "$INTERFACE=eth0\n" {
		t.Errorf("%q, %v", got, err)
	}
	// One control plane alone has the address, and gets others later.
	only.boot()
	w.expect(soon, "alone", only.name)
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
