package spec

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/diag"
)

var known = Known{Profiles: []string{"qemu-amd64", "rpi-4"}, Suites: []string{"trixie", "forky"}, Versions: []string{"v1.37.2"}}

const head = "apiVersion: kiln-os.dev/v1alpha1\nkind: Cluster\nname: demo\n"

const minimal = head + `nodes:
- name: kiln-1
  role: control-plane
  profile: qemu-amd64
  address: 10.0.2.15/24
  gateway: 10.0.2.2
`

// withNode is minimal with further lines in its node.
func withNode(lines ...string) string { return minimal + "  " + strings.Join(lines, "\n  ") + "\n" }

func TestExamplePasses(t *testing.T) {
	c, list := Parse("cluster.yaml", Example(), known)
	if len(list) > 0 {
		t.Fatal(list)
	}
	n := c.Nodes[0]
	if n.Name != "kiln-1" || n.Profile != "qemu-amd64" || n.Address != netip.MustParsePrefix("10.0.2.15/24") ||
		n.Gateway != netip.MustParseAddr("10.0.2.2") || !slices.Equal(n.Nameservers, []netip.Addr{netip.MustParseAddr("10.0.2.3")}) {
		t.Errorf("node %+v", n)
	}
	if n.Taints == nil || len(n.Taints) != 0 {
		t.Errorf("taints %#v, want an empty list", n.Taints)
	}
	if e, err := c.Endpoint(); e != "10.0.2.15:6443" || err != nil {
		t.Errorf("endpoint %q, %v", e, err)
	}
}

// What the example shows as defaults must be the defaults, and what it shows as
// examples must be right.
func TestExampleCommentsAreTrue(t *testing.T) {
	var text []string
	for _, line := range strings.Split(string(Example()), "\n") {
		body := strings.TrimLeft(line, " ")
		indent := line[:len(line)-len(body)]
		if rest, ok := strings.CutPrefix(body, "# "); ok && (strings.Contains(rest, ": ") || strings.HasSuffix(rest, ":") || strings.HasPrefix(strings.TrimSpace(rest), "- ") || rest == "---") &&
			!strings.Contains(rest, " file with: ") && !strings.Contains(rest, "control-plane node") && !strings.HasPrefix(rest, "ECDSA") && !strings.HasPrefix(rest, "Key algorithm") {
			line = indent + rest
		}
		if strings.TrimSpace(line) != "taints: []" && !strings.HasPrefix(strings.TrimSpace(line), "#") {
			text = append(text, line)
		}
	}
	full := strings.ReplaceAll(strings.Join(text, "\n"), "AAAA...", "AAAAC3NzaC1lZDI1NTE5AAAAIF8K2Vt7mBnXCIX0ScLTTgEQdAxiYHdPLNnx5Ybx5kCC")
	c, list := Parse("cluster.yaml", []byte(full), known)
	if len(list) > 0 {
		t.Fatalf("%v\n%s", list, full)
	}
	def, _ := Parse("cluster.yaml", []byte(minimal), known)
	if c.Timeouts != def.Timeouts || c.TokenTTL() != def.TokenTTL() || c.KubernetesVersion != def.KubernetesVersion ||
		c.EncryptionAlgorithm != def.EncryptionAlgorithm || fmt.Sprint(c.Network) != fmt.Sprint(def.Network) {
		t.Errorf("the example shows other defaults than the program has:\n%+v\n%+v", c, def)
	}
	if len(c.Nodes[0].Taints) != 1 || len(c.SSH.AuthorizedKeys) != 1 || c.Nodes[0].Interface.MAC == "" || c.ControlPlaneEndpoint == "" || len(c.AllSnippets()) != 2 || string(c.Kubelet) != `{"maxPods":110}` {
		t.Errorf("not everything of the example was read: %+v", c)
	}
}

func TestDefaults(t *testing.T) {
	c, list := Parse("cluster.yaml", []byte(minimal), known)
	if len(list) > 0 {
		t.Fatal(list)
	}
	if c.KubernetesVersion != "v1.37.2" || c.EncryptionAlgorithm != "RSA-2048" || c.TokenTTL() != 24*time.Hour ||
		c.Network.DNSDomain != "cluster.local" || c.Network.Plugin != PluginFlannel || c.Timeouts != bootplan.DefaultTimeouts() {
		t.Errorf("%+v", c)
	}
	if fmt.Sprint(c.Network.PodSubnets, c.Network.ServiceSubnets) != "[10.244.0.0/16] [10.96.0.0/12]" {
		t.Errorf("%v", c.Network)
	}
	if c.Nodes[0].Taints != nil {
		t.Error("absent taints must be nil: the role's default")
	}
}

func TestValues(t *testing.T) {
	text := head + `controlPlaneEndpoint: api.example.org
tokens: {ttl: 0s}
timeouts: {nodeReady: 90m}
network:
  nameservers: [192.0.2.53]
nodes:
- name: kiln-1
  role: control-plane
  profile: rpi-4
  interface: {mac: 52-54-00-AB-CD-EF}
  labels: {example.org/rack: r1}
`
	c, list := Parse("cluster.yaml", []byte(text), known)
	if len(list) > 0 {
		t.Fatal(list)
	}
	if e, _ := c.Endpoint(); e != "api.example.org:6443" {
		t.Errorf("endpoint %s", e)
	}
	if c.TokenTTL() != 0 || c.Timeouts.NodeReady != bootplan.Duration(90*time.Minute) {
		t.Errorf("%v %v", c.TokenTTL(), c.Timeouts)
	}
	n := c.Nodes[0]
	if n.Static() || n.Interface.MAC != "52:54:00:ab:cd:ef" || n.Labels["example.org/rack"] != "r1" || n.Nameservers[0].String() != "192.0.2.53" {
		t.Errorf("%+v", n)
	}
}

func TestMistakes(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want []string // one substring for each mistake, in order
	}{
		"empty file":          {"", []string{"f: the file is empty"}},
		"not a mapping":       {"- a\n", []string{"f:1:1: a cluster file is a mapping, this is a list"}},
		"nothing in it":       {"{}\n", []string{"apiVersion: is missing; want kiln-os.dev", "kind: is missing", "name: is missing", "nodes: is missing"}},
		"other kind":          {strings.Replace(minimal, "kind: Cluster", "kind: Clutter", 1), []string{`f:2:7: kind: "Clutter" is not a kind`}},
		"unknown key":         {strings.Replace(minimal, "name: demo", "nam: demo", 1), []string{`f:1:1: name: is missing`, `f:3:1: nam: unknown key "nam"; did you mean name?`}},
		"unknown key in node": {withNode("adress: x"), []string{`f:10:3: nodes[0].adress: unknown key "adress"; did you mean address?`}},
		"far from any key":    {minimal + "zzzzzzzz: 1\n", []string{`unknown key "zzzzzzzz"; want one of apiVersion, kind, name`}},
		"duplicate key":       {minimal + "name: other\n", []string{`f:10:1: name: key "name" is there twice; the first one is in line 3`}},
		"number for text":     {strings.Replace(minimal, "demo", "123", 1), []string{`f:3:7: name: is a number, not text; put it in quotes: "123"`}},
		"version as a number": {minimal + "kubernetesVersion: 1.37\n", []string{`is a number, not text`}},
		"truth for text":      {withNode("labels: {a: true}"), []string{`nodes[0].labels.a: is a truth value, not text; put it in quotes: "true"`}},
		"text for list":       {minimal + "certSANs: a.example.org\n", []string{"f:10:11: certSANs: is text, not a list"}},
		"list for mapping":    {minimal + "network: []\n", []string{"network: is a list, not a mapping; want the keys podSubnets"}},
		"text for node":       {head + "nodes: [kiln-1]\n", []string{"nodes[0]: is text, not a mapping"}},
		"empty item":          {head + "nodes:\n-\n", []string{"nodes[0]: the list item is empty"}},
		"empty nodes":         {head + "nodes: []\n", []string{"nodes: the list is empty; want a list of nodes"}},
		"null nodes":          {head + "nodes:\n", []string{"f:4:1: nodes: is missing"}},
		"cluster name":        {strings.Replace(minimal, "demo", "De_mo", 1), []string{`"De_mo" is not a DNS label`}},
		"version":             {minimal + "kubernetesVersion: v1.36.0\n", []string{`f:10:20: kubernetesVersion: there is no payload of Kubernetes "v1.36.0"; want v1.37.2, which imagegen compiles, or payload.source: release`}},
		"day of the archive":  {minimal + "debian: {date: 2026-11-31}\n", []string{`debian.date: "2026-11-31" is no day; want one such as 2026-11-01`}},
		"suite":               {minimal + "debian: {suite: forkie}\n", []string{`debian.suite: "forkie" is not a known suite of Debian that nodes are made of; did you mean forky?`}},
		"algorithm":           {minimal + "encryptionAlgorithm: RSA2048\n", []string{`did you mean RSA-2048?`}},
		"endpoint with scheme": {minimal + "controlPlaneEndpoint: https://a.example.org\n",
			[]string{`"https://a.example.org" is not an endpoint`}},
		"endpoint port":       {minimal + "controlPlaneEndpoint: a.example.org:99999\n", []string{"is not an endpoint"}},
		"endpoint upper case": {minimal + "controlPlaneEndpoint: A.example.org\n", []string{"neither a DNS name in lower case"}},
		"endpoint loopback":   {minimal + "controlPlaneEndpoint: 127.0.0.1:6443\n", []string{"127.0.0.1 cannot be the address of a cluster"}},
		"endpoint empty":      {minimal + "controlPlaneEndpoint: ''\n", []string{"controlPlaneEndpoint: is empty"}},
		"SAN":                 {minimal + "certSANs: ['*.example.org', 192.0.2.1, 'a b']\n", []string{`certSANs[2]: "a b" is neither`}},
		"time server":         {minimal + "time: {servers: ['*.example.org']}\n", []string{`time.servers[0]`}},
		"CIDR":                {minimal + "network: {podSubnets: [10.244.0.0]}\n", []string{`network.podSubnets[0]: "10.244.0.0" is not an address with a prefix length`}},
		"CIDR with host bits": {minimal + "network: {podSubnets: [10.244.1.0/16]}\n", []string{`did you mean 10.244.0.0/16?`}},
		"pods too small":      {minimal + "network: {podSubnets: [10.244.0.0/25]}\n", []string{`f:10:24: network.podSubnets[0]: 10.244.0.0/25 is too small`}},
		"pods too large":      {minimal + "network: {podSubnets: [64.0.0.0/7]}\n", []string{`too large`}},
		"services too small":  {minimal + "network: {serviceSubnets: [10.96.0.0/29]}\n", []string{`10.96.0.0/29 is too small`}},
		"services too large":  {minimal + "network: {serviceSubnets: [100.64.0.0/11]}\n", []string{`100.64.0.0/11 is too large`}},
		"smallest services":   {minimal + "network: {serviceSubnets: [10.96.0.0/28]}\n", nil},
		"dual stack":          {minimal + "network: {podSubnets: [10.244.0.0/16, 'fd00:10::/56'], serviceSubnets: [10.96.0.0/16, 'fd00:96::/112']}\n", nil},
		"two of a family":     {minimal + "network: {podSubnets: [10.244.0.0/16, 10.200.0.0/16]}\n", []string{"podSubnets[1]: 10.200.0.0/16 is of the same address family"}},
		"three subnets":       {minimal + "network: {podSubnets: [10.244.0.0/16, 'fd00:10::/56', 10.200.0.0/16]}\n", []string{"there are 3 pod subnets"}},
		"services of a family without pods": {minimal + "network: {podSubnets: [10.244.0.0/16], serviceSubnets: [10.96.0.0/16, 'fd00:96::/112']}\n",
			[]string{"serviceSubnets[1]: fd00:96::/112 has no pod subnet"}},
		"families in another order": {minimal + "network: {podSubnets: ['fd00:10::/56', 10.244.0.0/16], serviceSubnets: [10.96.0.0/16, 'fd00:96::/112']}\n",
			[]string{"serviceSubnets[0]", "serviceSubnets[1]"}},
		"subnets overlap":      {minimal + "network: {podSubnets: [10.96.0.0/16]}\n", []string{"overlaps with pod subnet 10.96.0.0/16"}},
		"node in pod subnet":   {strings.NewReplacer("10.0.2.15/24", "10.244.7.15/24", "10.0.2.2", "10.244.7.1").Replace(minimal), []string{"f:8:12: nodes[0].address: the node's subnet 10.244.7.0/24 overlaps with pod subnet 10.244.0.0/16"}},
		"plugin":               {minimal + "network: {plugin: flanel}\n", []string{"did you mean flannel?"}},
		"DNS domain":           {minimal + "network: {dnsDomain: Cluster}\n", []string{`"Cluster" is not a DNS domain`}},
		"host name":            {strings.Replace(minimal, "kiln-1", "Kiln_1", 1), []string{`f:5:9: nodes[0].name: "Kiln_1" is not a host name`}},
		"localhost":            {strings.Replace(minimal, "kiln-1", "localhost", 1), []string{"every machine's own name"}},
		"long host name":       {strings.Replace(minimal, "kiln-1", strings.Repeat("a", 60)+".example", 1), []string{"the name has 68 characters"}},
		"role":                 {strings.Replace(minimal, "role: control-plane", "role: contol-plane", 1), []string{`did you mean control-plane?`}},
		"only a worker":        {strings.Replace(minimal, "role: control-plane", "role: worker", 1), []string{"nodes: there is no control-plane node"}},
		"profile":              {strings.Replace(minimal, "qemu-amd64", "qemu-arm64", 1), []string{`"qemu-arm64" is not a known profile; did you mean qemu-amd64? All: qemu-amd64, rpi-4`}},
		"node without all":     {head + "nodes: [{}]\n", []string{"nodes[0].name: is missing", "nodes[0].role: is missing", "nodes[0].profile: is missing"}},
		"address":              {strings.Replace(minimal, "10.0.2.15/24", "10.0.2.15", 1), []string{`f:8:12: nodes[0].address: "10.0.2.15" is not an address with a prefix length; such as 10.0.2.15/24`}},
		"network address":      {strings.Replace(minimal, "10.0.2.15/24", "10.0.2.0/24", 1), []string{"10.0.2.0 is the network or broadcast address"}},
		"broadcast address":    {strings.Replace(minimal, "10.0.2.15/24", "10.0.2.255/24", 1), []string{"10.0.2.255 is the network or broadcast"}},
		"multicast address":    {strings.Replace(minimal, "10.0.2.15/24", "224.0.0.1/24", 1), []string{"224.0.0.1 is not a unicast"}},
		"gateway elsewhere":    {strings.Replace(minimal, "10.0.2.2\n", "10.0.3.2\n", 1), []string{"nodes[0].gateway: 10.0.3.2 is not on the node's subnet; want an address in 10.0.2.0/24"}},
		"gateway is the node":  {strings.Replace(minimal, "10.0.2.2\n", "10.0.2.15\n", 1), []string{"10.0.2.15 is the node itself"}},
		"no gateway":           {strings.Replace(minimal, "  gateway: 10.0.2.2\n", "", 1), []string{"nodes[0].gateway: is missing"}},
		"gateway with DHCP":    {strings.Replace(minimal, "  address: 10.0.2.15/24\n", "", 1) + "controlPlaneEndpoint: a.example.org\n", []string{"nodes[0].gateway: a node without address asks DHCP"}},
		"DHCP control plane":   {strings.NewReplacer("  address: 10.0.2.15/24\n", "", "  gateway: 10.0.2.2\n", "").Replace(minimal), []string{"has no address that admin.conf could name; set controlPlaneEndpoint"}},
		"IPv6 node, IPv4 svcs": {strings.NewReplacer("10.0.2.15/24", "fd00::15/64", "10.0.2.2", "fe80::1").Replace(minimal) + "network: {podSubnets: [10.244.0.0/16]}\n", []string{"cannot serve 10.96.0.0/12 from fd00::15"}},
		"nameserver":           {withNode("nameservers: [dns.example.org]"), []string{`nodes[0].nameservers[0]: "dns.example.org" is not an IP address`}},
		"nameserver of all":    {minimal + "network: {nameservers: [0.0.0.0]}\n", []string{"f:10:25: network.nameservers[0]"}},
		"MAC":                  {withNode("interface: {mac: 52:54:00:12:34}"), []string{`nodes[0].interface.mac: "52:54:00:12:34" is not an Ethernet address`}},
		"interface":            {withNode("interface: {name: a-name-that-is-too-long}"), []string{"nodes[0].interface.name"}},
		"label key":            {withNode("labels: {'a b': c}"), []string{`f:10:12: nodes[0].labels["a b"]: "a b" is not a label key`}},
		"label value":          {withNode("labels: {a: 'b c'}"), []string{`f:10:15: nodes[0].labels.a: "b c" is not a label value`}},
		"taints":               {withNode("taints: [{key: a, effect: NoShedule}, {value: b}, {key: c, effect: NoExecute}, {key: c, effect: NoExecute}]"), []string{"did you mean NoSchedule?", "taints[1].key: is missing", "taints[1].effect: is missing", "taints[3]: taint c with effect NoExecute is there twice"}},
		"SSH key":              {minimal + "ssh: {authorizedKeys: [ssh-rsa AAAA]}\n", []string{"ssh.authorizedKeys[0]: not an SSH public key"}},
		"private SSH key":      {minimal + "ssh:\n  authorizedKeys:\n  - |\n    -----BEGIN OPENSSH PRIVATE KEY-----\n    hunter2\n", []string{"this is a private key"}},
		"token TTL":            {minimal + "tokens: {ttl: -1h}\n", []string{`tokens.ttl: "-1h" is not a duration of 0s or more; such as 24h`}},
		"token TTL unit":       {minimal + "tokens: {ttl: 24}\n", []string{`tokens.ttl: "24" is not a duration`}},
		"timeout":              {minimal + "timeouts: {nodeReady: 0s}\n", []string{`timeouts.nodeReady: "0s" is not a duration above 0s`}},
		"a worker":             {minimal + "- {name: w, role: worker, profile: rpi-4, labels: {example.org/disk: ssd, topology.kubernetes.io/zone: a}}\n", nil},
		"workers only":         {strings.Replace(minimal, "role: control-plane", "role: worker", 1), []string{"nodes: there is no control-plane node; give one node"}},
		"two control planes": {minimal + "- {name: b, role: control-plane, profile: rpi-4, address: 10.0.2.16/24, gateway: 10.0.2.2}\n",
			[]string{"nodes: 2 control-plane nodes have no address in common at which the API could be reached; set virtualIP"}},
		"two control planes behind an endpoint": {minimal + "- {name: b, role: control-plane, profile: rpi-4}\ncontrolPlaneEndpoint: api.example.org\n", nil},
		"worker joins an unknown address": {head + "nodes:\n- {name: a, role: control-plane, profile: rpi-4}\n- {name: w, role: worker, profile: rpi-4}\n",
			[]string{"nodes[0].address: a control-plane node on DHCP has no address that admin.conf could name"}},
		"label of a worker": {minimal + "- {name: w, role: worker, profile: rpi-4, labels: {node-role.kubernetes.io/worker: ''}}\n",
			[]string{`a worker may not give itself the label node-role.kubernetes.io/worker; set it with kubectl label node, or take a key of your own, such as example.org/worker`}},
		"label of a control plane": {withNode("labels: {node-role.kubernetes.io/edge: ''}"), nil},
		"same everything": {withNode("interface: {mac: 52:54:00:12:34:56}") + "- {name: kiln-1, role: worker, profile: rpi-4, address: 10.0.2.15/24, gateway: 10.0.2.2, interface: {mac: 52-54-00-12-34-56}}\n",
			[]string{"name kiln-1 is taken by nodes[0].name", "address 10.0.2.15 is taken by nodes[0].address", "MAC address 52:54:00:12:34:56 is taken by nodes[0].interface.mac"}},
		"alias": {minimal + "certSANs: [*x]\n", []string{"not valid YAML: unknown anchor 'x'"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, list := Parse("f", []byte(tc.text), known)
			if len(list) != len(tc.want) {
				t.Fatalf("%d mistakes, want %d:\n%v", len(list), len(tc.want), list)
			}
			for i, w := range tc.want {
				if !strings.Contains(list[i].Error(), w) {
					t.Errorf("mistake %d is\n%s\nwant %s", i, list[i].Error(), w)
				}
			}
			var out strings.Builder
			if err := list.Print(&out); err != nil || strings.Contains(out.String(), "hunter2") {
				t.Errorf("%v\n%s", err, out.String())
			}
		})
	}
}

func TestFiveMistakesInOneRun(t *testing.T) {
	text := `apiVersion: kiln-os.dev/v1alpha1
kind: Cluster
name: Demo
kubernetesVersion: v1.2.3
network:
  podSubnet: [10.244.0.0/16]
nodes:
- name: kiln-1
  role: control-plane
  profile: qemu
  address: 10.0.2.15/33
`
	_, list := Parse("cluster.yaml", []byte(text), known)
	var out strings.Builder
	if err := list.Print(&out); err != nil {
		t.Fatal(err)
	}
	const want = `cluster.yaml:3:7: name: "Demo" is not a DNS label; want at most 63 of a-z, 0-9 and -, with a letter or digit at both ends
    3 | name: Demo
      |       ^~~~
cluster.yaml:4:20: kubernetesVersion: there is no payload of Kubernetes "v1.2.3"; want v1.37.2, which imagegen compiles, or payload.source: release
    4 | kubernetesVersion: v1.2.3
      |                    ^~~~~~
cluster.yaml:6:3: network.podSubnet: unknown key "podSubnet"; did you mean podSubnets?
    6 |   podSubnet: [10.244.0.0/16]
      |   ^~~~~~~~~
cluster.yaml:10:12: nodes[0].profile: "qemu" is not a known profile; want one of qemu-amd64, rpi-4
   10 |   profile: qemu
      |            ^~~~
cluster.yaml:11:12: nodes[0].address: "10.0.2.15/33" is not an address with a prefix length; such as 10.0.2.15/24
   11 |   address: 10.0.2.15/33
      |            ^~~~~~~~~~~~
`
	if out.String() != want {
		t.Errorf("got\n%s", out.String())
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Example())
	f.Add([]byte(minimal))
	f.Add([]byte(head + "nodes: [{}, [], 1, null, {taints: [1]}]\nnetwork: {podSubnets: [x, null], serviceSubnets: [null]}\n"))
	f.Add([]byte("? [a]\n: b\n"))
	f.Add([]byte(with("networking: {podSubnet: 'x,'}", "etcd: {local: {}, external: {}}", "featureGates: {a: 1}")))
	f.Add([]byte(kubelet("evictionHard: {a: 1}\nlogging: []")))
	f.Add([]byte(proxy("conntrack: {maxPerCore: .nan}\nbutane: [x]")))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, list := Parse("f", data, known)
		if c == nil {
			t.Fatal("no cluster")
		}
		if len(list) == 0 {
			if _, err := c.Endpoint(); err != nil {
				t.Errorf("a valid cluster has no endpoint: %v", err)
			}
		}
		var out strings.Builder
		if err := list.Print(&out); err != nil {
			t.Fatal(err)
		}
	})
}

func TestPayload(t *testing.T) {
	const rest = "apiVersion: kiln-os.dev/v1alpha1\nkind: Cluster\nname: demo\ncontrolPlaneEndpoint: api.example.org\nnodes: [{name: kiln-1, role: control-plane, profile: qemu-amd64}]\n"
	lost := diag.Mistake{File: "payload.yaml", Message: "lost"}
	for name, c := range map[string]struct {
		text    string
		version string
		list    diag.List
		want    string
	}{
		"compiled":        {"", "", nil, ""},
		"release":         {"payload: {source: release, manifest: m.yaml}\n", "v1.37.2", nil, ""},
		"another patch":   {"kubernetesVersion: v1.37.5\npayload: {source: release, manifest: m.yaml}\n", "v1.37.5", nil, ""},
		"the default":     {"payload: {source: release, manifest: m.yaml}\n", "v1.37.5", nil, `f:1:1: kubernetesVersion: there is no payload of Kubernetes "v1.37.2"; want v1.37.5, the version in m.yaml`},
		"its mistakes":    {"kubernetesVersion: v9\npayload: {source: release, manifest: m.yaml}\n", "", diag.List{lost}, "payload.yaml: lost"},
		"no manifest":     {"payload: {source: release}\n", "", nil, "f:6:1: payload.manifest: is missing; want the path of a payload manifest, such as payload.yaml"},
		"empty manifest":  {"payload: {source: release, manifest: ''}\n", "", nil, "f:6:38: payload.manifest: is empty; want the path of a payload manifest, such as payload.yaml"},
		"unused manifest": {"payload: {manifest: m.yaml}\n", "", nil, "f:6:21: payload.manifest: what is compiled has no manifest; set payload.source to release, or remove the manifest"},
		"other source":    {"payload: {source: download}\n", "", nil, `f:6:19: payload.source: "download" is not a known source of the payload; want one of compile, release`},
	} {
		known := Known{Profiles: []string{"qemu-amd64"}, Versions: []string{DefaultKubernetesVersion}}
		known.Release = func(manifest string) (string, diag.List) {
			if manifest != "m.yaml" {
				t.Errorf("%s: manifest %q", name, manifest)
			}
			return c.version, c.list
		}
		if _, list := Parse("f", []byte(rest+c.text), known); list.Error() != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, list.Error(), c.want)
		}
	}
}
