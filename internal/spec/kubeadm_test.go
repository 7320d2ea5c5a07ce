package spec

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// with is minimal, 9 lines, with a ClusterConfiguration whose own lines begin in line 13.
func with(lines ...string) string {
	return minimal + "---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n" + strings.Join(lines, "\n") + "\n"
}

// kubelet and proxy are minimal with a document whose own lines begin in line 13.
func kubelet(line string) string {
	return minimal + "---\napiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n" + line + "\n"
}

func proxy(line string) string {
	return minimal + "---\napiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n" + line + "\n"
}

func TestDocumentMistakes(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want []string
	}{
		"v1beta3":       {strings.Replace(with(), "v1beta4", "v1beta3", 1), []string{`f:11:13: apiVersion: "kubeadm.k8s.io/v1beta3" is not the version of ClusterConfiguration that this program reads; want kubeadm.k8s.io/v1beta4; kubeadm config migrate converts`}},
		"no version":    {minimal + "---\nkind: KubeletConfiguration\n", []string{"f:11:1: apiVersion: is missing; want kubelet.config.k8s.io/v1beta1"}},
		"twice":         {with() + "---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n", []string{"f:16:7: kind: there is a second document of kind ClusterConfiguration; the first one begins in line 11"}},
		"two clusters":  {minimal + "---\n" + minimal, []string{"f:12:7: kind: there is a second document of kind Cluster"}},
		"upgrade":       {minimal + "---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: UpgradeConfiguration\n", []string{"f:12:7: kind: UpgradeConfiguration has no place in a cluster file; it configures a command"}},
		"other kind":    {minimal + "---\napiVersion: v1\nkind: ConfigMap\n", []string{`f:12:7: kind: "ConfigMap" is not a kind of document that this program reads`}},
		"no cluster":    {strings.TrimPrefix(with(), minimal+"---\n") + "---\napiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n", []string{"f:1:1: the file has no document of kind Cluster"}},
		"empty between": {minimal + "---\n---\n", nil},
		"not a mapping": {minimal + "---\n- a\n", []string{`f:11:1: kind: "" is not a kind of document`}},
		"syntax later":  {strings.Replace(minimal, "demo", "De_mo", 1) + "---\na: [\n", []string{`f:3:7: name: "De_mo" is not a DNS label`, "not valid YAML"}},

		"unknown key":       {with("apiServer:", "  extraArg: []"), []string{`f:14:3: apiServer.extraArg: unknown key "extraArg"; did you mean extraArgs?`}},
		"v1beta3 map":       {with("scheduler:", "  extraArgs: {v: '4'}"), []string{"f:14:14: scheduler.extraArgs: is a mapping, not a list"}},
		"v1beta3 timeout":   {with("apiServer: {timeoutForControlPlane: 4m}"), []string{"set timeouts.controlPlane in the document of kind Cluster"}},
		"truth value":       {with("dns: {disabled: 1}"), []string{"f:13:17: dns.disabled: is a number, not a truth value"}},
		"duration":          {with("certificateValidityPeriod: 1y"), []string{`f:13:28: certificateValidityPeriod: "1y" is not a duration; such as 90s`}},
		"another name":      {with("clusterName: other"), []string{"f:13:14: clusterName: says something else than name at f:3:7; say it in one"}},
		"another version":   {strings.Replace(with("kubernetesVersion: v1.37.2"), "name: demo", "name: demo\nkubernetesVersion: v1.36.0", 1), []string{"f:4:20: kubernetesVersion", "f:14:20: kubernetesVersion: says something else than kubernetesVersion at f:4:20"}},
		"unknown version":   {with("kubernetesVersion: stable-1"), []string{`f:13:20: kubernetesVersion: there is no payload of Kubernetes "stable-1"; want v1.37.2, which imagegen compiles, or payload.source: release`}},
		"another endpoint":  {strings.Replace(with("controlPlaneEndpoint: b.example.org"), "name: demo", "name: demo\ncontrolPlaneEndpoint: a.example.org", 1), []string{"f:14:23: controlPlaneEndpoint: says something else than controlPlaneEndpoint at f:4:23"}},
		"the same endpoint": {strings.Replace(with("controlPlaneEndpoint: a.example.org:6443"), "name: demo", "name: demo\ncontrolPlaneEndpoint: a.example.org", 1), nil},
		"another domain":    {strings.Replace(with("networking: {dnsDomain: b}"), "name: demo", "name: demo\nnetwork: {dnsDomain: a}", 1), []string{"f:14:25: networking.dnsDomain: says something else than network.dnsDomain at f:4:22"}},
		"another subnet":    {strings.Replace(with("networking: {podSubnet: 10.1.0.0/16}"), "name: demo", "name: demo\nnetwork: {podSubnets: [10.2.0.0/16]}", 1), []string{"f:14:25: networking.podSubnet: says something else than network.podSubnets at f:4:11"}},
		"another algorithm": {strings.Replace(with("encryptionAlgorithm: RSA-3072"), "name: demo", "name: demo\nencryptionAlgorithm: RSA-2048", 1), []string{"encryptionAlgorithm: says something else"}},
		"no subnet":         {with("networking: {podSubnet: 10.1.0.0}"), []string{`f:13:25: networking.podSubnet: "10.1.0.0" is not an address with a prefix length`}},
		"small subnet":      {with("networking: {podSubnet: 10.1.0.0/25}"), []string{"f:13:25: networking.podSubnet: 10.1.0.0/25 is too small"}},
		"mask size":         {with("networking: {podSubnet: 10.1.0.0/25}", "controllerManager: {extraArgs: [{name: node-cidr-mask-size, value: '26'}]}"), nil},
		"overlap":           {with("networking: {serviceSubnet: 10.244.0.0/16}"), []string{"f:13:29: networking.serviceSubnet: 10.244.0.0/16 overlaps with pod subnet 10.244.0.0/16"}},
		"SAN":               {with("apiServer: {certSANs: [a b]}"), []string{`f:13:24: apiServer.certSANs[0]: "a b" is neither`}},

		"external etcd": {with("etcd: {external: {endpoints: [https://a:2379], caFile: /etc/e/ca.crt, certFile: /etc/e/c.crt, keyFile: /etc/e/c.key}}"), nil},
		"no endpoints":  {with("etcd: {external: {endpoints: [], caFile: '', certFile: '', keyFile: ''}}"), []string{"etcd.external: an external etcd has no endpoints"}},
		"two etcds":     {with("etcd: {local: {dataDir: /var/lib/etcd}, external: {endpoints: [http://a:2379], caFile: '', certFile: '', keyFile: ''}}"), []string{"etcd.external: etcd is either local or external"}},
		"etcd without TLS": {with("etcd: {external: {endpoints: [http://a:2379, a:2379], caFile: e/ca.crt, certFile: /etc/e/c.crt, keyFile: ''}}"),
			[]string{"etcd.external: a client certificate is no use without its key", `endpoints[0]: with caFile and certFile "http://a:2379" must be reached with TLS`, `endpoints[1]: "a:2379" is not the URL`, `caFile: "e/ca.crt" is not an absolute path`}},
		"etcd SAN":        {with("etcd: {local: {serverCertSANs: [a b], peerCertSANs: ['']}}"), []string{"etcd.local.serverCertSANs[0]", "etcd.local.peerCertSANs[0]"}},
		"etcd tag":        {with("etcd: {local: {imageTag: 3.6.0}}"), []string{"f:13:26: etcd.local.imageTag: the image is baked in"}},
		"etcd flag":       {with("etcd: {local: {extraArgs: [{name: data-dir, value: /x}]}}"), []string{"--data-dir cannot be set here; set etcd.local.dataDir"}},
		"repository":      {with("imageRepository: example.org"), []string{"f:13:18: imageRepository: nodes pull nothing: their images are baked in under the names of registry.k8s.io"}},
		"own repository":  {with("imageRepository: registry.k8s.io", "dns: {imageRepository: registry.k8s.io}"), nil},
		"DNS image":       {with("dns: {imageRepository: example.org/coredns}"), []string{"dns.imageRepository: nodes pull nothing"}},
		"gate":            {with("featureGates: {PublicKeysECDSA: true}"), []string{`f:13:16: featureGates.PublicKeysECDSA: "PublicKeysECDSA" is not a feature gate of kubeadm; set encryptionAlgorithm: ECDSA-P256`}},
		"rootless":        {with("featureGates: {RootlessControlPlane: true}"), []string{"f:13:38: featureGates.RootlessControlPlane: Kiln's nodes do not have the users"}},
		"rootless off":    {with("featureGates: {RootlessControlPlane: false}"), nil},
		"relative folder": {with("certificatesDir: pki"), []string{`certificatesDir: "pki" is not an absolute path`}},
		"folder in usr":   {with("certificatesDir: /usr/pki"), []string{"certificatesDir: /usr/pki is read-only"}},
		"shared folder":   {with("certificatesDir: /etc/kubernetes"), []string{"certificatesDir: /etc/kubernetes does not belong to it alone"}},
		"folder in etcd":  {with("certificatesDir: /var/lib/etcd/pki"), []string{"certificatesDir: /var/lib/etcd/pki and etcd's /var/lib/etcd lie one in the other"}},
		"etcd's folder":   {with("etcd: {local: {dataDir: /var/lib/kubelet/etcd}}"), []string{"etcd.local.dataDir: /var/lib/kubelet/etcd does not belong"}},
		"no life":         {with("certificateValidityPeriod: 0s"), []string{"a certificate's life of 0s is none"}},
		"no CA life":      {with("caCertificateValidityPeriod: -1h"), []string{"a CA's life of -1h0m0s is none"}},
		"outlives the CA": {with("certificateValidityPeriod: 2h", "caCertificateValidityPeriod: 1h"), []string{"f:13:28: certificateValidityPeriod: certificates live 2h0m0s, but their CA 1h0m0s"}},

		"flag without name": {with("apiServer: {extraArgs: [{value: x}]}"), []string{"apiServer.extraArgs[0].name: is missing"}},
		"flag with dashes":  {with("apiServer: {extraArgs: [{name: --v, value: '4'}]}"), []string{`f:13:32: apiServer.extraArgs[0].name: "--v" begins with a dash; did you mean v?`}},
		"number for a flag": {with("apiServer: {extraArgs: [{name: v, value: 4}]}"), []string{`apiServer.extraArgs[0].value: is a number, not text; put it in quotes: "4"`}},
		"owned flag":        {with("apiServer: {extraArgs: [{name: secure-port, value: '443'}]}"), []string{"--secure-port cannot be set here; set localAPIEndpoint.bindPort"}},
		"volume":            {with("scheduler: {extraVolumes: [{name: A, hostPath: x, pathType: Dir}, {name: a, hostPath: /x, mountPath: /x}, {name: a, hostPath: /y, mountPath: /y}]}"), []string{"extraVolumes[0].mountPath: is missing", `"A" is not a volume name`, `"x" is not absolute`, `"Dir" is not a known type of path`, "name a is there twice"}},
		"variable":          {with("controllerManager: {extraEnvs: [{name: 'A=B'}]}"), []string{`"A=B" is not the name of a variable`}},

		"kubelet key":      {kubelet("maxPod: 1"), []string{`f:13:1: maxPod: unknown key "maxPod"; did you mean maxPods?`}},
		"kubelet type":     {kubelet("maxPods: many"), []string{"f:13:10: maxPods: is text, not a whole number"}},
		"kubelet range":    {kubelet("maxPods: 9999999999"), []string{"9999999999 is not a number that fits here"}},
		"kubelet duration": {kubelet("syncFrequency: soon"), []string{`f:13:16: syncFrequency: "soon" is not a duration`}},
		"kubelet fixed":    {kubelet("staticPodPath: /x\ncgroupDriver: cgroupfs\nrotateCertificates: false\nauthentication: {x509: {clientCAFile: /x}}\ncontainerRuntimeEndpoint: unix:///x"), []string{"f:13:16: staticPodPath", "f:14:15: cgroupDriver: containerd is set up for systemd's cgroups; want systemd", "rotateCertificates", "clientCAFile", "containerRuntimeEndpoint"}},
		"kubelet domain":   {kubelet("clusterDomain: other"), []string{"f:13:16: clusterDomain: other says something else than the cluster's network.dnsDomain, which is cluster.local by default"}},
		"kubelet DNS":      {kubelet("clusterDNS: [dns]"), []string{`f:13:14: clusterDNS[0]: "dns" is not an IP address`}},
		"kubelet rich":     {kubelet("evictionHard: {memory.available: 5%}\nregisterWithTaints: [{key: a, effect: NoSchedule}]\nlogging: {format: json, flushFrequency: 5s}\nfeatureGates: {X: true}\nmemorySwap: {}\nshutdownGracePeriod: 30s\nreservedMemory: [{numaNode: 0, limits: {memory: 1Gi}}]"), nil},
		"proxy mode":       {proxy("mode: ipvs"), []string{"f:13:7: mode: nodes do not have what the mode ipvs needs"}},
		"proxy typo":       {proxy("mode: nftable"), []string{"did you mean nftables?"}},
		"proxy CIDR":       {proxy("clusterCIDR: 10.0.0.0/8"), []string{"f:13:14: clusterCIDR: 10.0.0.0/8 says something else than the cluster's network.podSubnets, which is 10.244.0.0/16 by default"}},
		"proxy rich":       {proxy("clientConnection: {qps: 5.5, burst: 10}\nconntrack: {maxPerCore: 1, tcpCloseWaitTimeout: 1h0m0s}\nnftables: {syncPeriod: 30s}"), nil},
		"proxy unused":     {proxy("mode: iptables") + "---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nproxy: {disabled: true}\n", []string{"f:12:7: kind: kube-proxy has a configuration, but ClusterConfiguration disables it"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, list := Parse("f", []byte(tc.text), known)
			if len(list) != len(tc.want) {
				t.Fatalf("%d mistakes, want %d:\n%v", len(list), len(tc.want), list)
			}
			all := list.Error()
			for _, w := range tc.want {
				if !strings.Contains(all, w) {
					t.Errorf("no mistake\n%s\namong\n%s", w, all)
				}
			}
		})
	}
}

func TestDocumentsAreMerged(t *testing.T) {
	c, list := Parse("f", []byte(strings.Replace(with(
		"clusterName: demo",
		"kubernetesVersion: v1.37.2",
		"controlPlaneEndpoint: api.example.org",
		"encryptionAlgorithm: ECDSA-P384",
		"networking: {podSubnet: '10.1.0.0/16,fd00:1::/56', serviceSubnet: '10.2.0.0/16,fd00:2::/112', dnsDomain: example}",
		"apiServer: {certSANs: [b.example.org, a.example.org], extraArgs: [{name: v, value: '4'}]}",
		"certificateValidityPeriod: 24h",
	), "name: demo", "name: demo\ncertSANs: [a.example.org]", 1)+"---\nkind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\nmaxPods: 9007199254740\n"), known)
	if len(list) != 1 { // the number is too large
		t.Fatal(list)
	}
	if fmt.Sprint(c.Network.PodSubnets, c.Network.ServiceSubnets) != "[10.1.0.0/16 fd00:1::/56] [10.2.0.0/16 fd00:2::/112]" || c.Network.DNSDomain != "example" {
		t.Errorf("network %+v", c.Network)
	}
	if e, err := c.Endpoint(); e != "api.example.org:6443" || err != nil || c.EncryptionAlgorithm != "ECDSA-P384" {
		t.Errorf("%s %v %s", e, err, c.EncryptionAlgorithm)
	}
	if fmt.Sprint(c.CertSANs) != "[a.example.org b.example.org]" {
		t.Errorf("SANs %v", c.CertSANs)
	}
	k := c.Kubeadm
	if k.ClusterName+k.KubernetesVersion+k.ControlPlaneEndpoint+k.Networking.PodSubnet+k.Kind != "" || k.APIServer.CertSANs != nil {
		t.Errorf("said twice: %+v", k)
	}
	if len(k.APIServer.ExtraArgs) != 1 || k.CertificateValidityPeriod.Duration != 24*time.Hour {
		t.Errorf("%+v", k)
	}
}

// The name may stand in the ClusterConfiguration alone.
func TestNameFromClusterConfiguration(t *testing.T) {
	c, list := Parse("f", []byte(strings.Replace(with("clusterName: edge"), "name: demo\n", "", 1)), known)
	if len(list) > 0 || c.Name != "edge" {
		t.Errorf("%q %v", c.Name, list)
	}
}
