package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ErrExited is wrapped by errors that say the machine's QEMU has ended.
var ErrExited = errors.New("QEMU has exited")

// Machine is a running virtual machine.
type Machine struct {
	cfg     Config
	console *Console
	qmp     *qmp
	serial  net.Conn
	stderr  *tailWriter
	proc    *os.Process
	exited  chan struct{}
	exitErr error // set before exited is closed
	ports   map[int]int

	alive  context.Context
	failed context.CancelCauseFunc

	mu     sync.Mutex
	resets int
}

// Start makes the machine's files in cfg.Dir and starts it. The machine runs
// until it powers off, is stopped, or ctx ends, which kills it; a caller that
// wants to stop it gently on an interrupt starts it with a context of its own.
// It also ends when this process dies, however that happens.
func Start(ctx context.Context, t *Tools, cfg Config) (*Machine, error) {
	if e := cfg.Ethernet; e != nil && e.Cable != nil {
		defer e.Cable.Close()
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	// QEMU runs in another working directory than the caller might think of.
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, fmt.Errorf("machine %s: %w", cfg.Name, err)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("machine %s: %w", cfg.Name, err)
	}
	m, err := start(ctx, t, cfg)
	if err != nil {
		return nil, fmt.Errorf("machine %s: %w", cfg.Name, err)
	}
	return m, nil
}

func start(ctx context.Context, t *Tools, cfg Config) (*Machine, error) {
	var code, vars string
	if cfg.Board == nil {
		var err error
		if code, vars, err = t.Firmware(cfg.Arch); err != nil {
			return nil, err
		}
	}
	if vars != "" {
		if err := makeVars(vars, filepath.Join(cfg.Dir, varsFile), cfg.Reuse); err != nil {
			return nil, err
		}
	}
	for i, d := range cfg.Disks {
		if err := t.makeOverlay(ctx, d, filepath.Join(cfg.Dir, overlayName(i)), cfg.Reuse); err != nil {
			return nil, err
		}
	}
	// A machine that starts again in the same folder continues its logs.
	open := func(name string) (*os.File, error) {
		return os.OpenFile(filepath.Join(cfg.Dir, name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	}
	conLog, err := open(consoleLog)
	if err != nil {
		return nil, err
	}
	errLog, err := open(stderrLog)
	if err != nil {
		_ = conLog.Close()
		return nil, err
	}
	var rtc string
	var behind time.Duration
	if cfg.Turns != nil {
		rtc, behind = cfg.Turns.rtc()
	}
	cmd, err := t.system(ctx, cfg.Arch, cfg.args(code, rtc))
	if err != nil {
		return nil, errors.Join(err, conLog.Close(), errLog.Close())
	}

	m := &Machine{cfg: cfg, exited: make(chan struct{}), ports: map[int]int{}}
	m.alive, m.failed = context.WithCancelCause(ctx)
	m.console = newConsole(time.Now(), m.failed, conLog, cfg.Console)
	m.console.faulty = cfg.Faulty
	m.stderr = &tailWriter{w: errLog, onLine: m.seeStderr}

	// Control socket and console are socket pairs: no path that could be too long
	// for a socket address, or be opened by another user.
	qmpOurs, qmpTheirs, err := socketPair()
	if err != nil {
		return nil, errors.Join(err, conLog.Close(), errLog.Close())
	}
	conOurs, conTheirs, err := socketPair()
	if err != nil {
		return nil, errors.Join(err, qmpOurs.Close(), qmpTheirs.Close(), conLog.Close(), errLog.Close())
	}
	cmd.ExtraFiles = []*os.File{qmpTheirs, conTheirs} // fds 3 and 4
	if cfg.Ethernet != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, cfg.Ethernet.Cable) // fd 5
	}
	cmd.Stdout, cmd.Stderr = m.stderr, m.stderr
	// Its own process group: an interrupt typed at the terminal is for this
	// process to act on, with a proper shutdown.
	bind(cmd)

	wait, err := startBound(cmd)
	err = errors.Join(err, qmpTheirs.Close(), conTheirs.Close())
	if err != nil {
		return nil, errors.Join(err, qmpOurs.Close(), conOurs.Close(), conLog.Close(), errLog.Close())
	}
	m.proc, m.serial = cmd.Process, conOurs
	consoleEnd := make(chan struct{})
	go func() {
		defer close(consoleEnd)
		copyConsole(m.console, conOurs)
	}()
	m.qmp = newQMP(qmpOurs, m.seeEvent)
	go func() {
		err := <-wait
		<-consoleEnd // what the guest said last is read before its end is told
		if err != nil {
			err = fmt.Errorf("%w: %w: %s", ErrExited, err, m.stderr.Tail())
		}
		m.exitErr = err
		why := err
		if why == nil {
			why = fmt.Errorf("%w: the machine was switched off", ErrExited)
		}
		m.console.end(why)
		m.failed(why)
		_, _, _, _ = m.qmp.Close(), conOurs.Close(), conLog.Close(), errLog.Close()
		close(m.exited)
	}()
	if err := m.handshake(ctx); err != nil {
		m.Kill()
		if m.exitErr != nil {
			err = m.exitErr // says what QEMU disliked
		}
		return nil, err
	}
	if cfg.Turns != nil {
		cfg.Turns.add(m, behind)
	}
	return m, nil
}

// handshake opens QMP and learns the forwarded ports.
func (m *Machine) handshake(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := m.qmp.Do(ctx, "qmp_capabilities", nil, nil); err != nil {
		return err
	}
	if m.cfg.Net == nil {
		return nil
	}
	// QEMU binds the ports itself, a free one where 0 was asked for, so no other
	// process can take a port between choosing and using it.
	out, err := m.qmp.Monitor(ctx, "info usernet")
	if err != nil {
		return err
	}
	m.ports = parseForwards(out)
	for _, f := range m.cfg.Net.Forwards {
		if m.ports[f.GuestPort] == 0 {
			return fmt.Errorf("QEMU does not forward a port to %d: %q", f.GuestPort, out)
		}
	}
	return nil
}

// hostForward is a line of "info usernet": protocol, fd, source and port,
// destination and port.
var hostForward = regexp.MustCompile(`TCP\[HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)\s+\S+\s+(\d+)\s`)

// parseForwards maps guest ports to host ports.
func parseForwards(usernet string) map[int]int {
	ports := map[int]int{}
	for _, f := range hostForward.FindAllStringSubmatch(usernet, -1) {
		host, err1 := strconv.Atoi(f[1])
		guest, err2 := strconv.Atoi(f[2])
		if err1 == nil && err2 == nil {
			ports[guest] = host
		}
	}
	return ports
}

func (m *Machine) seeEvent(name string, data json.RawMessage) {
	switch name {
	case "RESET":
		m.mu.Lock()
		m.resets++
		m.mu.Unlock()
	case "BLOCK_IO_ERROR":
		// QEMU pauses the machine when there is no room for what it writes, and says
		// it nowhere but here.
		var e struct{ Action, Reason string }
		if err := json.Unmarshal(data, &e); err != nil || e.Action != "stop" {
			return // the guest is told
		}
		m.giveUp(fmt.Errorf("machine %s: QEMU has paused it, since it cannot write what the machine writes to its disk, in %s: %s; make room there and start it again", m.cfg.Name, m.cfg.Dir, e.Reason))
	}
}

// giveUp ends all waiting for the machine, which still exists.
func (m *Machine) giveUp(why error) {
	m.console.fail(why)
	m.failed(why)
}

// seeStderr notices that KVM gave up on the guest: QEMU then only pauses it.
func (m *Machine) seeStderr(line string) {
	if strings.HasPrefix(line, "KVM internal error") || strings.HasPrefix(line, "error: kvm run failed") {
		m.giveUp(fmt.Errorf("machine %s: %s", m.cfg.Name, line))
	}
}

// Console is the machine's serial console.
func (m *Machine) Console() *Console { return m.console }

// Context ends when the machine exits or its console shows something that no
// boot recovers from; context.Cause then says what. Waiting for a node with it
// fails early instead of running into a timeout.
func (m *Machine) Context() context.Context { return m.alive }

// Scale stretches a duration that fits KVM to the machine's accelerator.
func (m *Machine) Scale(d time.Duration) time.Duration { return m.cfg.Accel.Scale(d) }

// Dir is the folder with the machine's files and logs.
func (m *Machine) Dir() string { return m.cfg.Dir }

// PID is QEMU's process id.
func (m *Machine) PID() int { return m.proc.Pid }

// StderrTail returns the last lines QEMU itself printed.
func (m *Machine) StderrTail() string { return m.stderr.Tail() }

// HostPort returns the port of 127.0.0.1 that leads to a TCP port of the guest,
// or an error if the port is not forwarded.
func (m *Machine) HostPort(guestPort int) (int, error) {
	if p := m.ports[guestPort]; p != 0 {
		return p, nil
	}
	return 0, fmt.Errorf("machine %s: port %d of the guest is not forwarded", m.cfg.Name, guestPort)
}

// Resets counts how often the machine was reset since its start, a reboot by
// the guest included.
func (m *Machine) Resets() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.resets
}

// Send types text at the serial console; a line ends with "\r".
func (m *Machine) Send(ctx context.Context, text string) error {
	if d, ok := ctx.Deadline(); ok {
		_ = m.serial.SetWriteDeadline(d) // without one the write waits for the guest
	}
	if _, err := io.WriteString(m.serial, text); err != nil {
		return fmt.Errorf("machine %s: serial console: %w", m.cfg.Name, err)
	}
	return nil
}

// Wait waits for the machine to switch itself off. It returns nil if it did so
// in order, the reason if QEMU failed or was killed, and ctx's cause if ctx ends first.
func (m *Machine) Wait(ctx context.Context) error {
	if m.waitExit(ctx) {
		return m.exitErr
	}
	return fmt.Errorf("waiting for machine %s to switch off: %w", m.cfg.Name, context.Cause(ctx))
}

// waitExit waits for QEMU to end and reports whether it did. A ctx that was made
// of Context ends because QEMU did; that counts as well.
func (m *Machine) waitExit(ctx context.Context) bool {
	select {
	case <-m.exited:
		return true
	case <-ctx.Done():
		if errors.Is(context.Cause(ctx), ErrExited) && errors.Is(context.Cause(m.alive), ErrExited) {
			<-m.exited
		}
		return m.hasExited()
	}
}

// Stop presses the power button and waits for the guest to shut down. When ctx
// ends first the machine is killed and an error says so.
func (m *Machine) Stop(ctx context.Context) error {
	if err := m.qmp.Do(ctx, "system_powerdown", nil, nil); err != nil && !m.hasExited() {
		m.Kill()
		return fmt.Errorf("machine %s was killed: %w", m.cfg.Name, err)
	}
	if m.waitExit(ctx) {
		return m.exitErr
	}
	m.Kill()
	return fmt.Errorf("machine %s did not shut down and was killed: %w\nconsole tail:\n%s", m.cfg.Name, context.Cause(ctx), m.console.Tail(20))
}

// Reset presses the reset button: the guest gets no warning, the disk keeps
// what was written.
func (m *Machine) Reset(ctx context.Context) error {
	return m.qmp.Do(ctx, "system_reset", nil, nil)
}

// Control runs a command of QEMU's machine protocol, such as device_add, and
// decodes what it returns into out, unless out is nil.
func (m *Machine) Control(ctx context.Context, command string, args, out any) error {
	if err := m.qmp.Do(ctx, command, args, out); err != nil {
		return fmt.Errorf("machine %s: %w", m.cfg.Name, err)
	}
	return nil
}

// Kill cuts the power: QEMU gets SIGKILL. It returns when the process is gone;
// killing a machine twice is no error.
func (m *Machine) Kill() {
	_ = m.proc.Kill() // fails only if it is gone
	<-m.exited
}

func (m *Machine) hasExited() bool {
	select {
	case <-m.exited:
		return true
	default:
		return false
	}
}

// Cable returns the two ends of an Ethernet cable: one for a switch in this
// process, and one for Ethernet.
func Cable() (net.Conn, *os.File, error) { return socketPair() }

// socketPair returns two connected stream sockets: a connection for us and a
// file for the child.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := socketPairFDs()
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "qemu"), os.NewFile(uintptr(fds[1]), "qemu-child")
	conn, err := net.FileConn(ours) // duplicates the descriptor
	if err = errors.Join(err, ours.Close()); err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return conn, theirs, nil
}
