package clusternet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/cache"
)

// Files of the folder that processes find a network by.
const (
	lockFile    = "lock"         // held by the process that runs the network
	networkFile = "network.json" // where its sockets are
)

// joinTime is how long a network may take from its lock to its sockets.
const joinTime = 10 * time.Second

// ErrNone says that no network runs.
var ErrNone = errors.New("no cluster runs from this folder")

// RunningError says that another process runs the network.
type RunningError struct{ Holder string }

// Error implements error.
func (e *RunningError) Error() string { return "the cluster runs already, started by " + e.Holder }

// Network is a running network, which this process started or found.
type Network struct {
	// API is the port of 127.0.0.1 that leads to a control plane that answers.
	API int

	dir    string // of the sockets
	client *http.Client
	server *server // nil if another process runs it
	unlock func()
	ended  chan struct{}
	cancel context.CancelFunc
}

// Start runs the network of a plan for the machines of dir. It fails with a
// *RunningError if another process does.
func Start(dir string, p Plan) (*Network, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	unlock, err := cache.TryLock(filepath.Join(dir, lockFile))
	if held := (*cache.LockedError)(nil); errors.As(err, &held) {
		return nil, &RunningError{held.Holder()}
	}
	if err != nil {
		return nil, err
	}
	s, err := serve(p)
	if err != nil {
		unlock()
		return nil, err
	}
	n, err := connect(s.dir)
	if err == nil {
		var b []byte
		if b, err = json.Marshal(location{s.dir}); err == nil {
			err = atomicfile.WriteFile(filepath.Join(dir, networkFile), b, 0o600)
		}
	}
	if err != nil {
		err = errors.Join(err, s.close())
		unlock()
		return nil, err
	}
	n.server = s
	n.unlock = func() {
		_ = os.Remove(filepath.Join(dir, networkFile)) // the lock is what counts
		unlock()
	}
	return n, nil
}

// location is the content of networkFile.
type location struct {
	Sockets string `json:"sockets"`
}

// Join finds the network that another process runs for the machines of dir, or
// fails with ErrNone.
func Join(ctx context.Context, dir string) (*Network, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	for {
		unlock, err := cache.TryLock(filepath.Join(dir, lockFile))
		if err == nil {
			unlock()
			return nil, ErrNone
		}
		if errors.Is(err, os.ErrNotExist) {
			return nil, ErrNone
		}
		if !errors.As(err, new(*cache.LockedError)) {
			return nil, err
		}
		n, err := join(dir)
		if err == nil {
			return n, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("the network of %s: %w", dir, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func join(dir string) (*Network, error) {
	b, err := os.ReadFile(filepath.Join(dir, networkFile))
	if err != nil {
		return nil, err
	}
	var at location
	if err := json.Unmarshal(b, &at); err != nil {
		return nil, fmt.Errorf("%s: %w", networkFile, err)
	}
	return connect(at.Sockets)
}

// connect speaks to the sockets of a running network.
func connect(dir string) (*Network, error) {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, controlSocket))
	}
	n := &Network{dir: dir, ended: make(chan struct{}), client: &http.Client{Transport: &http.Transport{DialContext: dial}}}
	var about struct {
		API int `json:"api"`
	}
	if err := n.call(context.Background(), http.MethodGet, "/network", nil, &about); err != nil {
		return nil, err
	}
	n.API = about.API
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	go func() {
		defer close(n.ended)
		// Whatever ends this, an answer or a broken connection, ends the network.
		_ = n.call(ctx, http.MethodGet, "/end", nil, nil)
	}()
	return n, nil
}

// call makes a request to the network's process.
func (n *Network) call(ctx context.Context, method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://network"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	res, err := n.client.Do(req)
	if err != nil {
		return fmt.Errorf("the process that runs the network: %w", err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("the process that runs the network: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the network: %s", strings.TrimSpace(string(answer)))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}

// Own reports whether this process runs the network.
func (n *Network) Own() bool { return n.server != nil }

// Ended is closed when the network goes away, whoever runs it.
func (n *Network) Ended() <-chan struct{} { return n.ended }

// Plug returns the machine's end of a new cable, and the ports that lead to it. The
// node must not be plugged in already.
func (n *Network) Plug(ctx context.Context, node Node) (*os.File, Ports, error) {
	var p Ports
	if err := n.call(ctx, http.MethodPost, "/nodes", node, &p); err != nil {
		return nil, p, err
	}
	c, err := new(net.Dialer).DialContext(ctx, "unix", filepath.Join(n.dir, cableSocket))
	if err != nil {
		return nil, p, fmt.Errorf("network cable of %s: %w", node.Name, err)
	}
	defer c.Close() // the file is another descriptor of the same socket
	if _, err := io.WriteString(c, node.Name+"\n"); err != nil {
		return nil, p, fmt.Errorf("network cable of %s: %w", node.Name, err)
	}
	line, err := readLine(c)
	if err != nil {
		return nil, p, fmt.Errorf("network cable of %s: %w", node.Name, err)
	}
	if line != plugged {
		return nil, p, errors.New(line)
	}
	f, err := c.(*net.UnixConn).File()
	if err != nil {
		return nil, p, fmt.Errorf("network cable of %s: %w", node.Name, err)
	}
	return f, p, nil
}

// readLine reads no byte after the line: what follows is for the machine.
func readLine(r io.Reader) (string, error) {
	var line []byte
	var b [1]byte
	for len(line) < 1<<10 {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return "", err
		}
		if b[0] == '\n' {
			return string(line), nil
		}
		line = append(line, b[0])
	}
	return "", errors.New("the network answered with an endless line")
}

// AnnounceEnd tells the other processes of a network that it is about to end, so
// that they stop their machines. It does nothing in those.
func (n *Network) AnnounceEnd() {
	if n.server != nil {
		n.server.announceEnd()
	}
}

// Close ends the network if this process runs it, and forgets it otherwise.
func (n *Network) Close() error {
	n.cancel()
	<-n.ended
	n.client.CloseIdleConnections()
	if n.server == nil {
		return nil
	}
	err := n.server.close()
	n.unlock()
	return err
}
