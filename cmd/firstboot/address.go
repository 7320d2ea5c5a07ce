package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
)

// defaultAddress is the address of the default route; in a cluster whose first
// service subnet is IPv6 that of the IPv6 one, whatever else the machine has.
func defaultAddress(plan bootplan.Plan, paths host.Paths) (netip.Addr, error) {
	if v6, _ := (nodeconfig.Config{Plan: plan}).Families(); v6 {
		return paths.AddressOf(true)
	}
	return paths.AdvertiseAddress()
}

// waitForNodeIPs returns what the kubelet must be told: the plan's addresses once an
// interface has them, and in a dual-stack cluster also the address of the family that
// the plan leaves open. In an IPv4 cluster the kubelet needs no help.
func waitForNodeIPs(ctx context.Context, cfg nodeconfig.Config, paths host.Paths, r phase.Report) ([]netip.Addr, error) {
	v6First, both := cfg.Families()
	var out []netip.Addr
	for _, text := range cfg.Plan.Node.NodeIPs {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return nil, planError{fmt.Errorf("boot plan: node.nodeIPs: %w", err)}
		}
		out = append(out, addr)
	}
	bound := time.Duration(cfg.Plan.Timeouts.Network)
	for _, addr := range out {
		if err := phase.Poll(ctx, r, "the address "+addr.String(), time.Second, bound, func(context.Context) error { return host.CheckLocal(addr) }); err != nil {
			return nil, err
		}
	}
	if len(out) == 0 {
		if !both && !v6First {
			return nil, nil
		}
		out = append(out, cfg.AdvertiseAddress)
	}
	if !both || len(out) > 1 {
		return out, nil
	}
	other, what := !out[0].Is6(), "an IPv4 address with a default route"
	if other {
		what = "an IPv6 address with a default route, of a static address, DHCP or a router's announcement"
	}
	var addr netip.Addr
	err := phase.Poll(ctx, r, what, time.Second, bound, func(context.Context) (err error) {
		if addr, err = paths.AddressOf(other); err != nil {
			return err
		}
		return host.CheckLocal(addr)
	})
	return append(out, addr), err
}
