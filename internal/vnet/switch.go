package vnet

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

const (
	// headerLen is what an Ethernet frame begins with: two addresses and a type.
	headerLen = 14
	// maxFrame is the longest frame that QEMU's devices make, segmentation
	// offload included.
	maxFrame = 64<<10 + headerLen
	// portQueue is how many frames wait for a machine. It is what TCP keeps under
	// way between two busy emulated machines; a machine that stands still loses
	// what comes after them, as on any network, and stops nobody else.
	portQueue = 1024
)

// mac is an Ethernet address.
type mac [6]byte

// group reports whether the address is a multicast one, which broadcast is too.
func (m mac) group() bool { return m[0]&1 != 0 }

func destination(frame []byte) mac { return mac(frame[0:6]) }
func source(frame []byte) mac      { return mac(frame[6:12]) }

// lan is a learning switch. Frames are not changed once they are in it.
type lan struct {
	mu     sync.Mutex
	ports  map[*port]struct{}
	table  map[mac]*port // where an address was seen last
	closed bool
}

// port is a socket of the switch.
type port struct {
	// deliver takes a frame for what is plugged in; it must not block.
	deliver func(frame []byte)
	// only, if set, is the one address whose frames the port takes, besides those
	// for a group: the gateway is not asked about frames to machines not seen yet.
	only *mac
}

func newLAN() *lan {
	return &lan{ports: map[*port]struct{}{}, table: map[mac]*port{}}
}

// plug adds a port; false if the switch is closed.
func (l *lan) plug(p *port) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.ports[p] = struct{}{}
	return true
}

// unplug removes a port and forgets who was behind it.
func (l *lan) unplug(p *port) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.ports, p)
	for a, at := range l.table {
		if at == p {
			delete(l.table, a)
		}
	}
}

// forward takes a frame that came in at a port to the port of its destination, or
// to all others if it is for a group or for somebody who was not heard yet.
func (l *lan) forward(from *port, frame []byte) {
	if len(frame) < headerLen {
		return
	}
	to := destination(frame)
	var out []*port
	l.mu.Lock()
	if src := source(frame); !src.group() {
		l.table[src] = from
	}
	if p := l.table[to]; p != nil && !to.group() {
		if p != from {
			out = []*port{p}
		}
	} else {
		for p := range l.ports {
			if p != from && (p.only == nil || to.group() || *p.only == to) {
				out = append(out, p)
			}
		}
	}
	l.mu.Unlock()
	for _, p := range out {
		p.deliver(frame)
	}
}

func (l *lan) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	clear(l.ports)
	clear(l.table)
}

// attach carries the frames of a machine until its connection ends or stop is
// closed: each has its length in front, 32 bits big-endian, which is how QEMU puts
// frames on a stream (net/stream.c).
func (l *lan) attach(conn net.Conn, stop <-chan struct{}) error {
	queue, ended := make(chan []byte, portQueue), make(chan struct{})
	p := &port{deliver: func(frame []byte) {
		select {
		case queue <- frame:
		default:
		}
	}}
	if !l.plug(p) {
		return errors.Join(net.ErrClosed, conn.Close())
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-stop:
		case <-ended:
		}
		_ = conn.Close() // wakes whoever reads or writes
	})
	wg.Go(func() {
		if err := writeFrames(conn, queue, ended); err != nil {
			_ = conn.Close()
		}
	})
	err := l.readFrames(conn, p)
	l.unplug(p)
	close(ended)
	wg.Wait()
	select {
	case <-stop:
		return nil
	default:
		return err
	}
}

func (l *lan) readFrames(r io.Reader, from *port) error {
	br := bufio.NewReaderSize(r, maxFrame)
	var size [4]byte
	for {
		if _, err := io.ReadFull(br, size[:]); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		n := binary.BigEndian.Uint32(size[:])
		if n > maxFrame {
			return fmt.Errorf("a frame of %d bytes; Ethernet has at most %d here", n, maxFrame)
		}
		frame := make([]byte, n)
		if _, err := io.ReadFull(br, frame); err != nil {
			return err
		}
		l.forward(from, frame)
	}
}

func writeFrames(w io.Writer, queue <-chan []byte, ended <-chan struct{}) error {
	bw := bufio.NewWriterSize(w, maxFrame)
	for {
		select {
		case <-ended:
			return nil
		case frame := <-queue:
			var size [4]byte
			binary.BigEndian.PutUint32(size[:], uint32(len(frame)))
			if _, err := bw.Write(size[:]); err != nil {
				return err
			}
			if _, err := bw.Write(frame); err != nil {
				return err
			}
			if len(queue) > 0 {
				continue // one system call for what waits
			}
			if err := bw.Flush(); err != nil {
				return err
			}
		}
	}
}
