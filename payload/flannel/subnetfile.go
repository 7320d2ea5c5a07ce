package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"

	"github.com/flannel-io/flannel/pkg/ip"
)

// networks are the networks of a subnet file; those it does not have are empty.
type networks struct {
	network, subnet   ip.IP4Net
	network6, subnet6 ip.IP6Net
}

// readSubnetFile reads what the previous flanneld of this node wrote. No file, as
// after a reboot, is no error.
func readSubnetFile(file string) (networks, error) {
	empty := networks{network6: ip.IP6Net{IP: new(ip.IP6)}, subnet6: ip.IP6Net{IP: new(ip.IP6)}}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return empty, nil
	}
	if err != nil {
		return empty, err
	}
	n := empty
	for i, line := range strings.Split(string(data), "\n") {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok {
			continue
		}
		var v4 *ip.IP4Net
		var v6 *ip.IP6Net
		switch key {
		case "FLANNEL_NETWORK":
			v4 = &n.network
		case "FLANNEL_SUBNET":
			v4 = &n.subnet
		case "FLANNEL_IPV6_NETWORK":
			v6 = &n.network6
		case "FLANNEL_IPV6_SUBNET":
			v6 = &n.subnet6
		default:
			continue
		}
		_, parsed, err := net.ParseCIDR(strings.Trim(value, `"`))
		if err == nil && (parsed.IP.To4() != nil) != (v4 != nil) {
			err = fmt.Errorf("%s is of the other IP family", value)
		}
		if err != nil {
			return empty, fmt.Errorf("%s:%d: %s: %w", file, i+1, key, err)
		}
		if v4 != nil {
			*v4 = ip.FromIPNet(parsed)
		} else {
			*v6 = ip.FromIP6Net(parsed)
		}
	}
	return n, nil
}
