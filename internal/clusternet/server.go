package clusternet

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/kiln-os/kiln/internal/vnet"
)

// Sockets of a running network, in a folder that only its user can enter.
const (
	controlSocket = "control" // HTTP
	cableSocket   = "cable"   // a node's name and a newline, then frames
)

const sshPort = 22

// Ports are those of 127.0.0.1 that lead to a node.
type Ports struct {
	API int `json:"api"` // 0 for a worker
	SSH int `json:"ssh"`
}

// server runs a network and lets machines be plugged in over sockets.
type server struct {
	net    *vnet.Network
	dir    string // of the sockets
	api    int    // of 127.0.0.1, to a control plane that answers
	http   *http.Server
	cable  net.Listener
	ending chan struct{}
	wg     sync.WaitGroup

	mu    sync.Mutex
	ports map[string]Ports
	in    map[string]bool // nodes that are plugged in
}

// serve starts the network of a plan.
func serve(p Plan) (*server, error) {
	n, err := vnet.New(p.Config)
	if err != nil {
		return nil, err
	}
	s := &server{net: n, ending: make(chan struct{}), ports: map[string]Ports{}, in: map[string]bool{}}
	if err := s.start(p); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *server) start(p Plan) (err error) {
	if s.api, err = s.net.Forward(p.ControlPlanes()...); err != nil {
		return err
	}
	if p.Endpoint.IsValid() {
		if err := s.net.Balance(p.Endpoint, p.ControlPlanes()...); err != nil {
			return fmt.Errorf("controlPlaneEndpoint: %w", err)
		}
	}
	for _, n := range p.Nodes {
		if _, err := s.forward(n); err != nil {
			return err
		}
	}
	// Not in the output folder: its path may be too long for a socket's address.
	if s.dir, err = os.MkdirTemp("", "kiln-net-"); err != nil {
		return err
	}
	control, err := net.Listen("unix", filepath.Join(s.dir, controlSocket))
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /network", s.getNetwork)
	mux.HandleFunc("GET /end", s.getEnd)
	mux.HandleFunc("POST /nodes", s.postNode)
	s.http = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	s.wg.Go(func() { _ = s.http.Serve(control) }) // ends when it is closed
	if s.cable, err = net.Listen("unix", filepath.Join(s.dir, cableSocket)); err != nil {
		return err
	}
	s.wg.Go(s.acceptCables)
	return nil
}

// forward makes a node's ports reachable, once.
func (s *server) forward(n Node) (Ports, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, ok := s.ports[n.Name]; ok {
		return p, nil
	}
	var p Ports
	var err error
	if n.ControlPlane {
		if p.API, err = s.net.Forward(n.API()); err != nil {
			return p, err
		}
	}
	if p.SSH, err = s.net.Forward(netip.AddrPortFrom(n.Address, sshPort)); err != nil {
		return p, err
	}
	s.ports[n.Name] = p
	return p, nil
}

func (s *server) getNetwork(w http.ResponseWriter, _ *http.Request) {
	answer(w, map[string]int{"api": s.api})
}

// getEnd answers when the network ends.
func (s *server) getEnd(_ http.ResponseWriter, r *http.Request) {
	select {
	case <-s.ending:
	case <-r.Context().Done():
	}
}

// postNode tells a node's ports. One that was not in the cluster file when the
// network was started gets its lease and ports now.
func (s *server) postNode(w http.ResponseWriter, r *http.Request) {
	var n Node
	d := json.NewDecoder(io.LimitReader(r.Body, 1<<16))
	d.DisallowUnknownFields()
	if err := d.Decode(&n); err != nil || n.Name == "" || !n.Address.IsValid() {
		http.Error(w, fmt.Sprintf("not a node: %v", err), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	_, known := s.ports[n.Name]
	s.mu.Unlock()
	if !known && n.DHCP {
		if err := s.net.Lease(vnet.Lease{MAC: n.MAC, Address: n.Address}); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
	}
	p, err := s.forward(n)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer(w, p)
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // who asked and has gone does not need it
}

// acceptCables plugs in machines until the socket is closed.
func (s *server) acceptCables() {
	for {
		c, err := s.cable.Accept()
		if err != nil {
			return
		}
		s.wg.Go(func() { _ = s.plug(c) }) // its machine says when it has lost its network
	}
}

// plug reads whose cable it is, answers with a line, and carries its frames.
func (s *server) plug(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return errors.Join(err, c.Close())
	}
	// QEMU sends nothing before this answer, so nothing is read ahead.
	name, err := bufio.NewReaderSize(c, 512).ReadString('\n')
	if err != nil {
		return errors.Join(err, c.Close())
	}
	name = strings.TrimSuffix(name, "\n")
	s.mu.Lock()
	twice := s.in[name]
	s.in[name] = true
	s.mu.Unlock()
	if twice {
		_, err := fmt.Fprintf(c, "node %s runs already\n", name)
		return errors.Join(err, c.Close())
	}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.in, name)
	}()
	if _, err := io.WriteString(c, plugged+"\n"); err != nil {
		return errors.Join(err, c.Close())
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		return errors.Join(err, c.Close())
	}
	return s.net.Attach(c)
}

// plugged is what plug answers before frames.
const plugged = "ok"

// announceEnd makes the processes that plugged machines in stop them.
func (s *server) announceEnd() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.ending:
	default:
		close(s.ending)
	}
}

func (s *server) close() error {
	s.announceEnd()
	var errs []error
	if s.http != nil {
		errs = append(errs, s.http.Close())
	}
	if s.cable != nil {
		errs = append(errs, s.cable.Close())
	}
	errs = append(errs, s.net.Close())
	s.wg.Wait()
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}
