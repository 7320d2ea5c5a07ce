package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
)

// qmp is a client of the QEMU Machine Protocol
// (https://www.qemu.org/docs/master/interop/qmp-spec.html).
type qmp struct {
	conn net.Conn
	call sync.Mutex // one command at a time: answers carry no other name

	mu      sync.Mutex
	err     error // why the connection ended
	answers chan qmpMessage
	done    chan struct{}
	onEvent func(name string, data json.RawMessage)
}

type qmpMessage struct {
	Greeting json.RawMessage `json:"QMP"`
	Return   json.RawMessage `json:"return"`
	Event    string          `json:"event"`
	Data     json.RawMessage `json:"data"` // of an event
	Error    *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
}

// newQMP starts reading from conn. onEvent is called from the reader for every event.
func newQMP(conn net.Conn, onEvent func(string, json.RawMessage)) *qmp {
	q := &qmp{conn: conn, answers: make(chan qmpMessage, 1), done: make(chan struct{}), onEvent: onEvent}
	go q.read()
	return q
}

func (q *qmp) read() {
	defer close(q.done)
	dec := json.NewDecoder(bufio.NewReader(q.conn))
	for {
		var m qmpMessage
		if err := dec.Decode(&m); err != nil {
			q.mu.Lock()
			q.err = err
			q.mu.Unlock()
			return
		}
		switch {
		case m.Greeting != nil:
		case m.Event != "":
			q.onEvent(m.Event, m.Data)
		default:
			select {
			case q.answers <- m:
			default: // an answer nobody waits for any more
			}
		}
	}
}

// Do runs a command and decodes its return value into out, unless out is nil.
func (q *qmp) Do(ctx context.Context, command string, args, out any) error {
	q.call.Lock()
	defer q.call.Unlock()
	select {
	case <-q.answers: // left by a call whose context ended
	default:
	}
	req := struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, args}
	b, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("QMP %s: %w", command, err)
	}
	if _, err := q.conn.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("QMP %s: %w", command, err)
	}
	select {
	case m := <-q.answers:
		if m.Error != nil {
			return fmt.Errorf("QMP %s: %s: %s", command, m.Error.Class, m.Error.Desc)
		}
		if out == nil {
			return nil
		}
		if err := json.Unmarshal(m.Return, out); err != nil {
			return fmt.Errorf("QMP %s: answer %s: %w", command, m.Return, err)
		}
		return nil
	case <-q.done:
		q.mu.Lock()
		defer q.mu.Unlock()
		return fmt.Errorf("QMP %s: QEMU closed the control socket: %w", command, q.err)
	case <-ctx.Done():
		return fmt.Errorf("QMP %s: %w", command, context.Cause(ctx))
	}
}

// Monitor runs a command of QEMU's human monitor, for what QMP cannot ask.
func (q *qmp) Monitor(ctx context.Context, line string) (string, error) {
	var out string
	err := q.Do(ctx, "human-monitor-command", map[string]string{"command-line": line}, &out)
	return out, err
}

// Close closes the connection.
func (q *qmp) Close() error {
	if err := q.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
