package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/flannel-io/flannel/pkg/backend"
	"github.com/flannel-io/flannel/pkg/ipmatch"
	"github.com/flannel-io/flannel/pkg/subnet"
	"k8s.io/klog/v2"
)

// externalInterface chooses the interface towards the other nodes: the first that
// the flags match, in their order, or that of the default route.
func externalInterface(ctx context.Context, manager subnet.Manager, config *subnet.Config, opts options) (*backend.ExternalInterface, error) {
	stack, err := ipmatch.GetIPFamily(config.EnableIPv4, config.EnableIPv6)
	if err != nil {
		return nil, fmt.Errorf("IP families of the network: %w", err)
	}
	// Addresses that an operator wrote on the Node win over the flags.
	public := ipmatch.PublicIPOpts{PublicIP: opts.publicIP, PublicIPv6: opts.publicIPv6}
	stored, stored6 := manager.GetStoredPublicIP(ctx)
	if stored != "" {
		public.PublicIP = stored
	}
	if stored6 != "" {
		public.PublicIPv6 = stored6
	}

	type candidate struct{ name, pattern, reaching string }
	var candidates []candidate
	for _, n := range opts.interfaces {
		candidates = append(candidates, candidate{name: n})
	}
	for _, p := range opts.interfacePatterns {
		candidates = append(candidates, candidate{pattern: p})
	}
	if opts.interfaceReaching != "" {
		candidates = append(candidates, candidate{reaching: opts.interfaceReaching})
	}
	if len(candidates) == 0 {
		def := candidate{name: public.PublicIP}
		if def.name == "" {
			def.name = public.PublicIPv6
		}
		candidates = []candidate{def}
	}
	var errs []error
	for _, c := range candidates {
		iface, err := ipmatch.LookupExtIface(c.name, c.pattern, c.reaching, stack, public)
		if err == nil && iface != nil {
			klog.Infof("interface %s, address %s %s", iface.Iface.Name, iface.ExtAddr, iface.ExtV6Addr)
			return iface, nil
		}
		errs = append(errs, fmt.Errorf("interface %q%q%q: %w", c.name, c.pattern, c.reaching, err))
	}
	return nil, fmt.Errorf("no interface towards other nodes: %w", errors.Join(errs...))
}

// checkBridgeFilter fails if bridged packets pass by iptables: then Services do
// not work between pods of one node, and nothing else would say why.
func checkBridgeFilter(config *subnet.Config) error {
	if config.EnableNFTables {
		return nil
	}
	for file, wanted := range map[string]bool{
		"/proc/sys/net/bridge/bridge-nf-call-iptables":  config.EnableIPv4,
		"/proc/sys/net/bridge/bridge-nf-call-ip6tables": config.EnableIPv6,
	} {
		if _, err := os.Stat(file); wanted && err != nil {
			return fmt.Errorf("%w: load the kernel module br_netfilter", err)
		}
	}
	return nil
}
