package spec

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	kubeproxyv1alpha1 "k8s.io/kube-proxy/config/v1alpha1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/kiln-os/kiln/internal/diag"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/pki"
)

// nodeMask is the prefix length of a node's share of the pod subnet: the flag of the
// controller manager, or its default.
func (c *Cluster) nodeMask(v6 bool) int {
	flag, mask := "node-cidr-mask-size-ipv4", 24
	if v6 {
		flag, mask = "node-cidr-mask-size-ipv6", 64
	}
	for _, f := range []string{"node-cidr-mask-size", flag} {
		if f == "node-cidr-mask-size" && len(c.Network.PodSubnets) > 1 {
			continue // the controller manager refuses it with two subnets
		}
		if text, ok := kubeadmapi.ArgValue(c.Kubeadm.ControllerManager.ExtraArgs, f); ok {
			if n, err := strconv.Atoi(text); err == nil && n > 0 && n <= 128 {
				mask = n
			}
		}
	}
	return mask
}

// ownedFlags are flags that have a setting of their own, or that Kiln relies on.
var ownedFlags = map[string]map[string]string{
	"apiServer": {
		"secure-port":              "set localAPIEndpoint.bindPort of an InitConfiguration; for another port outside, set controlPlaneEndpoint",
		"advertise-address":        "set nodes[].address in the document of kind Cluster",
		"bind-address":             "firstboot reaches the API server at the node's own address, and a load balancer may be elsewhere",
		"service-cluster-ip-range": "set networking.serviceSubnet",
		"etcd-servers":             "Kiln runs etcd on the control-plane nodes",
	},
	"controllerManager": {
		"cluster-cidr":             "set networking.podSubnet",
		"service-cluster-ip-range": "set networking.serviceSubnet",
		"cluster-name":             "set name in the document of kind Cluster",
		"secure-port":              "firstboot and the probes of its pod reach it at port 10257",
	},
	"scheduler": {
		"secure-port": "firstboot and the probes of its pod reach it at port 10259",
	},
	"etcd.local": {
		"data-dir":                    "set etcd.local.dataDir",
		"name":                        "it is the node's name",
		"initial-cluster":             "firstboot knows the members",
		"initial-cluster-state":       "firstboot knows the members",
		"listen-peer-urls":            "members reach each other at the nodes' addresses and port 2380",
		"initial-advertise-peer-urls": "members reach each other at the nodes' addresses and port 2380",
	},
}

// clusterConfiguration checks what kubeadm's document sets besides what the cluster
// file could say too.
func (v *validator) clusterConfiguration(k kubeadmapi.ClusterConfiguration) {
	at := func(steps ...any) diag.Path { return steps }
	for i, s := range k.APIServer.CertSANs {
		v.host(at("apiServer", "certSANs", i), s, true)
	}
	v.component(at("apiServer"), k.APIServer.ControlPlaneComponent)
	v.component(at("controllerManager"), k.ControllerManager)
	v.component(at("scheduler"), k.Scheduler)
	if e := k.Etcd.External; e != nil {
		if k.Etcd.Local != nil {
			v.bad(at("etcd", "external"), "want one of the two", "etcd is either local or external")
		}
		v.externalEtcd(at("etcd", "external"), *e)
	}
	if e := k.Etcd.Local; e != nil {
		p := at("etcd", "local")
		v.component(p, kubeadmapi.ControlPlaneComponent{ExtraArgs: e.ExtraArgs, ExtraEnvs: e.ExtraEnvs})
		for i, s := range e.ServerCertSANs {
			v.host(p.Child("serverCertSANs", i), s, true)
		}
		for i, s := range e.PeerCertSANs {
			v.host(p.Child("peerCertSANs", i), s, true)
		}
		v.folder(p.Child("dataDir"), e.DataDir, "/var/lib/etcd")
		v.image(p, e.ImageMeta)
	}
	v.image(at("dns"), k.DNS.ImageMeta)
	v.repository(at("imageRepository"), k.ImageRepository)
	v.folder(at("certificatesDir"), k.CertificatesDir, kubeadmapi.DefaultCertificatesDir)
	if a, b := k.CertificatesDir, v.c.localEtcdDir(); a != "" && overlap(a, b) {
		v.bad(at("certificatesDir"), "want a folder of its own", "%s and etcd's %s lie one in the other", a, b)
	}
	for name, on := range k.FeatureGates {
		switch q := at("featureGates", name); {
		case name != "RootlessControlPlane":
			want := "kubeadm 1.37 has RootlessControlPlane only; those of other components stand in their extraArgs or configurations"
			if hint := removedKeys[q.String()]; hint != "" {
				want = hint
			}
			v.badKey(q, want, "%q is not a feature gate of kubeadm", name)
		case on:
			v.bad(q, "remove it", "Kiln's nodes do not have the users that it needs")
		}
	}
	leaf, ca := pki.LeafValidity, pki.CAValidity
	if d := k.CACertificateValidityPeriod; d != nil {
		ca = d.Duration
		if ca <= 0 {
			v.bad(at("caCertificateValidityPeriod"), "such as 87600h", "a CA's life of %s is none", ca)
		}
	}
	if d := k.CertificateValidityPeriod; d != nil {
		leaf = d.Duration
		if leaf <= 0 {
			v.bad(at("certificateValidityPeriod"), "such as 8760h", "a certificate's life of %s is none", leaf)
		}
	}
	if leaf > ca && ca > 0 {
		p := at("certificateValidityPeriod")
		if !v.Doc.Has(p) {
			p = at("caCertificateValidityPeriod")
		}
		v.bad(p, "want certificates that live shorter than their CA", "certificates live %s, but their CA %s", leaf, ca)
	}
}

// component checks what is set for one component.
func (v *validator) component(p diag.Path, k kubeadmapi.ControlPlaneComponent) {
	for i, a := range k.ExtraArgs {
		q := p.Child("extraArgs", i, "name")
		if !v.required(q, "want a flag without its dashes, such as v") {
			continue
		}
		switch reason := ownedFlags[p.String()][a.Name]; {
		case strings.HasPrefix(a.Name, "-"):
			v.bad(q, "did you mean "+strings.TrimLeft(a.Name, "-")+"?", "%q begins with a dash", a.Name)
		case strings.ContainsAny(a.Name, "= \t\n"):
			v.bad(q, "want the flag's name; its value stands in value", "%q is not a flag", a.Name)
		case reason != "":
			v.bad(q, reason, "--%s cannot be set here", a.Name)
		}
	}
	names := map[string]bool{}
	for i, m := range k.ExtraVolumes {
		q := p.Child("extraVolumes", i)
		if n := q.Child("name"); v.required(n, "want a name, such as audit") {
			if len(validation.IsDNS1123Label(m.Name)) > 0 {
				v.bad(n, "want at most 63 of a-z, 0-9 and -", "%q is not a volume name", m.Name)
			} else if names[m.Name] {
				v.bad(n, "every volume needs its own", "name %s is there twice", m.Name)
			}
			names[m.Name] = true
		}
		for key, s := range map[string]string{"hostPath": m.HostPath, "mountPath": m.MountPath} {
			if n := q.Child(key); v.required(n, "want an absolute path") && !path.IsAbs(s) {
				v.bad(n, "want an absolute path", "%q is not absolute", s)
			}
		}
		types := []string{"DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"}
		if m.PathType != corev1.HostPathUnset {
			v.oneOf(q.Child("pathType"), string(m.PathType), types, "type of path")
		}
	}
	for i, e := range k.ExtraEnvs {
		q := p.Child("extraEnvs", i, "name")
		if v.required(q, "want the name of a variable") && len(validation.IsEnvVarName(e.Name)) > 0 {
			v.bad(q, "want letters, digits and _", "%q is not the name of a variable", e.Name)
		}
	}
}

// image refuses other images: those that are baked in are kubeadm's.
func (v *validator) image(p diag.Path, m kubeadmapi.ImageMeta) {
	v.repository(p.Child("imageRepository"), m.ImageRepository)
	if m.ImageTag != "" {
		v.bad(p.Child("imageTag"), "remove it", "the image is baked in with the tag that kubeadm of this Kubernetes version takes")
	}
}

func (v *validator) repository(p diag.Path, s string) {
	if s != "" && s != kubeadmapi.DefaultImageRepository {
		v.bad(p, "want "+kubeadmapi.DefaultImageRepository+", or remove it", "nodes pull nothing: their images are baked in under the names of %s", kubeadmapi.DefaultImageRepository)
	}
}

// taken are the folders of a node that have an owner; lost are those that nothing
// can be kept in, or nothing written to.
var (
	taken = []string{"/etc/kiln", "/etc/kubernetes/manifests", "/etc/systemd", "/etc/cni", "/etc/containerd", "/etc/ssh", "/var/lib/kubelet", "/var/lib/containerd", "/var/lib/kiln", "/var/lib/cni", "/var/log", "/root", "/opt/cni"}
	lost  = []string{"/usr", "/bin", "/sbin", "/lib", "/lib64", "/proc", "/sys", "/dev", "/run", "/tmp", "/var/run", "/var/tmp", "/boot"}
)

// folder checks a folder of a node that is to hold one thing alone.
func (v *validator) folder(p diag.Path, s, usual string) {
	want := "such as " + usual
	switch {
	case s == "":
		return
	case !path.IsAbs(s) || path.Clean(s) != s:
		v.bad(p, want, "%q is not an absolute path in its shortest form", s)
	case slices.ContainsFunc(lost, func(d string) bool { return overlap(s, d) }):
		v.bad(p, want, "%s is read-only on the nodes, or lost when they restart", s)
	case slices.ContainsFunc(taken, func(d string) bool { return overlap(s, d) }) || strings.Count(s, "/") < 2:
		v.bad(p, want, "%s does not belong to it alone", s)
	}
}

// overlap reports whether one of two clean paths is the other or lies below it.
func overlap(a, b string) bool {
	return a == b || strings.HasPrefix(a, strings.TrimSuffix(b, "/")+"/") || strings.HasPrefix(b, strings.TrimSuffix(a, "/")+"/")
}

func (c *Cluster) localEtcdDir() string {
	if e := c.Kubeadm.Etcd.Local; e != nil && e.DataDir != "" {
		return e.DataDir
	}
	return kubeadmapi.DefaultEtcdDataDir
}

// fixed reports a setting of a component that has another value than the one that
// Kiln's nodes need.
func (v *validator) fixed(p diag.Path, is, needed, reason string) {
	if v.Doc.Has(p) && is != needed {
		v.bad(p, "want "+needed+", or remove it", "%s", reason)
	}
}

func (v *validator) kubeletConfiguration(k *kubeletv1beta1.KubeletConfiguration) {
	at := func(steps ...any) diag.Path { return steps }
	v.fixed(at("staticPodPath"), k.StaticPodPath, "/etc/kubernetes/manifests", "the control plane's manifests are there")
	v.fixed(at("cgroupDriver"), k.CgroupDriver, "systemd", "containerd is set up for systemd's cgroups")
	v.fixed(at("containerRuntimeEndpoint"), k.ContainerRuntimeEndpoint, "unix:///var/run/containerd/containerd.sock", "Kiln's container runtime is containerd")
	v.fixed(at("rotateCertificates"), strconv.FormatBool(k.RotateCertificates), "true", "kubeadm always has the kubelet renew its certificate")
	dir := v.c.Kubeadm.CertificatesDir
	if dir == "" {
		dir = kubeadmapi.DefaultCertificatesDir
	}
	v.fixed(at("authentication", "x509", "clientCAFile"), k.Authentication.X509.ClientCAFile, path.Join(dir, "ca.crt"), "the cluster's CA is elsewhere")
	v.same(at("clusterDomain"), k.ClusterDomain, diag.Path{"network", "dnsDomain"}, v.c.Network.DNSDomain)
	for i, s := range k.ClusterDNS {
		if !isAddress(s) {
			v.bad(at("clusterDNS", i), "such as 169.254.20.10", "%q is not an IP address", s)
		}
	}
}

func (v *validator) kubeProxyConfiguration(k *kubeproxyv1alpha1.KubeProxyConfiguration) {
	at := func(steps ...any) diag.Path { return steps }
	if v.c.Kubeadm.Proxy.Disabled {
		v.List.Add(v.Doc.At(at("kind"), "kube-proxy has a configuration, but ClusterConfiguration disables it", "remove one of the two"))
	}
	switch k.Mode {
	case "", "iptables", "nftables":
	case "ipvs":
		v.bad(at("mode"), "want nftables, which does what ipvs is used for, or iptables", "nodes do not have what the mode ipvs needs, and Kubernetes is giving it up")
	default:
		v.oneOf(at("mode"), string(k.Mode), []string{"iptables", "nftables"}, "mode of kube-proxy on Linux")
	}
	v.fixed(at("clientConnection", "kubeconfig"), k.ClientConnection.Kubeconfig, "/var/lib/kube-proxy/kubeconfig.conf", "its kubeconfig is mounted there")
	v.same(at("clusterCIDR"), k.ClusterCIDR, diag.Path{"network", "podSubnets"}, joinPrefixes(v.c.Network.PodSubnets))
}

// same reports a setting of a component that says something else than the cluster's.
func (v *validator) same(p diag.Path, is string, other diag.Path, needed string) {
	if is != "" && is != needed {
		v.bad(p, "say it in one place, or remove it here", "%s says something else than the cluster's %s, which is %s%s", is, other, needed, v.origin(other))
	}
}

// origin is where a setting of the cluster stands, for a message about another place.
func (v *validator) origin(p diag.Path) string {
	at := v.cluster.place(p)
	if !at.Doc.Has(at.path) {
		return " by default"
	}
	m := at.Doc.At(at.path, "", "")
	return fmt.Sprintf(" at %s:%d:%d", m.File, m.Line, m.Column)
}
