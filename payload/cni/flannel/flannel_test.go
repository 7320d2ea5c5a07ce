package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
)

const (
	v4   = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
	dual = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\nFLANNEL_IPV6_NETWORK=fd00:10::/48\nFLANNEL_IPV6_SUBNET=fd00:10:0:3::1/64\nFLANNEL_MTU=1430\nFLANNEL_IPMASQ=false\n"
)

func TestDelegate(t *testing.T) {
	for _, c := range []struct{ name, config, subnet, want string }{
		{
			// The conflist of the kube-flannel DaemonSet.
			"kube-flannel", `{"name":"cbr0","cniVersion":"1.0.0","type":"flannel","delegate":{"hairpinMode":true,"isDefaultGateway":true}}`, v4,
			`{"cniVersion":"1.0.0","hairpinMode":true,"ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.244.3.0/24"}]],"routes":[{"dst":"10.244.0.0/16"}],"type":"host-local"},"isDefaultGateway":true,"isGateway":true,"mtu":1450,"name":"cbr0","type":"bridge"}`,
		},
		{
			"dual stack, the plugin masquerades", `{"name":"n","type":"flannel","runtimeConfig":{"a":1}}`, dual,
			`{"ipMasq":true,"ipam":{"ranges":[[{"subnet":"10.244.3.0/24"}],[{"subnet":"fd00:10:0:3::/64"}]],"routes":[{"dst":"10.244.0.0/16"},{"dst":"fd00:10::/48"}],"type":"host-local"},"isGateway":true,"mtu":1430,"name":"n","runtimeConfig":{"a":1},"type":"bridge"}`,
		},
		{
			"what is set stays", `{"name":"n","type":"flannel","ipam":{"type":"other","routes":[{"dst":"1.0.0.0/8"}]},"delegate":{"type":"ptp","mtu":1300,"ipMasq":true}}`, v4,
			`{"ipMasq":true,"ipam":{"ranges":[[{"subnet":"10.244.3.0/24"}]],"routes":[{"dst":"1.0.0.0/8"},{"dst":"10.244.0.0/16"}],"type":"other"},"mtu":1300,"name":"n","type":"ptp"}`,
		},
	} {
		conf, err := parseConfig([]byte(c.config))
		if err != nil {
			t.Fatal(err)
		}
		s, err := parseSubnet([]byte(c.subnet))
		if err != nil {
			t.Fatal(err)
		}
		d, err := delegate(conf, s)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got, _ := json.Marshal(d); string(got) != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.name, got, c.want)
		}
	}
	s, _ := parseSubnet([]byte(v4))
	for _, bad := range []string{`{"delegate":{"name":"x"}}`, `{"delegate":{"ipam":{}}}`, `{"delegate":{"type":5}}`, `{"ipam":{"routes":"x"}}`} {
		conf, err := parseConfig([]byte(bad))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := delegate(conf, s); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}

func TestParseSubnetErrors(t *testing.T) {
	for bad, words := range map[string]string{
		"":                                      "no FLANNEL_NETWORK",
		strings.Replace(v4, "=1450", "=x", 1):   "line 3: FLANNEL_MTU=x",
		strings.Replace(v4, "=1450", "=5", 1):   "no possible MTU",
		strings.Replace(v4, "/24", "", 1):       "line 2: FLANNEL_SUBNET",
		strings.Replace(v4, "=true", "=ja", 1):  "line 4: FLANNEL_IPMASQ",
		strings.Replace(v4, "_SUBNET", "_X", 1): "no FLANNEL_SUBNET",
		strings.Replace(v4, "_MTU", "_X", 1):    "no FLANNEL_MTU",
		strings.Replace(v4, "_IPMASQ", "_X", 1): "no FLANNEL_IPMASQ",
	} {
		if _, err := parseSubnet([]byte(bad)); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: error %v, expected %q in it", bad, err, words)
		}
	}
}

func FuzzParseSubnet(f *testing.F) {
	f.Add([]byte(v4))
	f.Add([]byte(dual))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSubnet(b)
		if err == nil && (len(s.subnets) == 0 || s.mtu < 68) {
			t.Errorf("accepted %+v", s)
		}
	})
}

// plugin puts a plugin into CNI_PATH that keeps what it was called with.
func plugin(t *testing.T, dir string) {
	t.Helper()
	script := "#!/bin/sh\ncat > " + dir + "/$CNI_COMMAND\n[ $CNI_COMMAND = ADD ] && echo '{\"cniVersion\":\"1.0.0\",\"ips\":[]}'\nexit 0\n"
	if err := os.WriteFile(filepath.Join(dir, "bridge"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	for k, v := range map[string]string{"CNI_PATH": dir, "CNI_CONTAINERID": "c1", "CNI_NETNS": "/n", "CNI_IFNAME": "eth0"} {
		t.Setenv(k, v)
	}
}

func TestAddAndDel(t *testing.T) {
	dir := t.TempDir()
	plugin(t, dir)
	subnetFile, dataDir := filepath.Join(dir, "subnet.env"), filepath.Join(dir, "data")
	args := &skel.CmdArgs{ContainerID: "c1", StdinData: []byte(
		`{"name":"cbr0","cniVersion":"1.0.0","type":"flannel","subnetFile":"` + subnetFile + `","dataDir":"` + dataDir + `"}`)}

	// Before flanneld: nothing works, and it says why.
	if err := add(args); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "flanneld") {
		t.Errorf("ADD without flanneld: %v", err)
	}
	var e *types.Error
	if err := status(args); !errors.As(err, &e) || e.Code != pluginNotAvailable {
		t.Errorf("STATUS without flanneld: %v", err)
	}
	if err := del(args); err != nil {
		t.Errorf("DEL of what was never added: %v", err)
	}

	if err := os.WriteFile(subnetFile, []byte(v4), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := status(args); err != nil {
		t.Error(err)
	}
	t.Setenv("CNI_COMMAND", "ADD")
	if err := add(args); err != nil {
		t.Fatal(err)
	}
	// The node gets another subnet; the pod is deleted with the one it had.
	if err := os.WriteFile(subnetFile, []byte(strings.ReplaceAll(v4, "10.244.3", "10.244.9")), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CNI_COMMAND", "DEL")
	if err := del(args); err != nil {
		t.Fatal(err)
	}
	added, err := os.ReadFile(filepath.Join(dir, "ADD"))
	if err != nil || !strings.Contains(string(added), "10.244.3.0/24") {
		t.Errorf("ADD got %s, %v", added, err)
	}
	if deleted, err := os.ReadFile(filepath.Join(dir, "DEL")); err != nil || string(deleted) != string(added) {
		t.Errorf("DEL got %s, ADD %s, %v", deleted, added, err)
	}
	if left, err := os.ReadDir(dataDir); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}
