package vnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/inetaf/tcpproxy"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
)

// dialTime is how long a machine has to accept a connection before the next one is
// tried. An emulated kernel that is busy takes a second.
const dialTime = 5 * time.Second

// Forward makes TCP ports of machines reachable at a free port of 127.0.0.1, which
// it returns. With several targets a connection goes to one that accepts it.
func (n *Network) Forward(targets ...netip.AddrPort) (int, error) {
	if len(targets) == 0 {
		return 0, errors.New("network: a port is forwarded to nothing")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("network: %w", err)
	}
	if err := n.proxy(l, targets); err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, nil
}

// Listen takes connections to an address and port of the network, which becomes one of
// the gateway's: for a service that is elsewhere, such as a cloud's metadata. The caller
// serves them, and closes it before the network.
func (n *Network) Listen(at netip.AddrPort) (net.Listener, error) {
	if err := n.addAddress(at.Addr(), at.Addr().BitLen()); err != nil {
		return nil, err
	}
	l, err := gonet.ListenTCP(n.stack, fullAddress(at), protocolOf(at.Addr()))
	if err != nil {
		return nil, fmt.Errorf("network: %s: %w", at, err)
	}
	return l, nil
}

// Balance takes connections to an address and port of the network, which becomes
// one of the gateway's, to one of the targets that accepts it: the load balancer
// that is in front of a cluster elsewhere.
func (n *Network) Balance(at netip.AddrPort, targets ...netip.AddrPort) error {
	l, err := n.Listen(at)
	if err != nil {
		return err
	}
	return n.proxy(l, targets)
}

// proxy serves l until the network ends.
func (n *Network) proxy(l net.Listener, targets []netip.AddrPort) error {
	c := &chooser{targets: targets, dial: n.Dial}
	p := &tcpproxy.DialProxy{
		DialTimeout: -1, // each target has its own
		DialContext: func(context.Context, string, string) (net.Conn, error) { return c.connect(n.ctx) },
		// The client sees a connection that ends. Nobody is at this end to be told.
		OnDialError: func(client net.Conn, _ error) { _ = client.Close() },
	}
	return n.serve(l, func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return // it was closed
			}
			n.wg.Go(func() {
				// A client that stays must not keep the network from ending.
				defer context.AfterFunc(n.ctx, func() { _ = client.Close() })()
				p.HandleConn(client)
			})
		}
	})
}

// Dial connects to a TCP port of a machine, from the gateway.
func (n *Network) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	c, err := gonet.DialContextTCP(ctx, n.stack, fullAddress(to), protocolOf(to.Addr()))
	if err != nil {
		return nil, fmt.Errorf("network: %s: %w", to, err)
	}
	return c, nil
}

// chooser picks the target of a connection: the one that took the last, or the
// next that answers.
type chooser struct {
	targets []netip.AddrPort
	dial    func(context.Context, netip.AddrPort) (net.Conn, error)

	mu   sync.Mutex
	last int
}

func (c *chooser) connect(ctx context.Context) (net.Conn, error) {
	c.mu.Lock()
	first := c.last
	c.mu.Unlock()
	var errs []error
	for i := range c.targets {
		at := (first + i) % len(c.targets)
		try, cancel := context.WithTimeout(ctx, dialTime)
		conn, err := c.dial(try, c.targets[at])
		cancel()
		if err == nil {
			c.mu.Lock()
			c.last = at
			c.mu.Unlock()
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}
