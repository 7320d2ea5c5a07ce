package host

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

const routes4 = `Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
wlan0	00000000	0101A8C0	0003	0	0	600	00000000	0	0	0
eth0	00000000	0202000A	0003	0	0	100	00000000	0	0	0
eth0	0002000A	00000000	0001	0	0	100	00FFFFFF	0	0	0
eth1	00000000	00000000	0201	0	0	0	00000000	0	0	0
tun0	00000000	0101A8C0	0003	0	0	50	000000C0	0	0	0
`

const routes6 = `fd000000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000002 00000400 00000003 00000000 00450003     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
`

func TestDefaultRoutes(t *testing.T) {
	got, err := parseRoutes4(strings.NewReader(routes4))
	if want := []DefaultRoute{{"wlan0", 600}, {"eth0", 100}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("IPv4: %v, %v", got, err)
	}
	got, err = parseRoutes6(strings.NewReader(routes6))
	if want := []DefaultRoute{{"eth0", 0x400}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("IPv6: %v, %v", got, err)
	}
	for _, bad := range []string{"eth0 0 0", "eth0 00000000 0 x 0 0 1 00000000", "eth0 00000000 0 1 0 0 x 00000000"} {
		if _, err := parseRoutes4(strings.NewReader(bad)); err == nil {
			t.Errorf("IPv4 %q is accepted", bad)
		}
	}
	for _, bad := range []string{"00 00", strings.Replace(routes6, "fd", "zz", 1), strings.Replace(routes6, "00000100", "x", 1)} {
		if _, err := parseRoutes6(strings.NewReader(bad)); err == nil {
			t.Errorf("IPv6 %q is accepted", bad)
		}
	}
}

func put(t *testing.T, root, name, text string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestLowestMetricWins(t *testing.T) {
	p := Paths{Root: t.TempDir()}
	put(t, p.Root, "proc/net/route", routes4)
	r, err := p.defaultRoute("/proc/net/route", parseRoutes4)
	if err != nil || r.Interface != "eth0" {
		t.Errorf("%v, %v", r, err)
	}
}

func TestNoDefaultRoute(t *testing.T) {
	p := Paths{Root: t.TempDir()}
	put(t, p.Root, "proc/net/route", strings.SplitAfter(routes4, "\n")[0])
	if a, err := p.AdvertiseAddress(); err != ErrNoDefaultRoute {
		t.Errorf("%v, %v", a, err)
	}
}

func TestLoopbackIsNoGlobalAddress(t *testing.T) {
	p := Paths{Root: t.TempDir()}
	put(t, p.Root, "proc/net/route", "lo 00000000 00000000 0003 0 0 0 00000000 0 0 0\n")
	a, err := p.AdvertiseAddress()
	if err == nil || !strings.Contains(err.Error(), "no global unicast") {
		t.Errorf("%v, %v", a, err)
	}
}

func TestCheckLocal(t *testing.T) {
	if err := CheckLocal(netip.MustParseAddr("127.0.0.1")); err != nil {
		t.Error(err)
	}
	if err := CheckLocal(netip.MustParseAddr("192.0.2.1")); err == nil {
		t.Error("a documentation address is local")
	}
}

func TestFacts(t *testing.T) {
	if m, err := Memory(); err != nil || m < 64<<20 {
		t.Errorf("memory %d, %v", m, err)
	}
	if r, err := KernelRelease(); err != nil || !strings.Contains(r, ".") {
		t.Errorf("kernel %q, %v", r, err)
	}
	if id, err := (Paths{Root: "/"}).BootID(); err != nil || len(id) != 36 {
		t.Errorf("boot id %q, %v", id, err)
	}
	early, late := time.Unix(1, 0), time.Unix(2, 0)
	if got := ClockFloor(late, early); !got.Equal(late) {
		t.Errorf("clock floor %v", got)
	}
}

func FuzzRoutes(f *testing.F) {
	f.Add(routes4)
	f.Add(routes6)
	f.Fuzz(func(t *testing.T, text string) {
		a, err4 := parseRoutes4(strings.NewReader(text))
		b, err6 := parseRoutes6(strings.NewReader(text))
		for _, r := range append(a, b...) {
			if r.Interface == "" && err4 == nil && err6 == nil {
				t.Error("a default route without an interface")
			}
		}
	})
}
