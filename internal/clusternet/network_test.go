package clusternet

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestNetwork: one process runs the network, others plug machines in, and all hear
// of its end.
func TestNetwork(t *testing.T) {
	// A path that is too long for a socket's address.
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 30), ".boot")
	if _, err := Join(t.Context(), dir); !errors.Is(err, ErrNone) {
		t.Fatalf("joining nothing: %v", err)
	}
	p, err := NewPlan(parse(t, `controlPlaneEndpoint: api.example.org
nodes:
  - {name: c1, role: control-plane, profile: p, address: 10.1.0.11/24, gateway: 10.1.0.1}
  - {name: w1, role: worker, profile: p}
`))
	if err != nil {
		t.Fatal(err)
	}
	own, err := Start(dir, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = own.Close() })
	var running *RunningError
	if _, err := Start(dir, p); !errors.As(err, &running) {
		t.Fatalf("started twice: %v", err)
	}
	joined, err := Join(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if !own.Own() || joined.Own() || own.API == 0 || joined.API != own.API {
		t.Errorf("own %v %d, joined %v %d", own.Own(), own.API, joined.Own(), joined.API)
	}

	c1, _ := p.Node("c1")
	w1, _ := p.Node("w1")
	new1 := Node{Name: "w2", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 9}, Address: netip.MustParseAddr("10.1.0.77"), DHCP: true}
	cables := map[string]*os.File{}
	for _, x := range []struct {
		n    *Network
		node Node
	}{{own, c1}, {joined, w1}, {joined, new1}} {
		f, ports, err := x.n.Plug(t.Context(), x.node)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if (ports.API != 0) != x.node.ControlPlane || ports.SSH == 0 {
			t.Errorf("%s: ports %+v", x.node.Name, ports)
		}
		cables[x.node.Name] = f
	}
	if f, _, err := joined.Plug(t.Context(), c1); err == nil || err.Error() != "node c1 runs already" {
		t.Errorf("plugged in twice: %v, %v", f, err)
	}
	bad := new1
	bad.Name, bad.Address = "w3", netip.MustParseAddr("10.9.9.9")
	if _, _, err := joined.Plug(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "DHCP cannot give 10.9.9.9") {
		t.Errorf("a lease from elsewhere: %v", err)
	}

	// A broadcast of one machine reaches those of the other process.
	frame := append(append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, c1.MAC...), 0x88, 0xb5, 'h', 'i')
	message := append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)
	if _, err := cables["c1"].Write(message); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"w1", "w2"} {
		got := make([]byte, len(message))
		if _, err := io.ReadFull(cables[name], got); err != nil || string(got) != string(message) {
			t.Errorf("%s heard %x, %v", name, got, err)
		}
	}

	// A machine that was killed can be plugged in again.
	_ = cables["w1"].Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		f, _, err := joined.Plug(ctx, w1)
		if err == nil {
			_ = f.Close()
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("w1 cannot be plugged in again: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}

	joined.AnnounceEnd() // is not its to say
	select {
	case <-joined.Ended():
		t.Fatal("the network has ended")
	case <-time.After(50 * time.Millisecond):
	}
	own.AnnounceEnd()
	own.AnnounceEnd()
	<-joined.Ended()
	if err := joined.Close(); err != nil {
		t.Error(err)
	}
	if err := own.Close(); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(cables["c1"], make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a cable of a network that has ended: %v", err)
	}
	if _, err := Join(t.Context(), dir); !errors.Is(err, ErrNone) {
		t.Errorf("joining what has ended: %v", err)
	}
	if _, err := os.Stat(own.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the sockets are left: %v", err)
	}
}
