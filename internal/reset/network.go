package reset

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// interfaces that flannel, its bridge and kube-proxy make.
var interfaces = []string{"cni0", "flannel.1", "flannel-v6.1", "flannel-wg", "flannel-wg-v6", ipvsInterface}

// ipvsInterface is where kube-proxy in the mode ipvs puts the addresses of Services.
const ipvsInterface = "kube-ipvs0"

// Network implements Machine.
func (m machine) Network(ctx context.Context, podSubnets []string) ([]Change, error) {
	var out []Change
	script, err := netfilter(ctx)
	if err != nil {
		return nil, err
	}
	if script != "" {
		out = append(out, Change{Text: fmt.Sprintf("delete Kubernetes' packet filter rules (%d nftables commands)", strings.Count(script, "\n")), Do: func(ctx context.Context) error {
			_, err := nft(ctx, script, "-f", "-")
			return err
		}})
	}
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("interfaces: %w", err)
	}
	for _, l := range links {
		name := l.Attrs().Name
		if !slices.Contains(interfaces, name) {
			continue
		}
		if name == ipvsInterface { // kube-proxy's own: nobody else's services are touched
			out = append(out, Change{Text: "delete the virtual servers of IPVS", Do: func(context.Context) error { return flushIPVS() }})
		}
		out = append(out, Change{Text: "delete the interface " + name, Do: func(context.Context) error {
			err := netlink.LinkDel(l)
			if errors.Is(err, unix.ENODEV) {
				return nil
			}
			return err
		}})
	}
	sets, err := ipsets()
	if err != nil {
		return nil, err
	}
	for _, name := range sets {
		out = append(out, Change{Text: "delete the ipset " + name, Do: func(context.Context) error { return netlink.IpsetDestroy(name) }})
	}
	routes, err := podRoutes(podSubnets)
	if err != nil {
		return nil, err
	}
	for _, r := range routes {
		out = append(out, Change{Text: "delete the route to " + r.Dst.String(), Do: func(context.Context) error {
			err := netlink.RouteDel(&r)
			if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENODEV) { // it went with its interface
				return nil
			}
			return err
		}})
	}
	return out, nil
}

// netfilter returns the commands that remove Kubernetes' rules. Without nft, or
// nftables in the kernel, there are none.
func netfilter(ctx context.Context) (string, error) {
	listing, err := nft(ctx, "", "-j", "list", "ruleset")
	if errors.Is(err, exec.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return netfilterScript(listing)
}

// nft runs the tool with its input.
func nft(ctx context.Context, input string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, nftTool, args...)
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &errOut
	if err := cmd.Run(); err != nil {
		if text := strings.TrimSpace(errOut.String()); text != "" {
			return nil, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, text)
		}
		return nil, fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
	}
	return out.Bytes(), nil
}

// nftTool is the program; tests name another.
var nftTool = "nft"

// ipsets lists the sets of kube-proxy's mode ipvs. A kernel without ipset has none.
func ipsets() ([]string, error) {
	sets, err := netlink.IpsetListAll()
	if err != nil {
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) {
			return nil, nil
		}
		return nil, fmt.Errorf("ipsets: %w", err)
	}
	var out []string
	for _, s := range sets {
		if strings.HasPrefix(s.SetName, "KUBE-") {
			out = append(out, s.SetName)
		}
	}
	return out, nil
}

// podRoutes are the routes to other nodes' pods, as of flannel's host-gw.
func podRoutes(podSubnets []string) ([]netlink.Route, error) {
	var subnets []*net.IPNet
	for _, s := range podSubnets {
		_, n, err := net.ParseCIDR(s)
		if err != nil {
			return nil, fmt.Errorf("pod subnet: %w", err)
		}
		subnets = append(subnets, n)
	}
	if len(subnets) == 0 {
		return nil, nil
	}
	all, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("routes: %w", err)
	}
	var out []netlink.Route
	for _, r := range all {
		inside := r.Dst != nil && slices.ContainsFunc(subnets, func(n *net.IPNet) bool {
			have, of := r.Dst.Mask.Size()
			want, wantOf := n.Mask.Size()
			return of == wantOf && have >= want && n.Contains(r.Dst.IP)
		})
		if inside && r.Table == unix.RT_TABLE_MAIN {
			out = append(out, r)
		}
	}
	return out, nil
}

// flushIPVS empties the kernel's table of virtual servers, as ipvsadm --clear does
// (linux/ip_vs.h).
func flushIPVS() error {
	const cmdFlush = 17
	family, err := netlink.GenlFamilyGet("IPVS")
	if errors.Is(err, unix.ENOENT) { // the kernel has no IPVS
		return nil
	}
	if err != nil {
		return fmt.Errorf("IPVS: %w", err)
	}
	req := nl.NewNetlinkRequest(int(family.ID), unix.NLM_F_ACK)
	req.AddData(&nl.Genlmsg{Command: cmdFlush, Version: 1})
	if _, err := req.Execute(unix.NETLINK_GENERIC, 0); err != nil {
		return fmt.Errorf("IPVS: %w", err)
	}
	return nil
}
