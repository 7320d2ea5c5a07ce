package qemu

import (
	"io"
	"os/exec"
	"runtime"
	"strings"
	"sync"
)

// startBound starts cmd so that Pdeathsig means this process and not one of its
// threads: the kernel sends the signal when the thread that forked ends, so that
// thread is kept until the child is gone (https://go.dev/issue/27505). The
// channel yields cmd.Wait's result.
func startBound(cmd *exec.Cmd) (<-chan error, error) {
	started, done := make(chan error), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			done <- cmd.Wait()
		}
	}()
	return done, <-started
}

// copyConsole reads the serial line until QEMU closes it.
func copyConsole(c *Console, r io.Reader) {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			_, _ = c.Write(buf[:n]) // never fails
		}
		if err != nil {
			return
		}
	}
}

// tailWriter passes everything on to w and remembers the last lines.
type tailWriter struct {
	w      io.Writer
	onLine func(string)

	mu      sync.Mutex
	lines   []string
	partial string
}

const tailLines = 40

// Write implements io.Writer. It never fails: a full disk must not end QEMU.
func (t *tailWriter) Write(p []byte) (int, error) {
	t.mu.Lock()
	_, _ = t.w.Write(p)
	t.partial += string(p)
	var fresh []string
	for {
		line, rest, ok := strings.Cut(t.partial, "\n")
		if !ok {
			break
		}
		fresh = append(fresh, line)
		t.partial = rest
	}
	t.lines = append(t.lines, fresh...)
	t.lines = t.lines[max(len(t.lines)-tailLines, 0):]
	t.mu.Unlock()
	for _, l := range fresh {
		t.onLine(l)
	}
	return len(p), nil
}

// Tail returns the last lines.
func (t *tailWriter) Tail() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(strings.Join(append(append([]string(nil), t.lines...), t.partial), "\n"))
}
