package staticpod

import (
	"path"
	"sort"
	"strconv"
	"strings"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/internal/nodeconfig"
)

// Where things are on the node, whatever root firstboot itself works below.
const confDir = "/etc/kubernetes"

// pkiOf returns the function that names the files of the cluster's certificates.
func pkiOf(cfg nodeconfig.Config) func(name string) string {
	dir := cfg.Plan.Cluster.CertificatesDir()
	return func(name string) string { return path.Join(dir, name) }
}

// command renders flags as kubeadm does: the defaults sorted by name, without
// those that extra replaces, then extra in its own order.
func command(program string, defaults, extra []Arg) []string {
	replaced := map[string]bool{}
	for _, a := range extra {
		replaced[a.Name] = true
	}
	sorted := append([]Arg(nil), defaults...)
	sort.SliceStable(sorted, func(i, j int) bool { return sorted[i].Name < sorted[j].Name })
	out := []string{program}
	for _, a := range sorted {
		if !replaced[a.Name] {
			out = append(out, "--"+a.Name+"="+a.Value)
		}
	}
	for _, a := range extra {
		out = append(out, "--"+a.Name+"="+a.Value)
	}
	return out
}

// loopback is the loopback address of the advertise address's family.
func loopback(cfg nodeconfig.Config) string {
	if cfg.AdvertiseAddress.Is4() {
		return "127.0.0.1"
	}
	return "::1"
}

func apiServerArgs(cfg nodeconfig.Config) []Arg {
	pki := pkiOf(cfg)
	etcdServers := etcdURL(loopback(cfg), etcdClientPort)
	if urls, ok := kubeadmapi.ArgValue(ExtraArgs(cfg, Etcd), "advertise-client-urls"); ok {
		etcdServers = urls
	}
	args := []Arg{
		{"advertise-address", cfg.AdvertiseAddress.String()},
		{"allow-privileged", "true"},
		{"client-ca-file", pki("ca.crt")},
		{"enable-admission-plugins", "NodeRestriction"},
		{"enable-bootstrap-token-auth", "true"},
		{"etcd-cafile", pki("etcd/ca.crt")},
		{"etcd-certfile", pki("apiserver-etcd-client.crt")},
		{"etcd-keyfile", pki("apiserver-etcd-client.key")},
		{"etcd-servers", etcdServers},
		{"kubelet-client-certificate", pki("apiserver-kubelet-client.crt")},
		{"kubelet-client-key", pki("apiserver-kubelet-client.key")},
		{"kubelet-preferred-address-types", "InternalIP,ExternalIP,Hostname"},
		{"proxy-client-cert-file", pki("front-proxy-client.crt")},
		{"proxy-client-key-file", pki("front-proxy-client.key")},
		{"requestheader-allowed-names", "front-proxy-client"},
		{"requestheader-client-ca-file", pki("front-proxy-ca.crt")},
		{"requestheader-extra-headers-prefix", "X-Remote-Extra-"},
		{"requestheader-group-headers", "X-Remote-Group"},
		{"requestheader-username-headers", "X-Remote-User"},
		{"secure-port", strconv.Itoa(bootplan.DefaultAPIPort)},
		{"service-account-issuer", "https://kubernetes.default.svc." + cfg.Plan.Cluster.DNSDomain},
		{"service-account-key-file", pki("sa.pub")},
		{"service-account-signing-key-file", pki("sa.key")},
		{"service-cluster-ip-range", strings.Join(cfg.Plan.Cluster.ServiceSubnets, ",")},
		{"tls-cert-file", pki("apiserver.crt")},
		{"tls-private-key-file", pki("apiserver.key")},
	}
	// The API server takes a file with the modes, or the modes.
	if _, structured := kubeadmapi.ArgValue(ExtraArgs(cfg, APIServer), "authorization-config"); !structured {
		args = append(args, Arg{"authorization-mode", "Node,RBAC"})
	}
	return args
}

func controllerManagerArgs(cfg nodeconfig.Config) []Arg {
	pki := pkiOf(cfg)
	conf := path.Join(confDir, "controller-manager.conf")
	args := []Arg{
		{"authentication-kubeconfig", conf},
		{"authorization-kubeconfig", conf},
		{"bind-address", "127.0.0.1"},
		{"client-ca-file", pki("ca.crt")},
		{"cluster-name", cfg.Plan.Cluster.Name},
		{"cluster-signing-cert-file", pki("ca.crt")},
		{"cluster-signing-key-file", pki("ca.key")},
		// The last two are off by default; without them joining nodes find no signed
		// cluster-info, and expired tokens stay.
		{"controllers", "*,bootstrapsigner,tokencleaner"},
		{"kubeconfig", conf},
		{"leader-elect", "true"},
		{"requestheader-client-ca-file", pki("front-proxy-ca.crt")},
		{"root-ca-file", pki("ca.crt")},
		{"service-account-private-key-file", pki("sa.key")},
		{"use-service-account-credentials", "true"},
	}
	if pods := cfg.Plan.Cluster.PodSubnets; len(pods) > 0 {
		args = append(args,
			Arg{"allocate-node-cidrs", "true"},
			Arg{"cluster-cidr", strings.Join(pods, ",")},
			Arg{"service-cluster-ip-range", strings.Join(cfg.Plan.Cluster.ServiceSubnets, ",")})
	}
	return args
}

func schedulerArgs() []Arg {
	conf := path.Join(confDir, "scheduler.conf")
	return []Arg{
		{"authentication-kubeconfig", conf},
		{"authorization-kubeconfig", conf},
		{"bind-address", "127.0.0.1"},
		{"kubeconfig", conf},
		{"leader-elect", "true"},
	}
}

func etcdArgs(cfg nodeconfig.Config) []Arg {
	pki := pkiOf(cfg)
	adv, lo := cfg.AdvertiseAddress.String(), loopback(cfg)
	client, peer := etcdURL(adv, etcdClientPort), etcdURL(adv, etcdPeerPort)
	return []Arg{
		{"advertise-client-urls", client},
		{"cert-file", pki("etcd/server.crt")},
		{"client-cert-auth", "true"},
		{"data-dir", cfg.Plan.Cluster.LocalEtcd().DataDir},
		{"feature-gates", "InitialCorruptCheck=true"},
		{"initial-advertise-peer-urls", peer},
		{"initial-cluster", cfg.NodeName + "=" + peer},
		{"key-file", pki("etcd/server.key")},
		{"listen-client-urls", etcdURL(lo, etcdClientPort) + "," + client},
		// Without TLS, on the loopback only: the kubelet's probes come here.
		{"listen-metrics-urls", "http://" + hostPort(lo, etcdMetricsPort)},
		{"listen-peer-urls", peer},
		{"name", cfg.NodeName},
		{"peer-cert-file", pki("etcd/peer.crt")},
		{"peer-client-cert-auth", "true"},
		{"peer-key-file", pki("etcd/peer.key")},
		{"peer-trusted-ca-file", pki("etcd/ca.crt")},
		{"snapshot-count", "10000"},
		{"trusted-ca-file", pki("etcd/ca.crt")},
		{"watch-progress-notify-interval", "5s"},
	}
}
