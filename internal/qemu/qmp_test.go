package qemu

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestEvents: a machine that QEMU has paused for want of room on the host gets nowhere any
// more, which everybody who waits for it is told; one that has got a read error goes on.
func TestEvents(t *testing.T) {
	const stamp = `, "timestamp": {"seconds": 1795881240, "microseconds": 1}}` + "\n"
	for _, tc := range []struct{ name, events, want string }{
		{"no room", `{"event": "BLOCK_IO_ERROR", "data": {"device": "", "node-name": "disk0", "reason": "No space left on device", "nospace": true, "operation": "write", "action": "stop"}` + stamp +
			`{"event": "STOP"` + stamp, "in /machines/cp-1: No space left on device; make room there"},
		{"the guest is told", `{"event": "BLOCK_IO_ERROR", "data": {"reason": "Input/output error", "operation": "read", "action": "report"}` + stamp, ""},
		{"reset", `{"event": "RESET", "data": {"guest": true, "reason": "guest-reset"}` + stamp, ""},
		{"an event of later QEMUs", `{"event": "BLOCK_IO_ERROR", "data": 7` + stamp, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := &Machine{cfg: Config{Name: "cp-1", Dir: "/machines/cp-1"}}
			m.alive, m.failed = context.WithCancelCause(t.Context())
			defer m.failed(nil)
			m.console = newConsole(time.Now(), m.failed)
			ours, theirs := net.Pipe()
			q := newQMP(ours, m.seeEvent)
			if _, err := io.WriteString(theirs, tc.events); err != nil {
				t.Fatal(err)
			}
			if err := theirs.Close(); err != nil {
				t.Fatal(err)
			}
			<-q.done
			if err := context.Cause(m.Context()); (err != nil) != (tc.want != "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("waiting ended by %v, want %q", err, tc.want)
			}
			if got, want := m.Resets(), strings.Count(tc.events, "RESET"); got != want {
				t.Errorf("%d resets, want %d", got, want)
			}
		})
	}
}
