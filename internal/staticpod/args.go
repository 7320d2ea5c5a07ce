package staticpod

import (
	"path"
	"sort"
	"strconv"
	"strings"

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
	etcd := kubeadmapi.ExternalEtcd{CAFile: pki("etcd/ca.crt"), CertFile: pki("apiserver-etcd-client.crt"), KeyFile: pki("apiserver-etcd-client.key")}
	if external := cfg.Plan.Cluster.ExternalEtcd(); external != nil {
		etcd, etcdServers = *external, strings.Join(external.Endpoints, ",")
	}
	args := []Arg{
		{Name: "advertise-address", Value: cfg.AdvertiseAddress.String()},
		{Name: "allow-privileged", Value: "true"},
		{Name: "client-ca-file", Value: pki("ca.crt")},
		{Name: "enable-admission-plugins", Value: "NodeRestriction"},
		{Name: "enable-bootstrap-token-auth", Value: "true"},
		{Name: "etcd-servers", Value: etcdServers},
		{Name: "kubelet-client-certificate", Value: pki("apiserver-kubelet-client.crt")},
		{Name: "kubelet-client-key", Value: pki("apiserver-kubelet-client.key")},
		{Name: "kubelet-preferred-address-types", Value: "InternalIP,ExternalIP,Hostname"},
		{Name: "proxy-client-cert-file", Value: pki("front-proxy-client.crt")},
		{Name: "proxy-client-key-file", Value: pki("front-proxy-client.key")},
		{Name: "requestheader-allowed-names", Value: "front-proxy-client"},
		{Name: "requestheader-client-ca-file", Value: pki("front-proxy-ca.crt")},
		{Name: "requestheader-extra-headers-prefix", Value: "X-Remote-Extra-"},
		{Name: "requestheader-group-headers", Value: "X-Remote-Group"},
		{Name: "requestheader-username-headers", Value: "X-Remote-User"},
		{Name: "secure-port", Value: strconv.Itoa(cfg.Plan.Node.Port())},
		{Name: "service-account-issuer", Value: "https://kubernetes.default.svc." + cfg.Plan.Cluster.DNSDomain},
		{Name: "service-account-key-file", Value: pki("sa.pub")},
		{Name: "service-account-signing-key-file", Value: pki("sa.key")},
		{Name: "service-cluster-ip-range", Value: strings.Join(cfg.Plan.Cluster.ServiceSubnets, ",")},
		{Name: "tls-cert-file", Value: pki("apiserver.crt")},
		{Name: "tls-private-key-file", Value: pki("apiserver.key")},
	}
	if etcd.CAFile != "" {
		args = append(args, Arg{Name: "etcd-cafile", Value: etcd.CAFile})
	}
	if etcd.CertFile != "" && etcd.KeyFile != "" {
		args = append(args, Arg{Name: "etcd-certfile", Value: etcd.CertFile}, Arg{Name: "etcd-keyfile", Value: etcd.KeyFile})
	}
	// The API server takes a file with the modes, or the modes.
	if _, structured := kubeadmapi.ArgValue(ExtraArgs(cfg, APIServer), "authorization-config"); !structured {
		args = append(args, Arg{Name: "authorization-mode", Value: "Node,RBAC"})
	}
	return args
}

// controllerManagerArgs: without the key of the cluster's CA the controller manager
// signs nothing.
func controllerManagerArgs(cfg nodeconfig.Config, externalCA bool) []Arg {
	pki := pkiOf(cfg)
	signingCert, signingKey := pki("ca.crt"), pki("ca.key")
	if externalCA {
		signingCert, signingKey = "", ""
	}
	conf := path.Join(confDir, "controller-manager.conf")
	args := []Arg{
		{Name: "authentication-kubeconfig", Value: conf},
		{Name: "authorization-kubeconfig", Value: conf},
		{Name: "bind-address", Value: "127.0.0.1"},
		{Name: "client-ca-file", Value: pki("ca.crt")},
		{Name: "cluster-name", Value: cfg.Plan.Cluster.Name},
		{Name: "cluster-signing-cert-file", Value: signingCert},
		{Name: "cluster-signing-key-file", Value: signingKey},
		// The last two are off by default; without them joining nodes find no signed
		// cluster-info, and expired tokens stay.
		{Name: "controllers", Value: "*,bootstrapsigner,tokencleaner"},
		{Name: "kubeconfig", Value: conf},
		{Name: "leader-elect", Value: "true"},
		{Name: "requestheader-client-ca-file", Value: pki("front-proxy-ca.crt")},
		{Name: "root-ca-file", Value: pki("ca.crt")},
		{Name: "service-account-private-key-file", Value: pki("sa.key")},
		{Name: "use-service-account-credentials", Value: "true"},
	}
	if pods := cfg.Plan.Cluster.PodSubnets; len(pods) > 0 {
		args = append(args,
			Arg{Name: "allocate-node-cidrs", Value: "true"},
			Arg{Name: "cluster-cidr", Value: strings.Join(pods, ",")},
			Arg{Name: "service-cluster-ip-range", Value: strings.Join(cfg.Plan.Cluster.ServiceSubnets, ",")})
	}
	return args
}

func schedulerArgs() []Arg {
	conf := path.Join(confDir, "scheduler.conf")
	return []Arg{
		{Name: "authentication-kubeconfig", Value: conf},
		{Name: "authorization-kubeconfig", Value: conf},
		{Name: "bind-address", Value: "127.0.0.1"},
		{Name: "kubeconfig", Value: conf},
		{Name: "leader-elect", Value: "true"},
	}
}

func etcdArgs(cfg nodeconfig.Config) []Arg {
	pki := pkiOf(cfg)
	adv, lo := cfg.AdvertiseAddress.String(), loopback(cfg)
	client, peer := etcdURL(adv, etcdClientPort), etcdURL(adv, etcdPeerPort)
	args := []Arg{
		{Name: "advertise-client-urls", Value: client},
		{Name: "cert-file", Value: pki("etcd/server.crt")},
		{Name: "client-cert-auth", Value: "true"},
		{Name: "data-dir", Value: cfg.Plan.Cluster.LocalEtcd().DataDir},
		{Name: "feature-gates", Value: "InitialCorruptCheck=true"},
		{Name: "initial-advertise-peer-urls", Value: peer},
		{Name: "initial-cluster", Value: cfg.NodeName + "=" + peer},
		{Name: "key-file", Value: pki("etcd/server.key")},
		{Name: "listen-client-urls", Value: etcdURL(lo, etcdClientPort) + "," + client},
		// Without TLS, on the loopback only: the kubelet's probes come here.
		{Name: "listen-metrics-urls", Value: "http://" + hostPort(lo, etcdMetricsPort)},
		{Name: "listen-peer-urls", Value: peer},
		{Name: "name", Value: cfg.NodeName},
		{Name: "peer-cert-file", Value: pki("etcd/peer.crt")},
		{Name: "peer-client-cert-auth", Value: "true"},
		{Name: "peer-key-file", Value: pki("etcd/peer.key")},
		{Name: "peer-trusted-ca-file", Value: pki("etcd/ca.crt")},
		{Name: "snapshot-count", Value: "10000"},
		{Name: "trusted-ca-file", Value: pki("etcd/ca.crt")},
		{Name: "watch-progress-notify-interval", Value: "5s"},
	}
	return append(args, quotaArgs(strconv.IntSize)...)
}

// quotaArgs bound etcd's database where kubeadm leaves it at etcd's own 2 GiB. bbolt maps
// the whole file, on a 32-bit processor at most 2 GiB less a byte, and panics beyond that:
// with less, etcd raises its alarm instead, and can be compacted.
func quotaArgs(wordBits int) []Arg {
	if wordBits > 32 {
		return nil
	}
	return []Arg{{Name: "quota-backend-bytes", Value: strconv.Itoa(3 << 29)}}
}
