package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/phase"
)

// waitForAddress returns the plan's advertise address once an interface has it,
// or the address of the default route once there is one. Until then it says what
// the network lacks. A device that is plugged in late, a cable, or a DHCP server
// that answers late heals by itself.
func waitForAddress(ctx context.Context, plan bootplan.Plan, paths host.Paths, r phase.Report) (addr netip.Addr, err error) {
	what := "a default route"
	if plan.Node.AdvertiseAddress != "" {
		if addr, err = netip.ParseAddr(plan.Node.AdvertiseAddress); err != nil {
			return addr, planError{fmt.Errorf("boot plan: node.advertiseAddress: %w", err)}
		}
		if !addr.IsGlobalUnicast() || addr.Zone() != "" {
			return addr, planError{fmt.Errorf("boot plan: node.advertiseAddress %s is not a global unicast address", addr)}
		}
		what = "the address " + addr.String()
	}
	static, renew := addr, routerRequest{every: time.Minute, ask: host.ReconfigureDevice, now: time.Now}
	err = phase.Poll(ctx, r, what, time.Second, time.Duration(plan.Timeouts.Network), func(ctx context.Context) (err error) {
		if static.IsValid() {
			err = host.CheckLocal(static)
		} else if addr, err = defaultAddress(plan, paths); err == nil {
			err = host.CheckLocal(addr)
		}
		if err == nil {
			return nil
		}
		devices, e := paths.NetworkDevices()
		if e != nil {
			return errors.Join(err, e)
		}
		return errors.Join(networkFault(devices, static, err), renew.due(ctx, devices, err))
	})
	return addr, err
}

// routerRequest has the DHCP server asked again from time to time for a router that it
// did not name: its lease lasts for hours.
type routerRequest struct {
	every time.Duration
	ask   func(ctx context.Context, device string) error
	now   func() time.Time
	last  time.Time // when the router was found missing, or asked for
}

// due asks if it is time to; why is what the node lacks.
func (r *routerRequest) due(ctx context.Context, devices []host.NetworkDevice, why error) error {
	var errs []error
	for _, d := range devices {
		if !errors.Is(why, host.ErrNoDefaultRoute) || !d.Link || len(d.Addresses) == 0 {
			continue
		}
		if r.last.IsZero() {
			r.last = r.now()
		}
		if r.now().Sub(r.last) >= r.every {
			errs = append(errs, r.ask(ctx, d.Name))
		}
	}
	if !r.last.IsZero() && r.now().Sub(r.last) >= r.every {
		r.last = r.now()
	}
	return errors.Join(errs...)
}

// networkFault says why the network is not there, in words for who stands before
// the machine. static is the address of the boot plan, invalid with DHCP; err is
// what was looked for and not found.
func networkFault(devices []host.NetworkDevice, static netip.Addr, err error) error {
	var linked, addressed []string
	var all []string
	for _, d := range devices {
		all = append(all, d.String())
		if !d.Link {
			continue
		}
		linked = append(linked, d.String())
		if len(d.Addresses) > 0 {
			addressed = append(addressed, fmt.Sprintf("%s with %s", d, joined(d.Addresses)))
		}
	}
	switch {
	case len(devices) == 0:
		return errors.New("this machine has no network device: none is plugged in, or the image has no driver for it")
	case len(linked) == 0:
		fault := fmt.Sprintf("no link at %s: plug in the cable, or look at the switch's port", strings.Join(all, ", "))
		if slices.ContainsFunc(devices, func(d host.NetworkDevice) bool { return d.Wireless }) {
			fault += "; on Wi-Fi look at wifi in the cluster file, and whether the network is within reach"
		}
		return errors.New(fault)
	case static.IsValid():
		have := "none"
		if len(addressed) > 0 {
			have = strings.Join(addressed, ", ")
		}
		return fmt.Errorf("%w; linked: %s; addresses: %s. The node's interface in the cluster file must match one of them", err, strings.Join(linked, ", "), have)
	case len(addressed) == 0:
		return fmt.Errorf("no address at %s: no DHCP server has answered there; it is asked until one does", strings.Join(linked, ", "))
	case errors.Is(err, host.ErrNoDefaultRoute):
		return fmt.Errorf("no default route at %s: the DHCP server names no router; it is asked again every minute. Correct it, or give the node an address and a gateway in the cluster file", strings.Join(addressed, ", "))
	}
	return err
}

func joined(prefixes []netip.Prefix) string {
	var out []string
	for _, p := range prefixes {
		out = append(out, p.String())
	}
	return strings.Join(out, " and ")
}

// lookupTimeout bounds one question to one name server.
const lookupTimeout = 5 * time.Second

// waitForEndpoint waits until the name of the cluster's shared endpoint resolves.
// kube-proxy and the pod network reach the API server by it: without the name the
// node would never be Ready, and would not say why.
func waitForEndpoint(ctx context.Context, plan bootplan.Plan, paths host.Paths, r phase.Report) error {
	if plan.Cluster.ControlPlaneEndpoint == "" {
		return nil
	}
	name, _, err := bootplan.SplitEndpoint(plan.Cluster.ControlPlaneEndpoint)
	if err != nil {
		return planError{fmt.Errorf("boot plan: cluster.controlPlaneEndpoint: %w", err)}
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return nil
	}
	return phase.Poll(ctx, r, "the name "+name, time.Second, time.Duration(plan.Timeouts.Network), func(ctx context.Context) error {
		servers, err := paths.NameServers()
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
		defer cancel()
		if _, err = resolver(servers, "53").LookupHost(ctx, name); err != nil {
			return nameFault(name, servers, err)
		}
		return nil
	})
}

// resolver reads /etc/hosts, and asks the given servers. Pods on the host's network
// ask them as well; systemd-resolved would go on saying for as long as the
// domain's SOA tells it that there is no such name.
func resolver(servers []netip.Addr, port string) *net.Resolver {
	if len(servers) == 0 {
		return net.DefaultResolver
	}
	var asked atomic.Uint32
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		s := servers[int(asked.Add(1)-1)%len(servers)]
		return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(s.String(), port))
	}}
}

// nameFault says why the endpoint's name does not resolve, and what would be right.
func nameFault(name string, servers []netip.Addr, err error) error {
	if len(servers) == 0 {
		return fmt.Errorf("%s does not resolve: the node has no name server; let DHCP name one, or set nameservers in the cluster file", name)
	}
	var who []string
	for _, s := range servers {
		who = append(who, s.String())
	}
	asked := "name server " + strings.Join(who, ", ")
	var d *net.DNSError
	switch {
	case !errors.As(err, &d):
	case d.IsNotFound:
		return fmt.Errorf("%s does not resolve: %s does not know it. It is the cluster's controlPlaneEndpoint: add a record that leads to the control plane", name, asked)
	case d.IsTimeout:
		return fmt.Errorf("%s does not resolve: no answer from %s. It is the cluster's controlPlaneEndpoint", name, asked)
	default:
		return fmt.Errorf("%s does not resolve: %s: %s. It is the cluster's controlPlaneEndpoint", name, asked, d.Err)
	}
	return fmt.Errorf("%s does not resolve: %s: %w", name, asked, err)
}

// onScreen is a Report that shows on the login screen too what is waited for.
type onScreen struct {
	phase.Report
	screen *screen
}

// Waiting implements phase.Report.
func (o onScreen) Waiting(what string, waited, bound time.Duration, last error) {
	o.Report.Waiting(what, waited, bound, last)
	o.screen.waiting(what, last)
}
