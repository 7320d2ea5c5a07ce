package vnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
)

const dnsPort = 53

// resolvConf names the servers that this host asks.
const resolvConf = "/etc/resolv.conf"

// hostsTTL is how long a machine may keep an answer about another one.
const hostsTTL = 30

// serveDNS answers at the gateway's addresses and at those that machines were told
// to ask.
func (n *Network) serveDNS() error {
	var upstream []string
	if n.cfg.Internet {
		conf, err := dns.ClientConfigFromFile(resolvConf)
		if err != nil {
			return fmt.Errorf("network: the name servers of this host: %w", err)
		}
		for _, s := range conf.Servers {
			upstream = append(upstream, net.JoinHostPort(s, conf.Port))
		}
	}
	handler := &resolver{hosts: n.cfg.Hosts, upstream: upstream}
	var at []netip.Addr
	for _, s := range n.cfg.Subnets {
		at = append(at, s.Gateway)
	}
	for _, a := range n.cfg.Nameservers {
		if err := n.addAddress(a, a.BitLen()); err != nil {
			return err
		}
		at = append(at, a)
	}
	seen := map[netip.Addr]bool{}
	for _, a := range at {
		if seen[a] {
			continue
		}
		seen[a] = true
		// One socket for each address, so that answers come from the one asked.
		local := fullAddress(netip.AddrPortFrom(a, dnsPort))
		conn, err := gonet.DialUDP(n.stack, &local, nil, protocolOf(a))
		if err != nil {
			return fmt.Errorf("network: DNS at %s: %w", a, err)
		}
		listener, err := gonet.ListenTCP(n.stack, local, protocolOf(a))
		if err != nil {
			return errors.Join(fmt.Errorf("network: DNS at %s: %w", a, err), conn.Close())
		}
		// Both servers end when their socket is closed.
		udp, tcp := dns.Server{PacketConn: conn, Handler: handler}, dns.Server{Listener: listener, Handler: handler}
		err = errors.Join(
			n.serve(conn, func() { _ = udp.ActivateAndServe() }),
			n.serve(listener, func() { _ = tcp.ActivateAndServe() }))
		if err != nil {
			return err
		}
	}
	return nil
}

// resolver answers for the network's own names, and asks for others if there is
// somebody to ask.
type resolver struct {
	hosts    map[string][]netip.Addr
	upstream []string
}

// ServeDNS implements dns.Handler.
func (r *resolver) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	network := "udp"
	if _, ok := w.RemoteAddr().(*net.TCPAddr); ok {
		network = "tcp"
	}
	answer := r.answer(q, network)
	if network == "udp" {
		size := dns.MinMsgSize
		if e := q.IsEdns0(); e != nil {
			size = max(size, int(e.UDPSize()))
		}
		answer.Truncate(size)
	}
	_ = w.WriteMsg(answer) // who asked and has gone asks again
}

func (r *resolver) answer(q *dns.Msg, network string) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	m.RecursionAvailable = true
	if len(q.Question) != 1 {
		return m.SetRcode(q, dns.RcodeFormatError)
	}
	ask := q.Question[0]
	if addrs, ok := r.hosts[strings.ToLower(strings.TrimSuffix(ask.Name, "."))]; ok {
		m.Authoritative = true
		for _, a := range addrs {
			h := dns.RR_Header{Name: ask.Name, Class: dns.ClassINET, Ttl: hostsTTL}
			switch {
			case a.Is4() && ask.Qtype == dns.TypeA:
				h.Rrtype = dns.TypeA
				m.Answer = append(m.Answer, &dns.A{Hdr: h, A: a.AsSlice()})
			case a.Is6() && ask.Qtype == dns.TypeAAAA:
				h.Rrtype = dns.TypeAAAA
				m.Answer = append(m.Answer, &dns.AAAA{Hdr: h, AAAA: a.AsSlice()})
			}
		}
		return m
	}
	if len(r.upstream) == 0 {
		// An isolated network is all there is.
		return m.SetRcode(q, dns.RcodeNameError)
	}
	client := dns.Client{Net: network}
	for _, server := range r.upstream {
		if got, _, err := client.Exchange(q, server); err == nil {
			return got
		}
	}
	return m.SetRcode(q, dns.RcodeServerFailure)
}
