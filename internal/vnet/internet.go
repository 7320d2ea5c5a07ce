package vnet

import (
	"fmt"
	"sync"

	"github.com/containers/gvisor-tap-vsock/pkg/services/forwarder"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// openInternet lets this host make the connections that the machines ask for: the
// gateway takes packets to all addresses, and what none of its own services is
// meant by goes to sockets of this host.
func (n *Network) openInternet() error {
	if err := n.stack.SetPromiscuousMode(nic, true); err != nil {
		return fmt.Errorf("network: %s", err)
	}
	if err := n.stack.SetSpoofing(nic, true); err != nil {
		return fmt.Errorf("network: %s", err)
	}
	var lock sync.Mutex
	none := map[tcpip.Address]tcpip.Address{}
	n.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, forwarder.TCP(n.stack, none, &lock, false).HandlePacket)
	n.stack.SetTransportProtocolHandler(udp.ProtocolNumber, forwarder.UDP(n.stack, none, &lock, false).HandlePacket)
	return nil
}
