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

// TestJoin: what a joining node needs, and what is wrong with it, without a word of
// the token.
func TestJoin(t *testing.T) {
	const pin = "sha256:3b793efefe27a19f93b0fbe6e637e9c41d0dfc8e6d6c0d0f7f6e1a0b2c36dd8a"
	join := func(change func(*Plan)) Plan {
		p := sample()
		p.Role, p.Discovery = RoleJoinWorker, &Discovery{Endpoint: "api.example:6443", CACertHashes: []string{pin}}
		if change != nil {
			change(&p)
		}
		return p
	}
	for name, tc := range map[string]struct {
		change func(*Plan)
		want   string // "" if it is right
	}{
		"token discovery": {nil, ""},
		"IPv6 endpoint":   {func(p *Plan) { p.Discovery.Endpoint = "[fd00::101]:6443" }, ""},
		"after the join":  {func(p *Plan) { p.Tokens, p.TokensRemoved = nil, true }, ""},
		"file discovery":  {func(p *Plan) { p.Discovery = &Discovery{Kubeconfig: secret.FromString("kind: Config\n")} }, ""},
		"its own credentials": {func(p *Plan) {
			p.Discovery, p.Tokens = &Discovery{Kubeconfig: secret.FromString("kind: Config\n")}, nil
		}, ""},
		"file discovery, joined": {func(p *Plan) { p.Discovery, p.Tokens, p.TokensRemoved = nil, nil, true }, ""},
		"both discoveries":       {func(p *Plan) { p.Discovery.Kubeconfig = secret.FromString("kind: Config\n") }, "two ways to the cluster"},
		"no discovery":           {func(p *Plan) { p.Discovery = nil }, "needs the endpoint and a CA pin"},
		"no pin":                 {func(p *Plan) { p.Discovery.CACertHashes = nil }, "needs a CA pin"},
		"short pin":              {func(p *Plan) { p.Discovery.CACertHashes = []string{pin[:70]} }, "is not sha256: and 64 hexadecimal digits"},
		"pin of another hash":    {func(p *Plan) { p.Discovery.CACertHashes = []string{"sha512:" + pin[7:]} }, "is not sha256:"},
		"endpoint with scheme":   {func(p *Plan) { p.Discovery.Endpoint = "https://api.example" }, "discovery.endpoint"},
		"IPv6 without brackets":  {func(p *Plan) { p.Discovery.Endpoint = "fd00::101:6443:x" }, "discovery.endpoint"},
		"no token":               {func(p *Plan) { p.Tokens = nil }, "a joining node needs one"},
		"long token":             {func(p *Plan) { p.Tokens[0].Secret = secret.FromString("hunter2hunter2hunter2") }, "bootstrapTokens[0]: a token has an id of 6 characters"},
		"unknown usage":          {func(p *Plan) { p.Tokens[0].Usages = []string{"signing", "sign"} }, `bootstrapTokens[0].usages: "sign" is neither signing nor authentication`},
		"upper-case token":       {func(p *Plan) { p.Tokens[0].ID = "ABCDEF" }, "bootstrapTokens[0]: a token has"},
	} {
		t.Run(name, func(t *testing.T) {
			p := join(tc.change)
			err := p.Validate()
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "hunter2") {
					t.Errorf("error %v, want %s", err, tc.want)
				}
				return
			}
			b, err := p.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			if got, err := Parse(b); err != nil || !reflect.DeepEqual(got, p) {
				t.Errorf("%v\ngot  %+v\nwant %+v", err, got, p)
			}
		})
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

// A second document would be read by nobody.
func TestOneDocument(t *testing.T) {
	for text, want := range map[string]string{
		"a: b\n---\nc: d\n":                        "there is a second document",
		"--- \na: b\n---\n":                        "there is a second document",
		"# about\n\n---\na: b\n--- # next\nc: d\n": "there is a second document",
		"# about\n---\na: b\n":                     `unknown field "a"`,
		"a: |\n  ---\n  x\n":                       `unknown field "a"`,
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}
