package render

import (
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/ignition/v2/config/v3_3"
	"github.com/coreos/ignition/v2/config/v3_3/types"
	"github.com/coreos/vcontext/report"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/keepalived"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/pki"
)

var update = flag.Bool("update", false, "write the golden files")

var known = spec.Known{Profiles: []string{"qemu-amd64"}, Versions: []string{"v1.37.2"}}

const tokenSecret = "0123456789abcdef"

// fixture is an authority whose secrets are recognisable texts.
func fixture(t *testing.T) *pki.Authority {
	t.Helper()
	crt, err := os.ReadFile("testdata/ca.crt")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pki.ParseCertificate(crt)
	if err != nil {
		t.Fatal(err)
	}
	ca := func(name string) *pki.CA {
		return &pki.CA{CertPEM: crt, Cert: cert, KeyPEM: secret.FromString("PRIVATE KEY of " + name + "\n")}
	}
	created := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	return &pki.Authority{
		CA: ca("ca"), FrontProxyCA: ca("front-proxy-ca"), EtcdCA: ca("etcd-ca"),
		ServiceAccountKey: secret.FromString("PRIVATE KEY of service accounts\n"),
		ServiceAccountPub: []byte("public key of service accounts\n"),
		Token:             pki.Token{ID: "abcdef", Secret: secret.FromString(tokenSecret), Created: created, Expires: created.Add(24 * time.Hour)},
		AdminConf:         secret.FromString("PRIVATE KEY of the administrator\n"),
	}
}

// cluster is the example, changed.
func cluster(t *testing.T, change func(*spec.Cluster)) *spec.Cluster {
	t.Helper()
	c, list := spec.Parse("cluster.yaml", spec.Example(), known)
	if len(list) > 0 {
		t.Fatal(list)
	}
	if change != nil {
		change(c)
	}
	return c
}

// threeNodes is a cluster with two control planes and a worker.
func threeNodes(c *spec.Cluster) {
	c.ControlPlaneEndpoint = "api.example.org"
	c.Nodes = append(c.Nodes,
		spec.Node{Name: "kiln-2", Role: spec.RoleControlPlane, Profile: "qemu-amd64", Interface: spec.Interface{Name: "enp1s0"}},
		spec.Node{Name: "kiln-3", Role: spec.RoleWorker, Profile: "qemu-amd64", Interface: spec.Interface{MAC: "52:54:00:12:34:56"}, Labels: map[string]string{"b": "2", "a": "1"}})
}

// virtualIP is threeNodes with a virtual IP behind the name.
func virtualIP(c *spec.Cluster) {
	threeNodes(c)
	c.VirtualIP = spec.VirtualIP{Address: netip.MustParseAddr("10.0.2.100"), RouterID: 100}
	c.Nodes[1].Address, c.Nodes[1].Gateway = netip.MustParsePrefix("10.0.2.16/24"), c.Nodes[0].Gateway
}

// documents replaces the cluster by that of testdata/documents.yaml, which has every
// kind of document and snippets.
func documents(t *testing.T) func(*spec.Cluster) {
	t.Helper()
	data, err := os.ReadFile("testdata/documents.yaml")
	if err != nil {
		t.Fatal(err)
	}
	d, list := spec.Parse("testdata/documents.yaml", data, known)
	if list = append(list, CheckSnippets(d)...); len(list) > 0 {
		t.Fatal(list)
	}
	return func(c *spec.Cluster) { *c = *d }
}

func render(t *testing.T, c *spec.Cluster, i int) (Rendered, types.Config, map[string]string) {
	t.Helper()
	r, err := Node(c, fixture(t), c.Nodes[i])
	if err != nil {
		t.Fatal(err)
	}
	p := parse(t, r)
	return r, p.config, p.inline
}

// parsed is an Ignition config with its files decoded.
type parsed struct {
	config types.Config
	inline map[string]string
}

func parse(t *testing.T, r Rendered) parsed {
	t.Helper()
	cfg, rep, err := v3_3.Parse(r.Ignition.Reveal())
	if err != nil || len(rep.Entries) > 0 {
		t.Fatalf("%v\n%s", err, rep)
	}
	files := map[string]string{}
	for _, f := range cfg.Storage.Files {
		if f.Overwrite == nil || !*f.Overwrite || f.Contents.Compression != nil && *f.Contents.Compression != "" {
			t.Errorf("%s: overwrite %v, compression %v", f.Path, f.Overwrite, f.Contents.Compression)
		}
		files[f.Path] = inline(t, *f.Contents.Source)
	}
	return parsed{cfg, files}
}

// inline decodes the data URL of a file; Butane writes the shorter of two forms.
func inline(t *testing.T, source string) string {
	t.Helper()
	var text string
	var err error
	if raw, ok := strings.CutPrefix(source, "data:;base64,"); ok {
		var b []byte
		b, err = base64.StdEncoding.DecodeString(raw)
		text = string(b)
	} else if raw, ok := strings.CutPrefix(source, "data:,"); ok {
		text, err = url.PathUnescape(raw)
	} else {
		t.Fatalf("the content is not inline: %.20s", source)
	}
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != string(got) {
		t.Errorf("%s changed (go test -update writes it):\n%s", path, got)
	}
}

func TestGolden(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*spec.Cluster)
		node   int
	}{
		{"init", nil, 0},
		{"join-control-plane", threeNodes, 1},
		{"join-worker", threeNodes, 2},
		{"documents", documents(t), 0},
		{"virtual-ip", virtualIP, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := cluster(t, tc.change)
			first, _, files := render(t, c, tc.node)
			golden(t, tc.name+".boot.yaml", []byte(files[bootplan.Path]))
			var pretty any
			if err := json.Unmarshal(first.Ignition.Reveal(), &pretty); err != nil {
				t.Fatal(err)
			}
			text, err := json.MarshalIndent(pretty, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, tc.name+".ign.json", append(text, '\n'))
			second, _, _ := render(t, c, tc.node)
			if !first.Ignition.Equal(second.Ignition) {
				t.Error("two runs, two configs")
			}
			plan, err := bootplan.Parse([]byte(files[bootplan.Path]))
			role := tc.name
			switch role {
			case "documents":
				role = "init"
			case "virtual-ip":
				role = "join-control-plane"
			}
			if err != nil || string(plan.Role) != role {
				t.Errorf("firstboot reads role %q, %v", plan.Role, err)
			}
		})
	}
}

func TestControlPlaneFiles(t *testing.T) {
	_, cfg, files := render(t, cluster(t, nil), 0)
	modes := map[string]int{}
	for _, f := range cfg.Storage.Files {
		modes[f.Path] = *f.Mode
	}
	for _, d := range cfg.Storage.Directories {
		modes[d.Path] = *d.Mode
	}
	for path, mode := range map[string]int{
		"/etc/hostname": 0o644, "/etc/kiln": 0o700, "/etc/kiln/boot.yaml": 0o600, "/etc/systemd/network/10-kiln.network": 0o644,
		"/etc/kubernetes/pki": 0o755, "/etc/kubernetes/pki/etcd": 0o755,
		"/etc/kubernetes/pki/ca.crt": 0o644, "/etc/kubernetes/pki/ca.key": 0o600,
		"/etc/kubernetes/pki/front-proxy-ca.crt": 0o644, "/etc/kubernetes/pki/front-proxy-ca.key": 0o600,
		"/etc/kubernetes/pki/etcd/ca.crt": 0o644, "/etc/kubernetes/pki/etcd/ca.key": 0o600,
		"/etc/kubernetes/pki/sa.key": 0o600, "/etc/kubernetes/pki/sa.pub": 0o600,
	} {
		if got, ok := modes[path]; !ok || got != mode {
			t.Errorf("%s: mode %o (there: %v), want %o", path, got, ok, mode)
		}
		delete(modes, path)
	}
	if len(modes) > 0 {
		t.Errorf("further files: %v", modes)
	}
	for path, want := range map[string]string{
		"/etc/hostname":                        "kiln-1\n",
		"/etc/kubernetes/pki/etcd/ca.key":      "PRIVATE KEY of etcd-ca\n",
		"/etc/kubernetes/pki/sa.pub":           "public key of service accounts\n",
		"/etc/kubernetes/pki/ca.key":           "PRIVATE KEY of ca\n",
		"/etc/systemd/network/10-kiln.network": "[Match]\nType=ether\nKind=!*\n\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\nDNS=10.0.2.3\n",
	} {
		if files[path] != want {
			t.Errorf("%s holds\n%s\nwant\n%s", path, files[path], want)
		}
	}
}

func TestWorkerHasNoPrivateKey(t *testing.T) {
	r, cfg, files := render(t, cluster(t, threeNodes), 2)
	for path, text := range files {
		if strings.Contains(text, "PRIVATE KEY") || strings.Contains(path, "/pki") || strings.HasSuffix(path, ".conf") && strings.Contains(text, "server:") {
			t.Errorf("a worker gets %s:\n%s", path, text)
		}
		if path != bootplan.Path && strings.Contains(text, tokenSecret) {
			t.Errorf("the token is in %s", path)
		}
	}
	if len(cfg.Storage.Directories) != 1 {
		t.Error("the config makes the folders of private keys")
	}
	pin, err := fixture(t).Pin()
	if err != nil {
		t.Fatal(err)
	}
	if d := r.Plan.Discovery; d == nil || d.Endpoint != "api.example.org:6443" || len(d.CACertHashes) != 1 || d.CACertHashes[0] != pin {
		t.Errorf("discovery %+v", d)
	}
	if len(r.Plan.Tokens) != 1 || r.Plan.Node.AdvertiseAddress != "" {
		t.Errorf("plan %+v", r.Plan)
	}
}

func TestNetworkUnit(t *testing.T) {
	c := cluster(t, threeNodes)
	const dhcp = "\n[Network]\nDHCP=yes\n\n[DHCPv4]\nClientIdentifier=mac\nUseHostname=no\n\n[DHCPv6]\nUseHostname=no\n"
	for i, want := range map[int]string{
		1: "[Match]\nName=enp1s0\n" + dhcp,
		2: "[Match]\nMACAddress=52:54:00:12:34:56\nType=ether\nKind=!*\n" + dhcp,
	} {
		if got := networkUnit(c.Nodes[i], nil); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
	// In Azure the hardware's interface has the MAC address of the one that is used.
	want := "[Match]\nMACAddress=52:54:00:12:34:56\nType=ether\nKind=!*\nDriver=!mlx4_core mlx5_core mana\n" + dhcp
	c.Nodes[2].Profile = "azure-amd64"
	_, _, files := render(t, c, 2)
	if got := files["/etc/systemd/network/10-kiln.network"]; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Each control plane gets keepalived's configuration with its own address and rank,
// a worker none; the certificates name the address.
func TestVirtualIP(t *testing.T) {
	c := cluster(t, virtualIP)
	for i, want := range []string{"$NODE_ADDRESS=10.0.2.15\n", "$NODE_ADDRESS=10.0.2.16\n", ""} {
		r, _, files := render(t, c, i)
		got, ok := files[keepalived.Path]
		if ok != (want != "") || !strings.Contains(got, want) || ok && !strings.Contains(got, fmt.Sprintf("    priority %d\n", 100-i)) {
			t.Errorf("node %d gets\n%s", i, got)
		}
		if p := r.Plan.Cluster; p.VirtualIP != "10.0.2.100" || !slices.Contains(p.CertSANs, "10.0.2.100") {
			t.Errorf("node %d: plan %+v", i, p)
		}
	}
	c.ControlPlaneEndpoint = "10.0.2.100:6443" // kubeadm puts it into the certificate itself
	if r, _, _ := render(t, c, 0); slices.Contains(r.Plan.Cluster.CertSANs, "10.0.2.100") {
		t.Errorf("twice in the certificate: %v", r.Plan.Cluster.CertSANs)
	}
	c.Nodes[1].Address = netip.Prefix{}
	if _, err := Node(c, fixture(t), c.Nodes[1]); err == nil || !strings.Contains(err.Error(), "static address") {
		t.Errorf("on DHCP: %v", err)
	}
}

func TestHosts(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*spec.Cluster)
		want   string
	}{
		"no endpoint":    {nil, ""},
		"address":        {func(c *spec.Cluster) { c.ControlPlaneEndpoint = "10.0.2.15" }, ""},
		"name":           {func(c *spec.Cluster) { c.ControlPlaneEndpoint = "api.example.org:443" }, "\n10.0.2.15 api.example.org\n"},
		"two candidates": {threeNodes, ""},
		"virtual IP":     {virtualIP, "\n10.0.2.100 api.example.org\n"},
	} {
		_, _, files := render(t, cluster(t, tc.change), 0)
		if got := files["/etc/hosts"]; tc.want == "" && got != "" || !strings.HasSuffix(got, tc.want) {
			t.Errorf("%s: /etc/hosts is %q", name, got)
		}
	}
}

func TestAccessAndTime(t *testing.T) {
	_, cfg, files := render(t, cluster(t, func(c *spec.Cluster) {
		c.SSH.AuthorizedKeys = []string{"ssh-ed25519 AAAA one\n", "ssh-ed25519 BBBB two"}
		c.Time.Servers = []string{"a.example.org", "192.0.2.123"}
	}), 0)
	if got := files["/etc/systemd/timesyncd.conf.d/10-kiln.conf"]; got != "[Time]\nNTP=a.example.org 192.0.2.123\n" {
		t.Errorf("timesyncd: %q", got)
	}
	users := cfg.Passwd.Users
	if len(users) != 1 || users[0].Name != "root" || len(users[0].SSHAuthorizedKeys) != 2 || users[0].SSHAuthorizedKeys[0] != "ssh-ed25519 AAAA one" {
		t.Errorf("users %+v", users)
	}
}

// The whole way from the example file and a fresh secrets folder.
func TestExampleWithRealSecrets(t *testing.T) {
	c := cluster(t, nil)
	endpoint, err := c.Endpoint()
	if err != nil {
		t.Fatal(err)
	}
	a, err := pki.LoadOrCreate(filepath.Join(t.TempDir(), "secrets"), pki.Options{
		Algorithm: c.EncryptionAlgorithm, ClusterName: c.Name, Endpoint: endpoint, TokenTTL: c.TokenTTL(), Now: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := Node(c, a, c.Nodes[0])
	if err != nil {
		t.Fatal(err)
	}
	files := parse(t, r)
	for path, want := range map[string]secret.Value{
		"/etc/kubernetes/pki/ca.key": a.CA.KeyPEM, "/etc/kubernetes/pki/sa.key": a.ServiceAccountKey,
		"/etc/kubernetes/pki/etcd/ca.crt": secret.New(a.EtcdCA.CertPEM), "/etc/kubernetes/pki/sa.pub": secret.New(a.ServiceAccountPub),
	} {
		if !want.Equal(secret.FromString(files.inline[path])) {
			t.Errorf("%s did not arrive byte for byte", path)
		}
	}
}

func TestRefusals(t *testing.T) {
	c := cluster(t, nil)
	a := fixture(t)
	a.EtcdCA.KeyPEM = secret.Value{}
	if _, err := Node(c, a, c.Nodes[0]); err == nil || !strings.Contains(err.Error(), "etcd/ca") {
		t.Errorf("missing CA key: %v", err)
	}
	if _, err := Node(c, fixture(t), spec.Node{Name: "x", Role: "master"}); err == nil || !strings.Contains(err.Error(), "master") {
		t.Errorf("unknown role: %v", err)
	}
}

func TestWarningsAreErrorsAndQuoteNoContent(t *testing.T) {
	rep := report.Report{Entries: []report.Entry{{Kind: report.Warn, Message: `parse "data:,hunter2"`}}}
	err := strict("Butane", rep, nil)
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
	if _, err := ignition([]entry{textFile("relative", "hunter2")}, nil, types.Config{}); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("relative path: %v", err)
	}
	if _, err := ignition([]entry{textFile("/a", "x"), textFile("/a", "y")}, nil, types.Config{}); err == nil {
		t.Error("the same path twice is accepted")
	}
}
