package bootplan

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/secret"
)

func sample() Plan {
	return Plan{
		APIVersion: APIVersion, Kind: Kind, Role: RoleInit,
		Cluster: Cluster{
			Name: "demo", KubernetesVersion: "v1.37.2", ControlPlaneEndpoint: "10.0.2.15",
			PodSubnets: []string{"10.244.0.0/16"}, ServiceSubnets: []string{"10.96.0.0/12"},
			DNSDomain: "cluster.local", EncryptionAlgorithm: "RSA-2048", PodNetwork: "flannel",
		},
		Node:     Node{Name: "kiln-1", Labels: map[string]string{"a": "b"}, Taints: []Taint{}},
		Tokens:   []Token{{ID: "abcdef", Secret: secret.FromString("0123456789abcdef"), Expires: time.Unix(1800000000, 0).UTC()}},
		Timeouts: DefaultTimeouts(),
	}
}

func TestRoundTrip(t *testing.T) {
	b, err := sample().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(b)
	if err != nil {
		t.Fatalf("%v in\n%s", err, b)
	}
	if !reflect.DeepEqual(got, sample()) {
		t.Errorf("got  %+v\nwant %+v", got, sample())
	}
	if got.Node.Taints == nil {
		t.Error("an empty list of taints became the default of the role")
	}
}

func TestTaintsNilStaysNil(t *testing.T) {
	p := sample()
	p.Node.Taints = nil
	b, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Parse(b); err != nil || got.Node.Taints != nil {
		t.Errorf("taints %v, %v", got.Node.Taints, err)
	}
}

func TestParseIsStrict(t *testing.T) {
	good, err := sample().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, from, to, want string }{
		{"unknown key", "role: init", "role: init\nrolle: init", "rolle"},
		{"unknown role", "role: init", "role: master", "master"},
		{"other version", "v1alpha1", "v9", "v9"},
		{"bad subnet", "10.244.0.0/16", "10.244.0.0", "10.244.0.0"},
		{"bad timeout", "network: 30m0s", "network: -1s", "positive"},
		{"bad endpoint", "controlPlaneEndpoint: 10.0.2.15", "controlPlaneEndpoint: a:b:c", "a:b:c"},
		{"bad virtual IP", "controlPlaneEndpoint: 10.0.2.15", "virtualIP: 10.0.2.100/24", "cluster.virtualIP"},
		{"bad network", "podNetwork: flannel", "podNetwork: weave", "weave"},
	} {
		text := strings.Replace(string(good), c.from, c.to, 1)
		if text == string(good) {
			t.Fatalf("%s: %q is not in the plan:\n%s", c.name, c.from, good)
		}
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v does not name %q", c.name, err, c.want)
		}
	}
}

func TestSplitEndpoint(t *testing.T) {
	for _, c := range []struct {
		in, host string
		port     int
	}{
		{"10.0.0.1", "10.0.0.1", 6443},
		{"api.example:7443", "api.example", 7443},
		{"api.example", "api.example", 6443},
		{"[fd00::1]:6443", "fd00::1", 6443},
		{"fd00::1", "fd00::1", 6443},
		{"[fd00::1]", "fd00::1", 6443},
	} {
		h, p, err := SplitEndpoint(c.in)
		if err != nil || h != c.host || p != c.port {
			t.Errorf("%s: %s %d %v", c.in, h, p, err)
		}
	}
	for _, bad := range []string{":6443", "a:b", "a:0", "a:65536", "a:1:2"} {
		if _, _, err := SplitEndpoint(bad); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	b, err := sample().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("apiVersion: [\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse(data)
		if err != nil {
			return
		}
		if _, err := p.Marshal(); err != nil {
			t.Errorf("a plan that parses does not marshal: %v", err)
		}
	})
}
