// Package kubeletconfig builds the kubelet's configuration as kubeadm 1.37 does
// (cmd/kubeadm/app/componentconfigs/kubelet.go): once for the cluster, for the
// ConfigMap kube-system/kubelet-config, and once for this node, for
// /var/lib/kubelet/config.yaml.
package kubeletconfig

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"sort"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/nodelabels"
	"github.com/kiln-os/kiln/internal/patches"
)

// CRISocket is the endpoint of containerd's Container Runtime Interface.
const CRISocket = "unix:///var/run/containerd/containerd.sock"

// HealthzPort is where the kubelet answers /healthz on 127.0.0.1.
const HealthzPort = 10248

// staticPodPath stands in the document. It is that of the running node, not of a
// test's root: the kubelet reads it, firstboot does not.
const staticPodPath = "/etc/kubernetes/manifests"

// ForCluster returns the settings that all kubelets share: the user's, completed
// with kubeadm's defaults. Nothing of this node is in it: it is what kubeadm join
// downloads.
func ForCluster(cfg nodeconfig.Config) (*kubeletv1beta1.KubeletConfiguration, error) {
	dns, err := cfg.DNSServiceIP()
	if err != nil {
		return nil, fmt.Errorf("kubelet configuration: cluster DNS address: %w", err)
	}
	kc := &kubeletv1beta1.KubeletConfiguration{}
	if err := nodeconfig.DecodeComponent(cfg.Plan.Cluster.Kubelet, kc); err != nil {
		return nil, fmt.Errorf("kubelet configuration: %w", err)
	}
	kc.TypeMeta = metav1.TypeMeta{APIVersion: kubeletv1beta1.SchemeGroupVersion.String(), Kind: "KubeletConfiguration"}
	kc.StaticPodPath = cmp.Or(kc.StaticPodPath, staticPodPath)
	if kc.ClusterDNS == nil {
		kc.ClusterDNS = []string{dns.String()}
	}
	kc.ClusterDomain = cmp.Or(kc.ClusterDomain, cfg.Plan.Cluster.DNSDomain)
	auth := &kc.Authentication
	auth.X509.ClientCAFile = cmp.Or(auth.X509.ClientCAFile, path.Join(cfg.Plan.Cluster.CertificatesDir(), "ca.crt"))
	setDefault(&auth.Anonymous.Enabled, false)
	setDefault(&auth.Webhook.Enabled, true)
	kc.Authorization.Mode = cmp.Or(kc.Authorization.Mode, kubeletv1beta1.KubeletAuthorizationModeWebhook)
	kc.HealthzBindAddress = cmp.Or(kc.HealthzBindAddress, "127.0.0.1")
	setDefault(&kc.HealthzPort, int32(HealthzPort))
	kc.RotateCertificates = true
	kc.CgroupDriver = cmp.Or(kc.CgroupDriver, "systemd")
	return kc, nil
}

// setDefault sets what the user left open.
func setDefault[T any](p **T, v T) {
	if *p == nil {
		*p = &v
	}
}

// ForNode returns ForCluster with what only this node knows: its resolver file, that it
// swaps, its patches and, after those, its container runtime's socket.
func ForNode(cfg nodeconfig.Config) (*kubeletv1beta1.KubeletConfiguration, error) {
	kc, err := ForCluster(cfg)
	if err != nil {
		return nil, err
	}
	if cfg.ResolvConf != "" && kc.ResolverConfig == nil {
		kc.ResolverConfig = &cfg.ResolvConf
	}
	if cfg.Plan.Node.Zram {
		setDefault(&kc.FailSwapOn, false)
		// It is the kubelet's default; said, it stands where people look.
		kc.MemorySwap.SwapBehavior = cmp.Or(kc.MemorySwap.SwapBehavior, "NoSwap")
	}
	if err := patches.Apply(cfg.Plan.Node.Patches, patches.KubeletConfiguration, kc); err != nil {
		return nil, fmt.Errorf("kubelet configuration: %w", err)
	}
	if refuses := kc.FailSwapOn; cfg.Plan.Node.Zram && (refuses == nil || *refuses) {
		return nil, errors.New("kubelet configuration: with failSwapOn: true the kubelet does not start here, as this machine swaps to a part of its memory (zram); " +
			"want failSwapOn: false in the cluster's ConfigMap kube-system/kubelet-config, or in a patch " + patches.KubeletConfiguration + " of this node; or true in such a patch, with which it gets an image that does not swap")
	}
	kc.ContainerRuntimeEndpoint = CRISocket
	return kc, nil
}

// Marshal renders the configuration as YAML. Same input, same bytes.
func Marshal(kc *kubeletv1beta1.KubeletConfiguration) ([]byte, error) {
	out, err := yaml.Marshal(kc)
	if err != nil {
		return nil, fmt.Errorf("kubelet configuration: %w", err)
	}
	return out, nil
}

// InstanceConfig renders /var/lib/kubelet/instance-config.yaml, where kubeadm
// looks for the node's container runtime socket. kubeadm upgrade makes config.yaml anew,
// out of the cluster's configuration and this file: so what a node that swaps needs to
// start is in it, too, and nothing else, as it precedes what the cluster says.
func InstanceConfig(cfg nodeconfig.Config) []byte {
	out := "containerRuntimeEndpoint: " + strconv.Quote(CRISocket) + "\n"
	if cfg.Plan.Node.Zram {
		out += "failSwapOn: false\n"
	}
	return []byte(out)
}

// Flags renders /var/lib/kubelet/kubeadm-flags.env: the flags that kubeadm gives
// the kubelet, and the node's labels as far as a kubelet may set them itself
// (see Labels). A worker's taints are among them, a control plane's are not:
// kubeadm sets those through the API once the node exists.
//
// The user's flags come last, in their order, and replace those of the same names.
func Flags(cfg nodeconfig.Config) ([]byte, error) {
	var defaults []kubeadmapi.Arg
	if taints := cfg.Plan.Node.Taints; cfg.Plan.Role == bootplan.RoleJoinWorker && len(taints) > 0 {
		// No pod is to come before them, and nobody else sets them on a worker.
		var texts []string
		for _, t := range taints {
			texts = append(texts, t.Key+"="+t.Value+":"+t.Effect)
		}
		defaults = append(defaults, kubeadmapi.Arg{Name: "register-with-taints", Value: strings.Join(texts, ",")})
	}
	if cfg.NodeName != cfg.Hostname {
		defaults = append(defaults, kubeadmapi.Arg{Name: "hostname-override", Value: cfg.NodeName})
	}
	if len(cfg.NodeIPs) > 0 {
		var ips []string
		for _, a := range cfg.NodeIPs {
			ips = append(ips, a.String())
		}
		defaults = append(defaults, kubeadmapi.Arg{Name: "node-ip", Value: strings.Join(ips, ",")})
	}
	if cfg.Plan.Cluster.VirtualIP != "" && len(cfg.NodeIPs) == 0 && cfg.Plan.Role != bootplan.RoleJoinWorker {
		// Left to itself the kubelet takes one of the host's addresses, and one of the
		// control planes has the virtual IP too.
		defaults = append(defaults, kubeadmapi.Arg{Name: "node-ip", Value: cfg.AdvertiseAddress.String()})
	}
	var pairs []string
	for k, v := range Labels(cfg) {
		if e := append(validation.IsQualifiedName(k), validation.IsValidLabelValue(v)...); len(e) > 0 {
			return nil, fmt.Errorf("node label %q=%q: %s", k, v, strings.Join(e, "; "))
		}
		pairs = append(pairs, k+"="+v)
	}
	if len(pairs) > 0 {
		sort.Strings(pairs)
		defaults = append(defaults, kubeadmapi.Arg{Name: "node-labels", Value: strings.Join(pairs, ",")})
	}
	sort.SliceStable(defaults, func(i, j int) bool { return defaults[i].Name < defaults[j].Name })
	extra := cfg.Plan.Node.KubeletExtraArgs
	var args []string
	for _, a := range defaults {
		if _, replaced := kubeadmapi.ArgValue(extra, a.Name); !replaced {
			args = append(args, "--"+a.Name+"="+a.Value)
		}
	}
	for _, a := range extra {
		args = append(args, "--"+a.Name+"="+a.Value)
	}
	return []byte("KUBELET_KUBEADM_ARGS=" + strconv.Quote(strings.Join(args, " ")) + "\n"), nil
}

// Labels are those that the kubelet gives its own Node: the user's as far as it may set
// them (see SplitLabels), and which pod network the node has brought.
func Labels(cfg nodeconfig.Config) map[string]string {
	own, _ := SplitLabels(cfg.Plan.Node.Labels)
	if _, set := own[nodelabels.PodNetwork]; !set && cfg.Plan.Cluster.PodNetwork == "flannel" {
		own[nodelabels.PodNetwork] = cfg.Plan.Cluster.PodNetwork
	}
	return own
}

// SplitLabels divides a node's labels into those that a kubelet may set on its
// own Node and those that an administrator must set through the API: keys of
// kubernetes.io and k8s.io that are not on the kubelet's list. With one of those
// in --node-labels the kubelet refuses to start, and the admission plugin
// NodeRestriction refuses node-restriction.kubernetes.io in any case.
func SplitLabels(labels map[string]string) (kubelet, admin map[string]string) {
	kubelet, admin = map[string]string{}, map[string]string{}
	for k, v := range labels {
		if nodelabels.NeedsAdmin(k) {
			admin[k] = v
		} else {
			kubelet[k] = v
		}
	}
	return kubelet, admin
}
