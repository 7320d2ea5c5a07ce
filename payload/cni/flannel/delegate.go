package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

// subnet is what flanneld says about the node's part of the network.
type subnet struct {
	networks []*net.IPNet // of all pods
	subnets  []*net.IPNet // of the node's pods
	mtu      int
	masq     bool // flanneld masquerades
}

// readSubnet reads the file that flanneld writes.
func readSubnet(file string) (subnet, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return subnet{}, fmt.Errorf("%w: flanneld writes it when the network is up", err)
	}
	s, err := parseSubnet(data)
	if err != nil {
		return s, fmt.Errorf("%s: %w", file, err)
	}
	return s, nil
}

func parseSubnet(data []byte) (subnet, error) {
	var s subnet
	have := map[string]bool{}
	for i, line := range strings.Split(string(data), "\n") {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok {
			continue
		}
		var err error
		switch key {
		case "FLANNEL_NETWORK", "FLANNEL_IPV6_NETWORK":
			// A network may be a list, of which the pods' routes need all.
			for _, one := range strings.Split(value, ",") {
				var n *net.IPNet
				if _, n, err = net.ParseCIDR(one); err != nil {
					break
				}
				s.networks = append(s.networks, n)
			}
		case "FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET":
			var n *net.IPNet
			if _, n, err = net.ParseCIDR(value); err == nil {
				s.subnets = append(s.subnets, n)
			}
		case "FLANNEL_MTU":
			s.mtu, err = strconv.Atoi(value)
			if err == nil && (s.mtu < 68 || s.mtu > 65535) { // RFC 791's least
				err = errors.New("no possible MTU")
			}
		case "FLANNEL_IPMASQ":
			s.masq, err = strconv.ParseBool(value)
		default:
			continue
		}
		if err != nil {
			return subnet{}, fmt.Errorf("line %d: %s=%s: %w", i+1, key, value, err)
		}
		have[key] = true
	}
	switch {
	case len(s.networks) == 0:
		return subnet{}, errors.New("no FLANNEL_NETWORK or FLANNEL_IPV6_NETWORK")
	case len(s.subnets) == 0:
		return subnet{}, errors.New("no FLANNEL_SUBNET or FLANNEL_IPV6_SUBNET")
	case !have["FLANNEL_MTU"]:
		return subnet{}, errors.New("no FLANNEL_MTU")
	case !have["FLANNEL_IPMASQ"]:
		return subnet{}, errors.New("no FLANNEL_IPMASQ")
	}
	return s, nil
}

// delegate makes the configuration of the plugin that does the work. What the
// network's configuration says stays; the subnet, the MTU and who masquerades are
// filled in.
func delegate(c config, s subnet) (map[string]any, error) {
	d := map[string]any{}
	for k, v := range c.Delegate {
		d[k] = v
	}
	for _, k := range []string{"name", "ipam"} {
		if _, ok := d[k]; ok {
			return nil, fmt.Errorf("'delegate' must not have %q: it is set from the network's configuration", k)
		}
	}
	if t, ok := d["type"]; ok {
		if _, ok := t.(string); !ok {
			return nil, fmt.Errorf("'delegate.type' is %v, the name of a plugin is right", t)
		}
	}
	setDefault(d, "type", "bridge")
	setDefault(d, "ipMasq", !s.masq) // one of the two does it
	setDefault(d, "mtu", s.mtu)
	if d["type"] == "bridge" {
		setDefault(d, "isGateway", true)
	}
	d["name"] = c.Name
	if c.CNIVersion != "" {
		d["cniVersion"] = c.CNIVersion
	}
	if c.RuntimeConfig != nil {
		d["runtimeConfig"] = c.RuntimeConfig
	}
	ipam, err := addressManagement(c.IPAM, s)
	if err != nil {
		return nil, err
	}
	d["ipam"] = ipam
	return d, nil
}

// addressManagement completes the network's ipam with the node's subnets and,
// after the routes it has, the routes to all pods.
func addressManagement(given map[string]any, s subnet) (map[string]any, error) {
	ipam := map[string]any{}
	for k, v := range given {
		ipam[k] = v
	}
	setDefault(ipam, "type", "host-local")
	var ranges [][]map[string]string
	for _, n := range s.subnets {
		ranges = append(ranges, []map[string]string{{"subnet": n.String()}})
	}
	ipam["ranges"] = ranges
	routes, ok := ipam["routes"].([]any)
	if !ok && ipam["routes"] != nil {
		return nil, fmt.Errorf("'ipam.routes' is no list but %v", ipam["routes"])
	}
	for _, n := range s.networks {
		routes = append(routes, map[string]string{"dst": n.String()})
	}
	ipam["routes"] = routes
	return ipam, nil
}

func setDefault(m map[string]any, key string, value any) {
	if _, ok := m[key]; !ok {
		m[key] = value
	}
}
