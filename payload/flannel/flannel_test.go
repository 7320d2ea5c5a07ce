package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	env := map[string]string{"FLANNELD_IFACE": "eth9", "FLANNELD_HEALTHZ_PORT": "1", "FLANNELD_IP_MASQ": "false"}
	look := func(k string) (string, bool) { v, ok := env[k]; return v, ok }
	// The arguments of the kube-flannel DaemonSet, and the flags that people add.
	o, err := parse([]string{"flanneld", "--ip-masq", "--kube-subnet-mgr", "--healthz-port=8081", "--iface-regex=^en", "-v=2"}, look)
	if err != nil {
		t.Fatal(err)
	}
	if !o.ipMasq || !o.kubeSubnetMgr || o.healthzPort != 8081 || !reflect.DeepEqual(o.interfaces, list{"eth9"}) || !reflect.DeepEqual(o.interfacePatterns, list{"^en"}) {
		t.Errorf("options %+v", o)
	}
	if !o.forwardRules || !o.setNetworkUnavailable || o.subnetFile != "/run/flannel/subnet.env" || o.netConfPath != "/etc/kube-flannel/net-conf.json" || o.resyncSeconds != 5 {
		t.Errorf("defaults are not flanneld's: %+v", o)
	}
	if o, err = parse([]string{"flanneld", "--kube-subnet-mgr", "--iface=a", "--iface=b"}, look); err != nil || !reflect.DeepEqual(o.interfaces, list{"a", "b"}) {
		t.Errorf("repeated flag: %v, %v", o.interfaces, err)
	}
	env["FLANNELD_HEALTHZ_PORT"] = "many"
	for _, c := range []struct {
		args  []string
		words string
	}{
		{[]string{"--kube-subnet-mgr"}, "FLANNELD_HEALTHZ_PORT"},
		{[]string{"--healthz-port=1"}, "--kube-subnet-mgr is missing"},
		{[]string{"--healthz-port=1", "--kube-subnet-mgr", "--iptables-resync=0"}, "--iptables-resync"},
		{[]string{"--healthz-port=1", "--kube-subnet-mgr", "more"}, `"more"`},
		{[]string{"--no-such-flag"}, "no-such-flag"},
	} {
		if _, err := parse(append([]string{"flanneld"}, c.args...), look); err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%v: error %v, expected %q in it", c.args, err, c.words)
		}
	}
}

func TestReadSubnetFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "subnet.env")
	n, err := readSubnetFile(file)
	if err != nil || !n.subnet.Empty() || !n.network6.Empty() || n.network6.IP == nil {
		t.Errorf("no file: %+v, %v", n, err)
	}
	put := func(s string) {
		if err := os.WriteFile(file, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\nFLANNEL_IPV6_NETWORK=fd00:10::/48\nFLANNEL_IPV6_SUBNET=fd00:10:0:3::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n")
	if n, err = readSubnetFile(file); err != nil || n.network.String() != "10.244.0.0/16" || n.subnet.String() != "10.244.3.0/24" ||
		n.network6.String() != "fd00:10::/48" || n.subnet6.String() != "fd00:10:0:3::/64" {
		t.Errorf("%+v, %v", n, err)
	}
	for _, bad := range []string{"FLANNEL_SUBNET=10.244.3.1", "FLANNEL_NETWORK=fd00::/48", "FLANNEL_IPV6_SUBNET=10.0.0.0/8"} {
		put("FLANNEL_MTU=1450\n" + bad + "\n")
		if _, err := readSubnetFile(file); err == nil || !strings.Contains(err.Error(), ":2: ") {
			t.Errorf("%s: error %v", bad, err)
		}
	}
}

func FuzzReadSubnetFile(f *testing.F) {
	f.Add("FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\n")
	f.Add("FLANNEL_IPV6_SUBNET=\"fd00::/64\"\n=\n")
	f.Fuzz(func(t *testing.T, s string) {
		file := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		n, _ := readSubnetFile(file)
		if n.network6.IP == nil || n.subnet6.IP == nil {
			t.Error("a network that flannel would follow into nil")
		}
	})
}

func TestHealth(t *testing.T) {
	var h health
	get := func(path string) int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code
	}
	if get("/healthz") != 200 || get("/readyz") != 503 || get("/") != 404 {
		t.Error("before the network is up")
	}
	h.set()
	if get("/healthz") != 200 || get("/readyz") != 200 {
		t.Error("after the network is up")
	}
}
