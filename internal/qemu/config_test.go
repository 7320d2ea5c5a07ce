package qemu

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/arch"
)

func TestNetDefaults(t *testing.T) {
	ip := netip.MustParseAddr
	for _, tc := range []struct {
		name string
		in   Net
		want string // -netdev, or the error
	}{
		{"all defaults", Net{}, "user,id=net0,ipv6=off,net=10.0.2.0/24,host=10.0.2.2,dns=10.0.2.3,dhcpstart=10.0.2.15"},
		{
			"static node",
			Net{Network: netip.MustParsePrefix("192.168.76.10/24"), Guest: ip("192.168.76.10"), Gateway: ip("192.168.76.1"), Isolated: true, Forwards: []Forward{{GuestPort: 6443}, {HostPort: 2222, GuestPort: 22}}},
			"user,id=net0,ipv6=off,net=192.168.76.0/24,host=192.168.76.1,dns=192.168.76.3,dhcpstart=192.168.76.10,restrict=on,hostfwd=tcp:127.0.0.1:0-192.168.76.10:6443,hostfwd=tcp:127.0.0.1:2222-192.168.76.10:22",
		},
		{"defaults keep out of the way", Net{Guest: ip("10.0.2.2"), Gateway: ip("10.0.2.3")}, "user,id=net0,ipv6=off,net=10.0.2.0/24,host=10.0.2.3,dns=10.0.2.4,dhcpstart=10.0.2.2"},
		{"outside", Net{Guest: ip("10.9.9.9")}, "guest 10.9.9.9 is not in the network 10.0.2.0/24"},
		{"same twice", Net{Guest: ip("10.0.2.9"), DNS: ip("10.0.2.9")}, "guest and DNS server are both 10.0.2.9"},
		{"too small", Net{Network: netip.MustParsePrefix("10.0.0.0/30")}, "want an IPv4 network of at least 32 addresses"},
		{"IPv6", Net{Network: netip.MustParsePrefix("fd00::/64")}, "want an IPv4 network"},
		{"bad port", Net{Forwards: []Forward{{GuestPort: 70000}}}, "cannot forward port 0 to 70000"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n, err := tc.in.withDefaults()
			got := n.arg()
			if err != nil {
				got = err.Error()
			}
			if err == nil && got != tc.want || err != nil && !strings.Contains(got, tc.want) {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestNetFor(t *testing.T) {
	ip := netip.MustParseAddr
	for _, tc := range []struct {
		address     netip.Prefix
		gateway     netip.Addr
		nameservers []netip.Addr
		want        string
	}{
		{netip.MustParsePrefix("10.9.0.7/16"), ip("10.9.0.1"), []netip.Addr{ip("9.9.9.9"), ip("10.9.0.53")}, "net=10.9.0.0/16,host=10.9.0.1,dns=10.9.0.53,dhcpstart=10.9.0.7,hostfwd=tcp:127.0.0.1:0-10.9.0.7:22"},
		// A gateway that is its own name server, as home routers are: slirp has to use two addresses.
		{netip.MustParsePrefix("10.9.0.7/16"), ip("10.9.0.1"), []netip.Addr{ip("10.9.0.1")}, "host=10.9.0.1,dns=10.9.0.3"},
		{netip.Prefix{}, netip.Addr{}, nil, "net=10.0.2.0/24,host=10.0.2.2,dns=10.0.2.3,dhcpstart=10.0.2.15"},
	} {
		n, err := NetFor(tc.address, tc.gateway, tc.nameservers, Forward{GuestPort: 22}).withDefaults()
		if err != nil || !strings.Contains(n.arg(), tc.want) {
			t.Errorf("%v: %s, %v", tc.address, n.arg(), err)
		}
	}
}

func TestArgs(t *testing.T) {
	a, err := arch.Get("amd64")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Config{
		Arch: a, Dir: "/m,1", Name: "n1", CPUs: 3, MemoryMiB: 512, SerialNumber: "s,1", ExtraArgs: []string{"-S"},
		Disks: []Disk{{Image: "a"}, {Image: "b", Fast: true}},
	}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(c.args("/fw/code.fd", ""), " ")
	for _, want := range []string{
		"-nodefaults", "-no-user-config", "-display none", "-machine q35", "-accel tcg,thread=multi,tb-size=2048 -cpu max", "-m 512 -smp 3",
		"if=pflash,unit=0,format=raw,readonly=on,file=/fw/code.fd", "if=pflash,unit=1,format=raw,file=/m,,1/firmware-vars.fd",
		"if=none,id=disk0,format=qcow2,discard=unmap,cache=writeback,file=/m,,1/disk0.qcow2",
		"if=none,id=disk1,format=qcow2,discard=unmap,cache=unsafe,file=/m,,1/disk1.qcow2",
		"virtio-blk-pci,drive=disk0,bootindex=1", "virtio-rng-pci", "-smbios type=1,serial=s,,1",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
	for _, never := range []string{"-kernel", "-no-reboot", "-netdev"} {
		if strings.Contains(got, never) {
			t.Errorf("%q in %s", never, got)
		}
	}
	if !strings.HasSuffix(got, " -S") {
		t.Errorf("extra arguments are not last: %s", got)
	}
	c.Accel.KVM = true
	if kvm := c.args("", ""); !slices.Contains(kvm, "host") || strings.Contains(strings.Join(kvm, " "), "pflash") {
		t.Errorf("KVM without firmware files: %v", kvm)
	}
}

// TestOpenFirmwareArgs: QEMU brings the firmware of ppc64le itself, which boots from the
// disk that has the first boot index.
func TestOpenFirmwareArgs(t *testing.T) {
	a, err := arch.Get("ppc64le")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Config{Arch: a, Dir: "/m", Name: "p1", Disks: []Disk{{Image: "a"}}, Net: &Net{}}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	if code, vars, err := (&Tools{}).Firmware(a); code != "" || vars != "" || err != nil {
		t.Errorf("firmware files %q, %q, %v", code, vars, err)
	}
	got := strings.Join(c.args("", ""), " ")
	for _, want := range []string{"-machine pseries", "-cpu power9", "-serial chardev:console", "virtio-blk-pci,drive=disk0,bootindex=1", "virtio-net-pci,netdev=net0,romfile="} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
	for _, never := range []string{"pflash", "-smbios", "-bios"} {
		if strings.Contains(got, never) {
			t.Errorf("%q in %s", never, got)
		}
	}
}

func TestEthernetArgs(t *testing.T) {
	c := Config{Dir: "d", Ethernet: &Ethernet{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 7}, Cable: os.Stdin}}
	all := strings.Join(c.args("", ""), " ")
	for _, want := range []string{"-netdev stream,id=net0,server=off,addr.type=fd,addr.str=5", "virtio-net-pci,netdev=net0,romfile=,mac=02:00:00:00:00:07"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in %s", want, all)
		}
	}
}

func TestConfigReportsEveryMistake(t *testing.T) {
	_, err := Config{Disks: []Disk{{SizeBytes: 100}}, CPUs: -1, SerialNumber: "s", Net: &Net{}, Ethernet: &Ethernet{}}.withDefaults()
	for _, want := range []string{"Arch is not set", "Dir is not set", "disk 0 has no image", "size 100 is not a multiple of 512", "-1 CPUs", "serial number s: only a machine with UEFI", "Net and Ethernet are both set", "want one of six bytes, and a cable"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
}

func TestParseVersion(t *testing.T) {
	for out, want := range map[string]string{
		"QEMU emulator version 10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)\nCopyright": "10.0",
		"qemu-img version 7.2.15 (Debian 1:7.2+dfsg-7+deb12u12)\n":                 "7.2",
		"QEMU emulator version 8.2.0\n":                                            "8.2",
		"warning: x\nQEMU emulator version 9.1.50 (v9.1.0-1-gabc)\n":               "9.1",
		"command not found": `no QEMU version in "command not found"`,
	} {
		v, err := ParseVersion(out)
		got := v.String()
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: got %s, want %s", out, got, want)
		}
	}
	for _, tc := range []struct {
		a, b Version
		less bool
	}{{Version{7, 2}, MinVersion, true}, {Version{8, 1}, MinVersion, true}, {Version{8, 2}, MinVersion, false}, {Version{10, 0}, MinVersion, false}} {
		if tc.a.Less(tc.b) != tc.less {
			t.Errorf("%v < %v: want %v", tc.a, tc.b, tc.less)
		}
	}
}

func TestParseForwards(t *testing.T) {
	out := "Hub -1 (net0):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n" +
		"  TCP[HOST_FORWARD]  11       127.0.0.1 34811   192.168.76.10  6443     0     0\r\n" +
		"  TCP[HOST_FORWARD]  10       127.0.0.1 40057   192.168.76.10    22     0     0\r\n" +
		"  TCP[ESTABLISHED]   12       127.0.0.1 41000   192.168.76.10    22     0     0\r\n"
	got := parseForwards(out)
	if len(got) != 2 || got[6443] != 34811 || got[22] != 40057 {
		t.Errorf("got %v", got)
	}
}

func TestScale(t *testing.T) {
	if d := (Accel{KVM: true}).Scale(time.Minute); d != time.Minute {
		t.Errorf("KVM: %v", d)
	}
	if d := (Accel{}).Scale(time.Minute); d < 3*time.Minute {
		t.Errorf("TCG: %v", d)
	}
}

func TestInspectImage(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	qcow2 := make([]byte, 512)
	copy(qcow2, "QFI\xfb\x00\x00\x00\x03")
	qcow2[24+3] = 1 // 2^32 bytes
	for _, tc := range []struct {
		path, format string
		size         int64
		err          string
	}{
		{write("raw", make([]byte, 1024)), "raw", 1024, ""},
		{write("qcow2", qcow2), "qcow2", 1 << 32, ""},
		{write("short", []byte("QFI")), "", 0, "that is no disk image"},
		{dir, "", 0, "is not a file"},
		{filepath.Join(dir, "none"), "", 0, "no such file"},
	} {
		format, size, err := inspectImage(tc.path)
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%s: error %v, want %q", tc.path, err, tc.err)
			}
			continue
		}
		if err != nil || format != tc.format || size != tc.size {
			t.Errorf("%s: %s, %d, %v", tc.path, format, size, err)
		}
	}
}

func TestBoardArgs(t *testing.T) {
	a, err := arch.Get("arm64")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Config{
		Arch: a, Name: "pi", Dir: "/m", Disks: []Disk{{Image: "card.img", SizeBytes: 8 << 30, Fast: true}}, Net: &Net{},
		Board: &Board{Machine: "raspi3b", Kernel: "u-boot.bin", DeviceTree: "pi.dtb", Serial: 1},
	}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(c.args("", ""), " ")
	for _, want := range []string{
		"-machine raspi3b", "-kernel u-boot.bin -dtb pi.dtb", "-serial null -serial chardev:console",
		"-drive if=sd,format=qcow2,discard=unmap,cache=unsafe,file=/m/disk0.qcow2", "-device usb-net,netdev=net0",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	for _, not := range []string{"pci", "pflash", "-cpu", "-smp"} {
		if strings.Contains(got, not) {
			t.Errorf("%q in\n%s", not, got)
		}
	}
	for want, change := range map[string]func(*Config){
		"power of two":           func(c *Config) { c.Disks = []Disk{{Image: "card.img", SizeBytes: 7 << 30}} },
		"one SD card":            func(c *Config) { c.Disks = nil },
		"kernel and device tree": func(c *Config) { c.Board = &Board{Machine: "raspi3b"} },
	} {
		bad := c
		change(&bad)
		if _, err := bad.withDefaults(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
