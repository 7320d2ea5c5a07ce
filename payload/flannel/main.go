// Command flanneld is the flannel daemon of a Kubernetes node. It is flannel's own
// library: subnets from the Kubernetes API, the backends that need no cloud, and
// iptables or nftables rules, behind flanneld's flags, so that it stands where the
// upstream kube-flannel DaemonSet starts flanneld. Flannel's own main cannot be
// built without the module of one cloud's backend; and etcd as a source of subnets,
// which a Kubernetes node does not use, is left out.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/flannel-io/flannel/pkg/backend"
	_ "github.com/flannel-io/flannel/pkg/backend/alloc" // a backend is registered by its import
	_ "github.com/flannel-io/flannel/pkg/backend/hostgw"
	_ "github.com/flannel-io/flannel/pkg/backend/ipip"
	_ "github.com/flannel-io/flannel/pkg/backend/vxlan"
	_ "github.com/flannel-io/flannel/pkg/backend/wireguard"
	"github.com/flannel-io/flannel/pkg/ip"
	"github.com/flannel-io/flannel/pkg/subnet"
	"github.com/flannel-io/flannel/pkg/subnet/kube"
	"github.com/flannel-io/flannel/pkg/trafficmngr"
	"github.com/flannel-io/flannel/pkg/trafficmngr/iptables"
	"github.com/flannel-io/flannel/pkg/trafficmngr/nftables"
	"github.com/flannel-io/flannel/pkg/version"
	"k8s.io/klog/v2"
)

func main() {
	opts, err := parse(os.Args, os.LookupEnv)
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(0)
	case err != nil:
		fmt.Fprintln(os.Stderr, "flanneld:", err)
		os.Exit(2)
	case opts.version:
		fmt.Fprintln(os.Stderr, version.Version)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err = run(ctx, opts)
	stop()
	if err != nil {
		klog.Errorf("flanneld: %v", err)
		klog.Flush()
		os.Exit(1)
	}
	klog.Info("flanneld: stopped")
	klog.Flush()
}

// run is the node's network until ctx ends. The goroutines of the backend are
// waited for, also after an error.
func run(ctx context.Context, opts options) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()

	var ready health
	if opts.healthzPort > 0 {
		if err := ready.serve(ctx, &wg, net.JoinHostPort(opts.healthzIP, strconv.Itoa(opts.healthzPort))); err != nil {
			return fmt.Errorf("health endpoint: %w", err)
		}
	}
	manager, err := kube.NewSubnetManager(ctx, opts.kubeAPIURL, opts.kubeConfigFile, opts.annotationPrefix, opts.netConfPath, opts.setNetworkUnavailable)
	if err != nil {
		// As flanneld: nodes that are not listed yet can be waited for elsewhere.
		if manager == nil || !errors.Is(err, context.DeadlineExceeded) || os.Getenv("CONT_WHEN_CACHE_NOT_READY") != "true" {
			return fmt.Errorf("subnet manager: %w", err)
		}
		klog.Warningf("continuing although the list of nodes is not complete yet: %v", err)
	}
	klog.Infof("subnet manager: %s", manager.Name())

	config, err := networkConfig(ctx, manager)
	if err != nil {
		return stopped(ctx, err)
	}
	if err := checkBridgeFilter(config); err != nil {
		return err
	}
	iface, err := externalInterface(ctx, manager, config, opts)
	if err != nil {
		return err
	}
	be, err := backend.NewManager(ctx, manager, iface).GetBackend(config.BackendType)
	if err != nil {
		return fmt.Errorf("backend %q: %w; this flanneld has alloc, host-gw, ipip, vxlan and wireguard", config.BackendType, err)
	}
	network, err := be.RegisterNetwork(ctx, &wg, config)
	if err != nil {
		return stopped(ctx, fmt.Errorf("backend %s: register the network: %w", config.BackendType, err))
	}
	if err := filterRules(ctx, config, network, opts); err != nil {
		return stopped(ctx, err)
	}
	if opts.blackholeRoute {
		keepBlackholes(ctx, &wg, config, network, opts)
	}

	lease := network.Lease()
	if err := manager.HandleSubnetFile(opts.subnetFile, config, opts.ipMasq, lease.Subnet, lease.IPv6Subnet, network.MTU()); err != nil {
		return fmt.Errorf("%s, from which the CNI plugin takes the node's subnet: %w", opts.subnetFile, err)
	}
	klog.Infof("wrote %s: subnet %s %s, MTU %d", opts.subnetFile, lease.Subnet, lease.IPv6Subnet, network.MTU())
	ready.set()

	wg.Add(1)
	go func() {
		defer wg.Done()
		network.Run(ctx)
	}()
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		klog.Errorf("tell the service manager: %v", err)
	}
	if err := manager.CompleteLease(ctx, lease, &wg); err != nil {
		// The network works; what failed is only saying so in the Node's conditions,
		// and flanneld goes on likewise.
		klog.Errorf("complete the lease: %v", err)
	}
	<-ctx.Done()
	return nil
}

// stopped turns an error that is only the end of ctx into none.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// networkConfig asks for the network until it is there.
func networkConfig(ctx context.Context, manager subnet.Manager) (*subnet.Config, error) {
	for {
		config, err := manager.GetNetworkConfig(ctx)
		if err == nil && config != nil {
			klog.Infof("network %s %s, backend %s", config.Network, config.IPv6Network, config.BackendType)
			return config, nil
		}
		klog.Warningf("no network configuration yet: %v", err)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// filterRules sets up masquerading and forwarding with the kind of rules that
// the network's configuration chose, and removes those of the other kind: they
// stay when a node is restarted with another choice.
func filterRules(ctx context.Context, config *subnet.Config, network backend.Network, opts options) error {
	var use, other trafficmngr.TrafficManager = &iptables.IPTablesManager{}, &nftables.NFTablesManager{}
	if config.EnableNFTables {
		use, other = other, use
	}
	if err := other.CleanUp(ctx); err != nil {
		return fmt.Errorf("remove unused packet filter rules: %w", err)
	}
	if err := use.Init(ctx); err != nil {
		return fmt.Errorf("packet filter rules: %w", err)
	}
	if opts.ipMasq {
		prev, err := readSubnetFile(opts.subnetFile)
		if err != nil {
			klog.Warningf("previous subnet: %v", err) // only its stale rules stay
		}
		err = use.SetupAndEnsureMasqRules(ctx, config.Network, prev.subnet, prev.network,
			config.IPv6Network, prev.subnet6, prev.network6, network.Lease(), opts.resyncSeconds, opts.noRandomMasq)
		if err != nil {
			return fmt.Errorf("masquerading rules: %w", err)
		}
	}
	if opts.forwardRules {
		use.SetupAndEnsureForwardRules(ctx, config.Network, config.IPv6Network, opts.resyncSeconds)
	}
	return nil
}

// keepBlackholes routes the node's subnet to nowhere as long as no bridge has it.
func keepBlackholes(ctx context.Context, wg *sync.WaitGroup, config *subnet.Config, network backend.Network, opts options) {
	wg.Add(1)
	go func() {
		defer wg.Done()
		tick := time.NewTicker(time.Duration(opts.resyncSeconds) * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			lease := network.Lease()
			if config.EnableIPv4 {
				if err := ip.AddBlackholeV4Route(lease.Subnet.ToIPNet()); err != nil {
					klog.Errorf("blackhole route to %s: %v", lease.Subnet, err)
				}
			}
			if config.EnableIPv6 {
				if err := ip.AddBlackholeV6Route(lease.IPv6Subnet.ToIPNet()); err != nil {
					klog.Errorf("blackhole route to %s: %v", lease.IPv6Subnet, err)
				}
			}
		}
	}()
}
