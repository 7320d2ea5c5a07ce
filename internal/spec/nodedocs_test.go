package spec

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/secret"
)

// kubeadmDoc is minimal with a document of kubeadm's, whose own lines begin in line 13.
func kubeadmDoc(kind string, lines ...string) string {
	return minimal + "---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: " + kind + "\n" + strings.Join(lines, "\n") + "\n"
}

func initDoc(lines ...string) string  { return kubeadmDoc("InitConfiguration", lines...) }
func joinDoc(lines ...string) string  { return kubeadmDoc("JoinConfiguration", lines...) }
func resetDoc(lines ...string) string { return kubeadmDoc("ResetConfiguration", lines...) }

// dhcp is text whose control plane has no static address.
func dhcp(text string) string {
	return strings.Replace(text, "  address: 10.0.2.15/24\n  gateway: 10.0.2.2\n", "", 1)
}

func TestNodeDocumentMistakes(t *testing.T) {
	const token = "abcdef.0123456789abcdef"
	for name, tc := range map[string]struct {
		text string
		want []string
	}{
		"v1beta3":        {strings.Replace(initDoc(), "v1beta4", "v1beta3", 1), []string{`f:11:13: apiVersion: "kubeadm.k8s.io/v1beta3" is not the version of InitConfiguration that this program reads; want kubeadm.k8s.io/v1beta4; kubeadm config migrate converts`}},
		"v1":             {strings.Replace(joinDoc(), "v1beta4", "v1", 1), []string{`f:11:13: apiVersion: "kubeadm.k8s.io/v1" is not the version of JoinConfiguration`}},
		"twice":          {initDoc() + "---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\n", []string{"f:16:7: kind: there is a second document of kind InitConfiguration; the first one begins in line 11"}},
		"unknown key":    {initDoc("nodeRegistraton: {}"), []string{`f:13:1: nodeRegistraton: unknown key "nodeRegistraton"; did you mean nodeRegistration?`}},
		"unknown deeper": {joinDoc("nodeRegistration: {ignorePreflightError: []}"), []string{"f:13:20: nodeRegistration.ignorePreflightError: unknown key"}},
		"reset key":      {resetDoc("cleanUpTmpDir: true"), []string{"f:13:1: cleanUpTmpDir: unknown key"}},
		"old map":        {initDoc("nodeRegistration: {kubeletExtraArgs: {v: '4'}}"), []string{"f:13:38: nodeRegistration.kubeletExtraArgs: is a mapping, not a list"}},

		"dry run":         {initDoc("dryRun: true"), []string{"f:13:9: dryRun: a node that only shows what it would do never becomes Ready; remove it"}},
		"no dry run":      {initDoc("dryRun: false"), nil},
		"certificate key": {initDoc("certificateKey: 00ff"), []string{"f:13:17: certificateKey: control planes bring the cluster's CAs in their own images"}},
		"join key":        {joinDoc("controlPlane: {certificateKey: 00ff}"), []string{"f:13:32: controlPlane.certificateKey: control planes bring"}},
		"another name":    {initDoc("nodeRegistration: {name: other}"), []string{`f:13:26: nodeRegistration.name: the node's name is "kiln-1" in the document of kind Cluster`}},
		"the same name":   {initDoc("nodeRegistration: {name: KILN-1}"), nil},
		"join name":       {joinDoc("nodeRegistration: {name: a}"), []string{"nodeRegistration.name: the document is for 0 nodes, which cannot have one name"}},
		"CRI socket":      {initDoc("nodeRegistration: {criSocket: unix:///var/run/crio/crio.sock}"), []string{`f:13:31: nodeRegistration.criSocket: Kiln's container runtime is containerd, and "unix:///var/run/crio/crio.sock" is not its socket`}},
		"containerd's":    {initDoc("nodeRegistration: {criSocket: unix:///run/containerd/containerd.sock}"), nil},
		"taint":           {initDoc("nodeRegistration: {taints: [{key: a b, effect: Never}]}"), []string{`nodeRegistration.taints[0].key: "a b" is not a taint key`, `nodeRegistration.taints[0].effect: "Never" is not a known taint effect`}},
		"taint twice":     {strings.Replace(initDoc("nodeRegistration: {taints: []}"), "  gateway", "  taints: [{key: a, effect: NoExecute}]\n  gateway", 1), []string{"f:14:20: nodeRegistration.taints: says something else than the taints of node kiln-1"}},
		"same taints":     {strings.Replace(initDoc("nodeRegistration: {taints: [{key: a, effect: NoExecute}]}"), "  gateway", "  taints: [{key: a, effect: NoExecute}]\n  gateway", 1), nil},
		"kubelet flags": {initDoc("nodeRegistration: {kubeletExtraArgs: [{name: --v, value: '4'}, {name: node-labels, value: a=b}, {name: v, value: 'a b'}, {name: 'v=4', value: ''}, {value: x}]}"), []string{
			`kubeletExtraArgs[0].name: "--v" begins with a dash; did you mean v?`, "--node-labels cannot be set here; set nodes[].labels", "systemd, which reads the kubelet's flags", `"v=4" is not a flag`, "kubeletExtraArgs[4].name: is missing"}},
		"node's flags":     {withNode("kubeletExtraArgs: [{name: config, value: /x}]"), []string{"nodes[0].kubeletExtraArgs[0].name: --config cannot be set here; write a KubeletConfiguration"}},
		"checks":           {initDoc("nodeRegistration: {ignorePreflightErrors: [numcpu, Memm, all]}"), []string{`ignorePreflightErrors[1]: "Memm" is not a known preflight check; did you mean Mem?`, "ignorePreflightErrors[2]: don't specify individual checks if 'all' is used"}},
		"checks by path":   {initDoc("nodeRegistration: {ignorePreflightErrors: [Port-6443, FileAvailable--etc-kubernetes-manifests-etcd.yaml, DirAvailable--var-lib-etcd]}"), nil},
		"node's checks":    {withNode("ignorePreflightErrors: [Swapp]"), []string{`nodes[0].ignorePreflightErrors[0]: "Swapp" is not a known preflight check; did you mean Swap?`}},
		"pulls":            {initDoc("nodeRegistration: {imagePullPolicy: Always}"), []string{"imagePullPolicy: nodes pull nothing: their images are baked in; want IfNotPresent or Never"}},
		"pulls somehow":    {initDoc("nodeRegistration: {imagePullPolicy: never}"), []string{`"never" is not a known policy for pulling images; did you mean Never?`}},
		"pulls serially":   {initDoc("nodeRegistration: {imagePullPolicy: Never, imagePullSerial: false}"), nil},
		"another address":  {initDoc("localAPIEndpoint: {advertiseAddress: 10.0.2.16}"), []string{"f:13:38: localAPIEndpoint.advertiseAddress: the address of node kiln-1 is 10.0.2.15"}},
		"no address":       {initDoc("localAPIEndpoint: {advertiseAddress: api}"), []string{`"api" is not an IP address; such as 10.0.2.15 or fd00::101`}},
		"loopback":         {dhcp(initDoc("localAPIEndpoint: {advertiseAddress: 127.0.0.1}")), []string{"127.0.0.1 is not a unicast address on a network"}},
		"joiners' address": {joinDoc("controlPlane: {localAPIEndpoint: {advertiseAddress: 10.0.2.16}}"), []string{"the document is for 0 control planes"}},
		"port":             {initDoc("localAPIEndpoint: {bindPort: 70000}"), []string{"f:13:30: localAPIEndpoint.bindPort: 70000 is not a port"}},
		"port zero":        {initDoc("localAPIEndpoint: {bindPort: 0}"), []string{"0 is not a port"}},
		"etcd's port":      {initDoc("localAPIEndpoint: {bindPort: 2379}"), []string{"port 2379 of a control plane is taken"}},
		"CA path":          {joinDoc("caCertPath: /etc/ca.crt"), []string{"f:13:13: caCertPath: the cluster's CA is elsewhere; want /etc/kubernetes/pki/ca.crt"}},

		"phase":          {initDoc("skipPhases: [addon/core-dns, certs, kubelet-start]"), []string{"f:13:14: skipPhases[0]: a part of the phase addon cannot be skipped alone", "skipPhases[1]: certs cannot be skipped: what it makes", "skipPhases[2]: kubelet-start cannot be skipped"}},
		"unknown phase":  {initDoc("skipPhases: [preflght]"), []string{`"preflght" is not a phase of kubeadm init; did you mean preflight?`}},
		"join's phase":   {joinDoc("skipPhases: [addon]"), []string{`"addon" is not a phase of kubeadm join`}},
		"reset's phases": {resetDoc("skipPhases: [cleanup-node, cleanup]"), []string{`"cleanup" is not a phase of kubeadm reset; want one of cleanup-node, preflight`}},
		"phases":         {initDoc("skipPhases: [addon/kube-proxy, upload-certs, preflight, preflight]"), []string{"skipPhases[3]: preflight is there twice"}},
		"timeouts":       {initDoc("timeouts: {discovery: -1s, kubernetesAPICall: soon}"), []string{"timeouts.discovery: -1s is no time at all", `timeouts.kubernetesAPICall: "soon" is not a duration`}},
		"timeouts twice": {strings.Replace(initDoc("timeouts: {kubernetesAPICall: 2m}"), "nodes:", "timeouts: {kubernetesCall: 3m}\nnodes:", 1), []string{"f:14:31: timeouts.kubernetesAPICall: says something else than the cluster's timeouts.kubernetesCall at f:4:28"}},
		"same timeouts":  {strings.Replace(initDoc("timeouts: {kubernetesAPICall: 180s}"), "nodes:", "timeouts: {kubernetesCall: 3m}\nnodes:", 1), nil},

		"token":        {initDoc("bootstrapTokens:", "- token: SECRET.0123456789abcdef"), []string{"f:14:10: bootstrapTokens[0].token: the bootstrap token is invalid; want 6 characters, a dot and 16 characters"}},
		"no token":     {initDoc("bootstrapTokens: [{ttl: 1h}]"), []string{"bootstrapTokens[0].token: is missing"}},
		"token twice":  {initDoc("bootstrapTokens:", "- {token: "+token+"}", "- {token: abcdef.aaaaaaaaaaaaaaaa}"), []string{"bootstrapTokens[1].token: there is a token with the id abcdef already"}},
		"negative TTL": {initDoc("bootstrapTokens: [{token: " + token + ", ttl: -1h}]"), []string{"bootstrapTokens[0].ttl: the life -1h0m0s is negative"}},
		"two lives":    {initDoc("bootstrapTokens: [{token: " + token + ", ttl: 1h, expires: 2030-01-01T00:00:00Z}]"), []string{"bootstrapTokens[0].expires: the BootstrapToken .TTL and .Expires fields are mutually exclusive"}},
		"expires":      {initDoc("bootstrapTokens: [{token: " + token + ", expires: tomorrow}]"), []string{`bootstrapTokens[0].expires: "tomorrow" is not a time; such as 2030-`}},
		"usages":       {initDoc("bootstrapTokens: [{token: " + token + ", usages: [sign]}]"), []string{`"sign" is not a known usage of a bootstrap token; want one of signing, authentication`}},
		"groups":       {initDoc("bootstrapTokens: [{token: " + token + ", usages: [signing], groups: ['system:masters']}]"), []string{`token groups cannot be specified unless usages include "authentication"`, `"system:masters" is not a group of a bootstrap token`}},

		"discovery by file":  {joinDoc("discovery: {file: {kubeConfigPath: join.conf}}"), nil},
		"both discoveries":   {joinDoc("discovery: {file: {kubeConfigPath: join.conf}, bootstrapToken: {apiServerEndpoint: 10.0.2.15:6443}}"), []string{"f:13:13: discovery.file: discovery.bootstrapToken and discovery.file are two ways to the cluster; keep one of the two"}},
		"token and file":     {joinDoc("discovery: {file: {kubeConfigPath: join.conf}, tlsBootstrapToken: " + token + "}"), []string{"discovery.tlsBootstrapToken: imagegen makes the token and bakes it in; remove it"}},
		"file without path":  {joinDoc("discovery: {file: {}}"), []string{"discovery.file.kubeConfigPath: is missing; want the path of a kubeconfig, relative to the cluster file's folder"}},
		"file, empty path":   {joinDoc("discovery: {file: {kubeConfigPath: ''}}"), []string{"f:13:36: discovery.file.kubeConfigPath: is empty"}},
		"file by URL":        {joinDoc("discovery: {file: {kubeConfigPath: 'https://a/b'}}"), []string{"f:13:36: discovery.file.kubeConfigPath: it is a URL, and neither a build nor a first boot fetches it"}},
		"bad discovery file": {joinDoc("discovery: {file: {kubeConfigPath: bad.conf}}"), []string{"f:13:36: discovery.file.kubeConfigPath: bad.conf: it is not a kubeconfig; want a kubeconfig with the cluster's server and CA"}},
		"discovery":          {joinDoc("discovery:", "  tlsBootstrapToken: "+token, "  bootstrapToken: {token: "+token+", caCertHashes: [sha256:x], unsafeSkipCAVerification: true}"), []string{"discovery.tlsBootstrapToken", "discovery.bootstrapToken.token", "discovery.bootstrapToken.caCertHashes", "discovery.bootstrapToken.unsafeSkipCAVerification"}},
		"endpoint":           {joinDoc("discovery: {bootstrapToken: {apiServerEndpoint: 10.0.2.15:6443}}"), nil},
		"another endpoint":   {joinDoc("discovery: {bootstrapToken: {apiServerEndpoint: 10.0.2.16:6443}}"), []string{"the cluster's endpoint is 10.0.2.15:6443 in the document of kind Cluster"}},
		"endpoint, no port":  {joinDoc("discovery: {bootstrapToken: {apiServerEndpoint: 10.0.2.15}}"), []string{`discovery.bootstrapToken.apiServerEndpoint: "10.0.2.15" is not an endpoint with a port; want host:port`}},
		"endpoint, no [ ]":   {joinDoc("discovery: {bootstrapToken: {apiServerEndpoint: fd00::101:6443}}"), []string{`"fd00::101:6443" is not an endpoint with a port; want host:port: api.example.org:6443, 10.0.2.15:6443, [fd00::101]:6443`}},
		"cluster, no [ ]":    {strings.Replace(minimal, "nodes:", "controlPlaneEndpoint: fd00::101:6443\nnodes:", 1), []string{`f:4:23: controlPlaneEndpoint: "fd00::101:6443" is an IPv6 address as a whole; a port stands behind brackets; did you mean [fd00::101]:6443?`}},
		"cluster, half a [":  {strings.Replace(minimal, "nodes:", "controlPlaneEndpoint: '[fd00::101:6443'\nnodes:", 1), []string{"is not an endpoint"}},
		"cluster, port zero": {strings.Replace(minimal, "nodes:", "controlPlaneEndpoint: '[fd00::101]:0'\nnodes:", 1), []string{"is not an endpoint"}},

		"reset": {resetDoc("certificatesDir: /x", "criSocket: unix:///x", "ignorePreflightErrors: [a]", "unmountFlags: [MNT_LAZY]", "timeouts: {etcdAPICall: 0s}"), []string{
			"f:13:18: certificatesDir: the cluster's certificates are elsewhere; want /etc/kubernetes/pki", "criSocket: Kiln's container runtime is containerd", `"a" is not a known preflight check`, `"MNT_LAZY" is not a known flag of umount2(2)`, "timeouts.etcdAPICall: 0s is no time at all"}},
		"good reset": {resetDoc("cleanupTmpDir: true", "force: true", "dryRun: true", "unmountFlags: [MNT_DETACH]", "skipPhases: [remove-etcd-member]"), nil},
		"no folder":  {initDoc("patches: {directory: ''}"), []string{"f:13:22: patches.directory: is empty"}},
		"patches":    {initDoc("patches: {directory: bad}"), []string{"f:13:22: patches.directory: bad/x.yaml: unknown target, must be one of [etcd]; want files named target[suffix][+patchtype].yaml"}},
	} {
		t.Run(name, func(t *testing.T) {
			k := known
			k.Patches = func(dir string) ([]bootplan.Patch, []error) {
				return nil, []error{errors.New(dir + "/x.yaml: unknown target, must be one of [etcd]")}
			}
			k.DiscoveryFile = func(path string) (secret.Value, error) {
				if path == "bad.conf" {
					return secret.Value{}, errors.New(path + ": it is not a kubeconfig")
				}
				return secret.FromString("kind: Config\n"), nil
			}
			_, list := Parse("f", []byte(tc.text), k)
			if len(list) != len(tc.want) {
				t.Fatalf("%d mistakes, want %d:\n%v", len(list), len(tc.want), list)
			}
			all := list.Error()
			for _, w := range tc.want {
				if !strings.Contains(all, w) {
					t.Errorf("no mistake\n%s\namong\n%s", w, all)
				}
			}
			var shown strings.Builder
			if err := list.Print(&shown); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(shown.String(), "0123456789abcdef") {
				t.Errorf("a token is shown:\n%s", shown.String())
			}
		})
	}
}

func TestNodeDocuments(t *testing.T) {
	text := initDoc(
		"bootstrapTokens:",
		"- {token: abcdef.0123456789abcdef, ttl: 2h, description: for a friend, usages: [authentication], groups: ['system:bootstrappers:friends']}",
		"- {token: ghijkl.0123456789abcdef, expires: 2031-01-02T03:04:05Z}",
		"- {token: mnopqr.0123456789abcdef, ttl: 0s}",
		"nodeRegistration:",
		"  taints: []",
		"  kubeletExtraArgs: [{name: v, value: '2'}]",
		"  ignorePreflightErrors: [NumCPU]",
		"localAPIEndpoint: {advertiseAddress: 10.0.2.99, bindPort: 8443}",
		"skipPhases: [preflight, addon/coredns]",
		"timeouts: {controlPlaneComponentHealthCheck: 7m}",
		"patches: {directory: patches}",
		"---", "apiVersion: kubeadm.k8s.io/v1beta4", "kind: ResetConfiguration", "force: true", "unmountFlags: [MNT_FORCE]",
	)
	text = dhcp(strings.Replace(text, "  address", "  kubeletExtraArgs: [{name: v, value: '4'}]\n  ignorePreflightErrors: [Mem]\n  address", 1))
	k := known
	k.Patches = func(dir string) ([]bootplan.Patch, []error) {
		return []bootplan.Patch{{File: "etcd.yaml", Data: dir}}, nil
	}
	c, list := Parse("f", []byte(text), k)
	if len(list) > 0 {
		t.Fatal(list)
	}
	n := c.Nodes[0]
	s := c.Settings(n)
	if s.APIPort != 8443 || fmt.Sprint(s.IgnorePreflightErrors, s.SkipPhases, s.KubeletExtraArgs) != "[NumCPU Mem] [preflight] [{v 2} {v 4}]" {
		t.Errorf("%+v", s)
	}
	if len(s.Patches) != 1 || s.Patches[0].Data != "patches" || s.Reset == nil || !s.Reset.Force || s.Reset.UnmountFlags[0] != "MNT_FORCE" {
		t.Errorf("%+v", s)
	}
	if !c.Kubeadm.DNS.Disabled || c.Kubeadm.Proxy.Disabled {
		t.Errorf("add-ons %+v", c.Kubeadm)
	}
	if taints := c.NodeTaints(n); taints == nil || len(taints) > 0 {
		t.Errorf("taints %#v, want an empty list", taints)
	}
	if e, err := c.Endpoint(); e != "10.0.2.99:8443" || err != nil {
		t.Errorf("endpoint %q, %v", e, err)
	}
	if d := c.NodeTimeouts(n); d.ControlPlane != bootplan.Duration(7*time.Minute) || d.KubernetesCall != bootplan.DefaultTimeouts().KubernetesCall {
		t.Errorf("timeouts %+v", d)
	}
	created := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	tokens := c.BootstrapTokens(created)
	if len(tokens) != 3 || tokens[0].ID != "abcdef" || tokens[0].Secret.RevealString() != "0123456789abcdef" || !tokens[0].Expires.Equal(created.Add(2*time.Hour)) ||
		fmt.Sprint(tokens[0].Description, tokens[0].Usages, tokens[0].Groups) != "for a friend[authentication] [system:bootstrappers:friends]" ||
		tokens[1].Expires.Year() != 2031 || !tokens[2].Expires.IsZero() {
		t.Errorf("%+v", tokens)
	}
	if text := fmt.Sprintf("%+v", c.Documents.Init.BootstrapTokens); strings.Contains(text, "0123456789abcdef") {
		t.Errorf("a token is printed: %s", text)
	}
}

// A joining node is not what the InitConfiguration is about, nor the first one what
// the JoinConfiguration is.
func TestWhoseDocument(t *testing.T) {
	c, _ := Parse("f", []byte(initDoc("localAPIEndpoint: {bindPort: 8443}", "nodeRegistration: {ignorePreflightErrors: [all]}",
		"---", "apiVersion: kubeadm.k8s.io/v1beta4", "kind: JoinConfiguration", "nodeRegistration: {ignorePreflightErrors: [Swap], taints: [{key: a, effect: NoSchedule}]}", "controlPlane: {localAPIEndpoint: {bindPort: 9443}}", "skipPhases: [control-plane-join/mark-control-plane]")), known)
	c.Nodes = append(c.Nodes, Node{Name: "cp-2", Role: RoleControlPlane}, Node{Name: "w", Role: RoleWorker, IgnorePreflightErrors: []string{"Mem"}}, Node{Name: "w2", Role: RoleWorker, Taints: []bootplan.Taint{}})
	for i, want := range []string{"8443 [all] [] []", "9443 [Swap] [mark-control-plane] [{a  NoSchedule}]", "0 [Swap Mem] [mark-control-plane] [{a  NoSchedule}]", "0 [Swap] [mark-control-plane] []"} {
		s := c.Settings(c.Nodes[i])
		if got := fmt.Sprint(s.APIPort, s.IgnorePreflightErrors, s.SkipPhases, c.NodeTaints(c.Nodes[i])); got != want {
			t.Errorf("%s: %s, want %s", c.Nodes[i].Name, got, want)
		}
	}
}

// An endpoint without a port gets the API server's, as kubeadm does it.
func TestEndpointGetsThePort(t *testing.T) {
	for endpoint, want := range map[string]string{"api.example.org": "api.example.org:8443", "api.example.org:6443": "api.example.org:6443", "fd00::1": "[fd00::1]:8443", "'[fd00::1]'": "[fd00::1]:8443", "'[fd00::1]:443'": "[fd00::1]:443"} {
		c, list := Parse("f", []byte(strings.Replace(initDoc("localAPIEndpoint: {bindPort: 8443}"), "nodes:", "controlPlaneEndpoint: "+endpoint+"\nnodes:", 1)), known)
		if e, err := c.Endpoint(); e != want || err != nil || len(list) > 0 {
			t.Errorf("%s: %s, %v, %v", endpoint, e, err, list)
		}
	}
}
