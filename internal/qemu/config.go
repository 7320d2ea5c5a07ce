package qemu

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/kiln-os/kiln/internal/arch"
)

// Config describes a machine. Arch and Dir are needed; everything else may be
// left out.
type Config struct {
	Arch  arch.Arch
	Accel Accel
	// Board is a real board instead of the architecture's virtual machine. The first
	// of Disks is its SD card, and it has no other.
	Board *Board
	// Name appears in errors and in the process list.
	Name string
	// Dir is the machine's own folder; Start makes it. The disk overlays, the
	// firmware's variables and the logs are kept there.
	Dir string
	// Disks are attached in order; the machine boots from the first.
	Disks     []Disk
	MemoryMiB int // default 2048
	CPUs      int // default 2
	// SerialNumber is what the firmware says of the machine, in the system table of
	// SMBIOS; "" is none.
	SerialNumber string
	// Net is a network of the machine's own, Ethernet a cable to a network that it
	// shares. A machine has at most one of them.
	Net      *Net
	Ethernet *Ethernet
	// Turns, if set, is what the machine shares the host's processors by with others,
	// if it is emulated.
	Turns *Turns
	// Reuse starts from the overlays and firmware variables that an earlier
	// machine left in Dir, as after a power cut. Without it they are made anew.
	Reuse bool
	// Console, if set, gets every console line as it comes, with the seconds
	// since the start in front. It must not block for long.
	Console io.Writer
	// Faulty says that the machine is meant to fail: a line of its console that no
	// boot recovers from ends no waiting.
	Faulty bool
	// ExtraArgs are appended to QEMU's arguments.
	ExtraArgs []string
}

// Board is a single-board computer that QEMU imitates: memory, processors and devices
// are the board's own, without a PCI bus.
type Board struct {
	Machine string // QEMU's name, such as raspi3b
	// Kernel and DeviceTree are what the board's firmware, which QEMU does not imitate,
	// has read from the card: a boot loader such as U-Boot, and the board's device tree.
	Kernel, DeviceTree string
	// Serial is the number of the serial port that is the console, from 0.
	Serial int
}

// Disk is one virtio block device, or a Board's SD card.
type Disk struct {
	// Image is a raw or qcow2 file. It is never written: the machine writes to an
	// overlay in Dir.
	Image string
	// SizeBytes is the disk's size as the guest sees it, a multiple of 512; 0
	// means the image's own. It cannot be smaller than the image.
	SizeBytes int64
	// Fast drops the guest's flush requests (cache=unsafe). The guest then waits
	// for no host disk, but what it believes durable is lost if the host crashes.
	// A killed QEMU loses nothing that way, because the host's page cache
	// survives it; a test about lost power should still leave Fast unset, so that
	// flushes do what they do on hardware.
	Fast bool
}

// Net is a user-mode network (slirp) with the guest as its only member. Nothing
// of it is visible on the host but the forwarded ports on 127.0.0.1.
type Net struct {
	Network netip.Prefix // default 10.0.2.0/24
	Gateway netip.Addr   // the host's address; default: the network's second, .2
	DNS     netip.Addr   // default: the network's third, .3
	// Guest is the address ports are forwarded to; the DHCP server's first lease
	// is the same one. Default: the network's fifteenth, .15.
	Guest    netip.Addr
	Forwards []Forward
	// Isolated keeps the guest from reaching anything: no host, no Internet.
	// Forwarded ports still work.
	Isolated bool
}

// Ethernet is a network card with a cable.
type Ethernet struct {
	MAC net.HardwareAddr
	// Cable is a connected stream socket that carries frames, each with its length
	// in front, 32 bits big-endian. Start closes it: the machine has it then.
	Cable *os.File
}

// NetFor returns the network that a node with this static address expects. An
// invalid address (a DHCP node) gives the default network; so does a name server
// outside of the node's own network, which slirp could not pretend to be.
func NetFor(address netip.Prefix, gateway netip.Addr, nameservers []netip.Addr, forwards ...Forward) *Net {
	n := &Net{Forwards: forwards}
	if !address.IsValid() {
		return n
	}
	n.Network, n.Guest, n.Gateway = address.Masked(), address.Addr(), gateway
	for _, ns := range nameservers {
		if n.Network.Contains(ns) && ns != n.Guest && ns != n.Gateway {
			n.DNS = ns
			break
		}
	}
	return n
}

// Forward makes a TCP port of the guest reachable on 127.0.0.1.
type Forward struct {
	HostPort  int // 0: a free one; see Machine.HostPort
	GuestPort int
}

// withDefaults fills in what is left out and reports every mistake.
func (c Config) withDefaults() (Config, error) {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf("machine: "+format, a...)) }
	if c.Arch.Go == "" {
		bad("Arch is not set")
	}
	if c.Dir == "" {
		bad("Dir is not set")
	}
	if c.Name == "" {
		c.Name = "kiln"
	}
	if c.MemoryMiB == 0 {
		c.MemoryMiB = 2048
	}
	if c.CPUs == 0 {
		c.CPUs = 2
	}
	if c.MemoryMiB < 0 || c.CPUs < 0 {
		bad("%d MiB of memory and %d CPUs: both must be positive", c.MemoryMiB, c.CPUs)
	}
	for i, d := range c.Disks {
		if d.Image == "" {
			bad("disk %d has no image", i)
		}
		if d.SizeBytes < 0 || d.SizeBytes%512 != 0 {
			bad("disk %d: size %d is not a multiple of 512 bytes", i, d.SizeBytes)
		}
	}
	if c.Net != nil {
		n, err := c.Net.withDefaults()
		if err != nil {
			errs = append(errs, err)
		}
		c.Net = &n
	}
	if b := c.Board; b != nil && (b.Machine == "" || b.Kernel == "" || b.DeviceTree == "") {
		bad("Board %+v: want machine, kernel and device tree", *b)
	}
	if c.Board != nil && len(c.Disks) == 1 {
		// QEMU's SD card has a size of a power of two, as cards have had.
		if size := c.Disks[0].SizeBytes; size < 1<<20 || size&(size-1) != 0 {
			bad("SD card of %d bytes: want a power of two", size)
		}
	} else if c.Board != nil {
		bad("%d disks: a board has one SD card", len(c.Disks))
	}
	if c.SerialNumber != "" && (c.Board != nil || c.Arch.Boot != arch.BootEFI) {
		bad("serial number %s: only a machine with UEFI can be given one", c.SerialNumber)
	}
	if c.Accel.KVM {
		c.Turns = nil
	}
	if c.Net != nil && c.Ethernet != nil {
		bad("Net and Ethernet are both set; a machine has one network card")
	}
	if e := c.Ethernet; e != nil && (len(e.MAC) != 6 || e.Cable == nil) {
		bad("Ethernet with address %q: want one of six bytes, and a cable", e.MAC)
	}
	return c, errors.Join(errs...)
}

func (n Net) withDefaults() (Net, error) {
	if !n.Network.IsValid() {
		n.Network = netip.MustParsePrefix("10.0.2.0/24")
	}
	n.Network = n.Network.Masked()
	if !n.Network.Addr().Is4() || n.Network.Bits() > 27 {
		return n, fmt.Errorf("machine: network %s: want an IPv4 network of at least 32 addresses", n.Network)
	}
	roles := []struct {
		what  string
		addr  *netip.Addr
		index int // the default is the address this far above the network's
	}{{"guest", &n.Guest, 15}, {"gateway", &n.Gateway, 2}, {"DNS server", &n.DNS, 3}}
	var errs []error
	taken := map[netip.Addr]string{}
	for _, r := range roles {
		if !r.addr.IsValid() {
			continue
		}
		if !n.Network.Contains(*r.addr) {
			errs = append(errs, fmt.Errorf("machine: %s %s is not in the network %s", r.what, r.addr, n.Network))
		}
		if other := taken[*r.addr]; other != "" {
			errs = append(errs, fmt.Errorf("machine: %s and %s are both %s", other, r.what, r.addr))
		}
		taken[*r.addr] = r.what
	}
	for _, r := range roles {
		if r.addr.IsValid() {
			continue
		}
		a := nth(n.Network, r.index)
		for taken[a] != "" { // chosen by the caller for something else
			a = a.Next()
		}
		*r.addr, taken[a] = a, r.what
	}
	for _, f := range n.Forwards {
		if f.GuestPort < 1 || f.GuestPort > 65535 || f.HostPort < 0 || f.HostPort > 65535 {
			errs = append(errs, fmt.Errorf("machine: cannot forward port %d to %d", f.HostPort, f.GuestPort))
		}
	}
	return n, errors.Join(errs...)
}

// nth returns the address n above the base of p.
func nth(p netip.Prefix, n int) netip.Addr {
	a := p.Masked().Addr()
	for range n {
		a = a.Next()
	}
	return a
}

// arg is the -netdev option.
func (n Net) arg() string {
	s := fmt.Sprintf("user,id=net0,ipv6=off,net=%s,host=%s,dns=%s,dhcpstart=%s", n.Network, n.Gateway, n.DNS, n.Guest)
	if n.Isolated {
		s += ",restrict=on"
	}
	for _, f := range n.Forwards {
		s += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:%d-%s:%d", f.HostPort, n.Guest, f.GuestPort)
	}
	return s
}

// Files of a machine's Dir.
const (
	consoleLog = "console.log"
	stderrLog  = "qemu.stderr"
	varsFile   = "firmware-vars.fd"
)

func overlayName(i int) string { return "disk" + strconv.Itoa(i) + ".qcow2" }

// args is QEMU's command line without its program. Firmware code and disk
// overlays are given by path; fds 3, 4 and 5 are the control socket, the
// console and the Ethernet cable. rtc is the clock's option, "" for the host's time.
func (c Config) args(firmwareCode, rtc string) []string {
	if c.Board != nil {
		return c.boardArgs()
	}
	q := c.Arch.QEMU
	a := []string{
		"-name", escapeComma(c.Name),
		// Nothing but what is listed here: no default devices, no host's qemu.conf.
		"-nodefaults", "-no-user-config", "-display", "none",
		"-machine", q.Machine,
	}
	a = append(a, c.Accel.args(q)...)
	a = append(a,
		"-m", strconv.Itoa(c.MemoryMiB), "-smp", strconv.Itoa(c.CPUs),
		"-chardev", "socket,id=qmp,fd=3", "-mon", "chardev=qmp,mode=control",
		"-chardev", "socket,id=console,fd=4", "-serial", "chardev:console",
		"-device", "virtio-rng-pci",
	)
	if firmwareCode != "" {
		a = append(a,
			"-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+escapeComma(firmwareCode),
			"-drive", "if=pflash,unit=1,format=raw,file="+escapeComma(filepath.Join(c.Dir, varsFile)))
	}
	if rtc != "" {
		a = append(a, "-rtc", rtc)
	}
	if c.SerialNumber != "" {
		a = append(a, "-smbios", "type=1,serial="+escapeComma(c.SerialNumber))
	}
	for i, d := range c.Disks {
		// writeback: writes are done when the host's page cache has them, flushes
		// reach the host's disk. unsafe: flushes are ignored.
		cache := "writeback"
		if d.Fast {
			cache = "unsafe"
		}
		a = append(a,
			"-drive", fmt.Sprintf("if=none,id=disk%d,format=qcow2,discard=unmap,cache=%s,file=%s", i, cache, escapeComma(filepath.Join(c.Dir, overlayName(i)))),
			// A kernel that QEMU loads itself has 0.
			"-device", fmt.Sprintf("virtio-blk-pci,drive=disk%d,bootindex=%d,serial=kiln-disk%d", i, i+1, i))
	}
	if c.Net != nil {
		// No option ROM: nothing is ever booted from the network.
		a = append(a, "-netdev", c.Net.arg(), "-device", "virtio-net-pci,netdev=net0,romfile=")
	}
	if e := c.Ethernet; e != nil {
		a = append(a, "-netdev", "stream,id=net0,server=off,addr.type=fd,addr.str=5", "-device", "virtio-net-pci,netdev=net0,romfile=,mac="+e.MAC.String())
	}
	return append(a, c.ExtraArgs...)
}

// boardArgs are args of a Board, whose processor is the one it has.
func (c Config) boardArgs() []string {
	a := []string{
		"-name", escapeComma(c.Name), "-nodefaults", "-no-user-config", "-display", "none",
		"-machine", c.Board.Machine, "-accel", "tcg,thread=multi",
		"-kernel", c.Board.Kernel, "-dtb", c.Board.DeviceTree,
		"-chardev", "socket,id=qmp,fd=3", "-mon", "chardev=qmp,mode=control",
		"-chardev", "socket,id=console,fd=4",
	}
	for range c.Board.Serial {
		a = append(a, "-serial", "null")
	}
	cache := "writeback"
	if c.Disks[0].Fast {
		cache = "unsafe"
	}
	a = append(a, "-serial", "chardev:console",
		"-drive", fmt.Sprintf("if=sd,format=qcow2,discard=unmap,cache=%s,file=%s", cache, escapeComma(filepath.Join(c.Dir, overlayName(0)))))
	if c.Net != nil {
		a = append(a, "-netdev", c.Net.arg(), "-device", "usb-net,netdev=net0")
	}
	return append(a, c.ExtraArgs...)
}

// escapeComma doubles commas, as QEMU's option parser wants them in values.
func escapeComma(s string) string {
	return strings.ReplaceAll(s, ",", ",,")
}
