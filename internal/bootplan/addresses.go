package bootplan

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"strconv"
)

// LocalAPIEndpoint is the node's own API server as host:port, at its address.
func (p Plan) LocalAPIEndpoint(address netip.Addr) string {
	return net.JoinHostPort(address.String(), strconv.Itoa(p.Node.Port()))
}

// SharedAPIEndpoint is the cluster's shared endpoint as host:port, or that of the node
// with the address if the cluster has none.
func (p Plan) SharedAPIEndpoint(address netip.Addr) string {
	if p.Cluster.ControlPlaneEndpoint == "" {
		return p.LocalAPIEndpoint(address)
	}
	host, port, err := SplitEndpoint(p.Cluster.ControlPlaneEndpoint)
	if err != nil {
		return p.Cluster.ControlPlaneEndpoint
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

// ServiceIP returns the address n above the base of the first service subnet.
func (c Cluster) ServiceIP(n uint32) (netip.Addr, error) {
	if len(c.ServiceSubnets) == 0 {
		return netip.Addr{}, errors.New("no service subnet")
	}
	p, err := netip.ParsePrefix(c.ServiceSubnets[0])
	if err != nil {
		return netip.Addr{}, err
	}
	base := p.Masked().Addr()
	var a netip.Addr
	if base.Is4() {
		b := base.As4()
		v := binary.BigEndian.Uint32(b[:]) + n
		binary.BigEndian.PutUint32(b[:], v)
		a = netip.AddrFrom4(b)
	} else {
		b := base.As16()
		v := new(big.Int).Add(new(big.Int).SetBytes(b[:]), big.NewInt(int64(n)))
		var o [16]byte
		v.FillBytes(o[:])
		a = netip.AddrFrom16(o)
	}
	if !p.Contains(a) {
		return netip.Addr{}, fmt.Errorf("service subnet %s has no %dth address", p, n)
	}
	return a, nil
}
