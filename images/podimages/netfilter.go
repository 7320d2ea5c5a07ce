package podimages

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/kiln-os/kiln/images/elfdeps"
	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/arch"
)

// iptablesProgram is iptables over nftables, which answers to many names.
const iptablesProgram = "usr/sbin/xtables-nft-multi"

// iptablesNames are those that kube-proxy and flannel call, and the ones that say
// which kind of iptables it is.
var iptablesNames = []string{
	"iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore",
	"iptables-nft", "iptables-nft-save", "iptables-nft-restore", "ip6tables-nft", "ip6tables-nft-save", "ip6tables-nft-restore",
	"xtables-monitor",
}

// netfilterPrograms are the other tools of kube-proxy's and flannel's image: nft for
// their nftables modes, ip and conntrack for who looks into a failing network.
var netfilterPrograms = []string{iptablesProgram, "usr/sbin/nft", "usr/bin/ip", "usr/sbin/conntrack"}

// netfilter is the layer with packet filter tools, their libraries and the plugins
// of iptables, all from the node's packages: the tools are those of the node's own
// kernel and userland.
func (c *composer) netfilter(a arch.Arch) *tree.Tree {
	roots := slices.Clone(netfilterPrograms)
	plugins := "usr/lib/" + a.Triplet + "/xtables/"
	for _, p := range c.os.Paths() {
		if strings.HasPrefix(p, plugins) && path.Ext(p) == ".so" {
			roots = append(roots, p)
		}
	}
	if len(roots) == len(netfilterPrograms) {
		c.fail(fmt.Errorf("the node's packages have no iptables plugins in /%s", plugins))
		return nil
	}
	all, err := elfdeps.Closure(c.os, roots)
	if err != nil {
		c.fail(fmt.Errorf("the node's packages: %w", err))
		return nil
	}
	t := tree.New()
	for _, p := range all {
		own := *c.os.Get(p)
		t.Set(p, &own)
	}
	for _, n := range iptablesNames {
		t.AddSymlink("usr/sbin/"+n, path.Base(iptablesProgram))
	}
	// A loader's path and a library's run path begin with the folders of old.
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		if t.Get("usr/"+dir) != nil {
			t.AddSymlink(dir, "usr/"+dir)
		}
	}
	// Names of ports and protocols in rules.
	for _, p := range []string{"etc/protocols", "etc/services"} {
		c.copy(t, p)
	}
	return t
}
