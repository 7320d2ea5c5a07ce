// Package vnet is a private network for virtual machines in one process, without
// root: an Ethernet switch whose ports are sockets that QEMU's "-netdev stream"
// speaks over, and a gateway with an IP stack of its own (gVisor's), which
// answers DHCP and DNS, forwards ports of this host's loopback to the machines,
// and balances an address of the network over several of them.
//
// Nothing leaves the network unless Config.Internet is set.
package vnet
