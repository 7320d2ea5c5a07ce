package host

import (
	"net/netip"
	"os"
	"reflect"
	"testing"
)

func TestNetworkDevices(t *testing.T) {
	p := Paths{Root: t.TempDir()}
	if _, err := p.NetworkDevices(); err == nil {
		t.Error("a machine without /sys has network devices")
	}
	// A bridge of the CNI has no device behind it. The other names are of no interface
	// of this host, so they have no addresses.
	put(t, p.Root, "sys/class/net/cni0/address", "aa:bb:cc:00:00:01\n")
	put(t, p.Root, "sys/class/net/lo/address", "00:00:00:00:00:00\n")
	if got, err := p.NetworkDevices(); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	for name, carrier := range map[string]string{"kilntest1": "1\n", "kilntest0": "0\n", "kilntest2": ""} {
		put(t, p.Root, "sys/class/net/"+name+"/address", "52:54:00:00:00:0"+name[8:]+"\n")
		put(t, p.Root, "sys/class/net/"+name+"/device/vendor", "0x1af4\n")
		if carrier != "" { // the kernel refuses to read that of a device that is down
			put(t, p.Root, "sys/class/net/"+name+"/carrier", carrier)
		}
	}
	put(t, p.Root, "sys/class/net/kilntest2/phy80211/index", "0\n")
	got, err := p.NetworkDevices()
	want := []NetworkDevice{
		{Name: "kilntest0", MAC: "52:54:00:00:00:00"}, {Name: "kilntest1", MAC: "52:54:00:00:00:01", Link: true}, {Name: "kilntest2", MAC: "52:54:00:00:00:02", Wireless: true},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if s := want[0].String(); s != "kilntest0 (52:54:00:00:00:00)" {
		t.Error(s)
	}
	if _, err := (Paths{Root: "/"}).NetworkDevices(); err != nil {
		t.Errorf("this machine's: %v", err)
	}
	if a, err := globalAddresses("lo"); err != nil || len(a) != 0 {
		t.Errorf("the loopback has the global addresses %v, %v", a, err)
	}
}

func TestNameServers(t *testing.T) {
	p := Paths{Root: t.TempDir()}
	if got, err := p.NameServers(); err != nil || got != nil {
		t.Errorf("without resolved: %v, %v", got, err)
	}
	for text, want := range map[string][]netip.Addr{
		"# No DNS servers known.\nsearch .\n":                            nil,
		"nameserver 192.0.2.1\nnameserver fe80::1%eth0\noptions edns0\n": {netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fe80::1%eth0")},
	} {
		put(t, p.Root, "run/systemd/resolve/resolv.conf", text)
		if got, err := p.NameServers(); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	put(t, p.Root, "run/systemd/resolve/resolv.conf", "nameserver dns.example\n")
	if got, err := p.NameServers(); err == nil {
		t.Errorf("a name for a name server: %v", got)
	}
	if err := os.Remove(p.ResolvConf()); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(p.ResolvConf(), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := p.NameServers(); err == nil {
		t.Error("what cannot be read is taken for no name server")
	}
}

func FuzzNameServers(f *testing.F) {
	f.Add("nameserver 192.0.2.1\n")
	f.Add("nameserver fe80::1%eth0\noptions edns0")
	f.Fuzz(func(t *testing.T, text string) {
		p := Paths{Root: t.TempDir()}
		put(t, p.Root, "run/systemd/resolve/resolv.conf", text)
		got, err := p.NameServers()
		for _, a := range got {
			if err == nil && !a.IsValid() {
				t.Errorf("%q: an invalid address", text)
			}
		}
	})
}
