//go:build integration

package reset

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/testtools"
)

// rules are those of a node, as kube-proxy in the modes iptables and nftables, flannel
// and the CNI plugins make them, beside an administrator's.
const rules = `
table ip nat {
	chain KUBE-POSTROUTING { meta mark & 0x4000 == 0x0 return; masquerade; }
	chain KUBE-SVC-X { meta mark set 0x4000; }
	chain KUBE-SERVICES { ip daddr 10.96.0.1 jump KUBE-SVC-X; }
	chain CNI-HOSTPORT-DNAT { tcp dport 8080 dnat to 10.244.0.2:80; }
	chain WEB { tcp dport 81 redirect to :80; }
	chain PREROUTING { type nat hook prerouting priority dstnat; policy accept; counter jump KUBE-SERVICES comment "kubernetes service portals"; jump WEB; fib daddr type local jump CNI-HOSTPORT-DNAT; }
	chain POSTROUTING { type nat hook postrouting priority srcnat; policy accept; goto KUBE-POSTROUTING; ip saddr 192.0.2.0/24 masquerade; }
}
table inet admin {
	chain input { type filter hook input priority 0; policy accept; tcp dport 22 accept comment "KUBE- is no prefix of mine"; }
}
table ip flannel-ipv4 {
	chain postrtg { type nat hook postrouting priority srcnat; ip saddr 10.244.0.0/16 masquerade; }
}
table ip6 kube-proxy {
	map services { type ipv6_addr : verdict; }
	chain nat { type nat hook output priority -100; ip6 daddr vmap @services; }
}
`

// kept is what is left of them.
const kept = `table ip nat {
	chain WEB {
		tcp dport 81 redirect to :80
	}

	chain PREROUTING {
		type nat hook prerouting priority dstnat; policy accept;
		jump WEB
	}

	chain POSTROUTING {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 192.0.2.0/24 masquerade
	}
}
table inet admin {
	chain input {
		type filter hook input priority filter; policy accept;
		tcp dport 22 accept comment "KUBE- is no prefix of mine"
	}
}
`

// TestNetwork undoes Kubernetes' network in a network name space of its own, with the
// kernel and the real nft.
func TestNetwork(t *testing.T) {
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("a network name space: %v; root, or unshare --map-root-user, may make one", err)
	}
	// nft is run through the loader of its own C library.
	script := filepath.Join(t.TempDir(), "nft")
	cmd := testtools.Command(t, "nft")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nexec '"+cmd.Path+"' "+strings.Join(quoted(cmd.Args[1:]), " ")+" \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	nftTool = script
	t.Cleanup(func() { nftTool = "nft" })
	ctx := context.Background()
	if _, err := nft(ctx, rules, "-f", "-"); err != nil {
		t.Fatal(err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []netlink.Link{
		lo, &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "kube-ipvs0"}}, &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "cni0"}},
		&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}},
	} {
		if l != lo {
			if err := netlink.LinkAdd(l); err != nil {
				t.Fatalf("%s: %v", l.Attrs().Name, err)
			}
		}
		if err := netlink.LinkSetUp(l); err != nil {
			t.Fatal(err)
		}
	}
	for link, addr := range map[string]string{"cni0": "10.244.0.1/24", "br0": "192.0.2.1/24"} {
		l, err := netlink.LinkByName(link)
		if err != nil {
			t.Fatal(err)
		}
		a, err := netlink.ParseAddr(addr)
		if err == nil {
			err = netlink.AddrAdd(l, a)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	dst, err := netlink.ParseIPNet("10.244.7.0/24")
	if err != nil {
		t.Fatal(err)
	}
	br0, err := netlink.LinkByName("br0")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: br0.Attrs().Index, Dst: dst, Gw: net.ParseIP("192.0.2.9")}); err != nil {
		t.Fatal(err)
	}

	m := machine{paths: host.Paths{Root: "/"}}
	var said bytes.Buffer
	undo := func() int {
		t.Helper()
		changes, err := m.Network(ctx, []string{"10.244.0.0/16"})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range changes {
			fmt.Fprintln(&said, c.Text)
			if err := c.Do(ctx); err != nil {
				t.Errorf("%s: %v", c.Text, err)
			}
		}
		return len(changes)
	}
	undo()
	for _, want := range []string{"packet filter rules", "interface cni0", "interface kube-ipvs0", "virtual servers of IPVS", "route to 10.244.7.0/24"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, said.String())
		}
	}
	left, err := nft(ctx, "", "list", "ruleset")
	if err != nil || string(left) != kept {
		t.Errorf("%v\n%s\nwant\n%s", err, left, kept)
	}
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if name := l.Attrs().Name; name == "cni0" || name == "kube-ipvs0" {
			t.Errorf("%s is left", name)
		}
	}
	if _, err := netlink.LinkByName("br0"); err != nil {
		t.Error(err)
	}
	if n := undo(); n != 0 {
		t.Errorf("the second time there are %d changes:\n%s", n, said.String())
	}
}

func quoted(words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = "'" + w + "'"
	}
	return out
}

// TestUnmount finds and undoes real mounts, one inside the other.
func TestUnmount(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	outer := filepath.Join(root, "var/lib/kubelet/pods/a b")
	inner := filepath.Join(outer, "volume")
	for _, dir := range []string{outer, inner} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
			t.Fatalf("%v; root, or unshare --map-root-user --mount, may mount", err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }) // if the test failed
	}
	n := Node{Paths: host.Paths{Root: root}, Machine: machine{paths: host.Paths{Root: "/"}}}
	changes, err := unmount(t.Context(), n)
	if err != nil || len(changes) != 2 {
		t.Fatalf("%d changes, %v", len(changes), err)
	}
	for _, c := range changes {
		if err := c.Do(t.Context()); err != nil {
			t.Errorf("%s: %v", c.Text, err)
		}
	}
	if left, err := n.mountsBelow(root); err != nil || len(left) > 0 {
		t.Errorf("left are %q, %v", left, err)
	}
	// What went with another is no error.
	if err := n.Machine.Unmount(outer); err != nil {
		t.Error(err)
	}
}
