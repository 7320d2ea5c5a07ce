package staticpod

import (
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/internal/nodeconfig"
)

// Arg is one command-line flag.
type Arg = kubeadmapi.Arg

// leaderElectionArgs are Kiln's extra flags of kube-controller-manager and
// kube-scheduler. With the defaults (15 s lease, 10 s to renew, 2 s between
// tries) both lose their lease, and restart, when a slow machine is busy with its
// first boot. A single control plane has no other instance that could take over,
// so a short lease only costs.
func leaderElectionArgs() []Arg {
	return []Arg{
		{Name: "leader-elect-lease-duration", Value: "60s"},
		{Name: "leader-elect-renew-deadline", Value: "45s"},
		{Name: "leader-elect-retry-period", Value: "10s"},
	}
}

// ExtraArgs are the flags of a component besides kubeadm's: Kiln's own, without
// those that the user's configuration sets too, and the user's in their order. They
// stand in the uploaded ClusterConfiguration, so that kubeadm upgrade renders the
// same manifests.
func ExtraArgs(cfg nodeconfig.Config, component string) []Arg {
	c := cfg.Plan.Cluster
	var own, user []Arg
	switch component {
	case APIServer:
		user = c.Kubeadm.APIServer.ExtraArgs
	case ControllerManager:
		own, user = leaderElectionArgs(), c.Kubeadm.ControllerManager.ExtraArgs
	case Scheduler:
		own, user = leaderElectionArgs(), c.Kubeadm.Scheduler.ExtraArgs
	case Etcd:
		user = c.LocalEtcd().ExtraArgs
	}
	if cfg.FromCluster {
		own = nil // they are in the configuration if the cluster has them
	}
	var out []Arg
	for _, a := range own {
		if _, replaced := kubeadmapi.ArgValue(user, a.Name); !replaced {
			out = append(out, a)
		}
	}
	return append(out, user...)
}

// ExtraEnvs are the variables of a component: Kiln's own, without those that the
// user's configuration sets too, and the user's. They stand in the uploaded
// ClusterConfiguration too.
func ExtraEnvs(cfg nodeconfig.Config, component string) []corev1.EnvVar {
	c := cfg.Plan.Cluster
	var own, user []corev1.EnvVar
	switch component {
	case APIServer:
		own, user = collectorEnvs(), c.Kubeadm.APIServer.ExtraEnvs
	case ControllerManager:
		own, user = collectorEnvs(), c.Kubeadm.ControllerManager.ExtraEnvs
	case Scheduler:
		own, user = collectorEnvs(), c.Kubeadm.Scheduler.ExtraEnvs
	case Etcd:
		own, user = etcdExtraEnvs(runtime.GOARCH), c.LocalEtcd().ExtraEnvs
	}
	if cfg.FromCluster && component != Etcd { // etcd's are the node's own
		own = nil
	}
	user = defaulted(user)
	var out []corev1.EnvVar
	for _, e := range own {
		if !slices.ContainsFunc(user, func(u corev1.EnvVar) bool { return u.Name == e.Name }) {
			out = append(out, e)
		}
	}
	return append(out, user...)
}

// defaulted sets what the API server's defaulting, which kubeadm applies to its own
// configuration, sets in variables.
func defaulted(envs []corev1.EnvVar) []corev1.EnvVar {
	out := slices.Clone(envs)
	for i, e := range out {
		if e.ValueFrom != nil && e.ValueFrom.FieldRef != nil && e.ValueFrom.FieldRef.APIVersion == "" {
			out[i] = *e.DeepCopy()
			out[i].ValueFrom.FieldRef.APIVersion = "v1"
		}
	}
	return out
}

// collectorEnvs are Kiln's own variables of the control plane's components: Go's
// collector runs when the heap has grown by half, not to twice its size
// (pkg.go.dev/runtime). Most of what they hold is garbage, so that costs little.
func collectorEnvs() []corev1.EnvVar {
	return []corev1.EnvVar{{Name: "GOGC", Value: "50"}}
}

// etcdExtraEnvs are Kiln's own variables of etcd: it refuses to start on
// architectures it does not test unless told so.
func etcdExtraEnvs(goarch string) []corev1.EnvVar {
	switch goarch {
	case "amd64", "arm64", "ppc64le", "s390x":
		return nil
	}
	return []corev1.EnvVar{{Name: "ETCD_UNSUPPORTED_ARCH", Value: goarch}}
}

// environment is what a container gets of extra variables, as kubeadm makes it:
// sorted by name, of two with the same name the later one.
func environment(envs []corev1.EnvVar) []corev1.EnvVar {
	var out []corev1.EnvVar
	for _, e := range envs {
		out = slices.DeleteFunc(out, func(o corev1.EnvVar) bool { return o.Name == e.Name })
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b corev1.EnvVar) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// bindHost is where the probes of a component find it: on its bind-address, or on
// the pod's own if it listens everywhere.
func bindHost(cfg nodeconfig.Config, component string) string {
	switch addr, ok := kubeadmapi.ArgValue(ExtraArgs(cfg, component), "bind-address"); {
	case !ok:
		return "127.0.0.1"
	case addr == "0.0.0.0" || addr == "::":
		return ""
	default:
		return addr
	}
}

// etcdProbe is where the probes of etcd find it: the first of listen-metrics-urls.
func etcdProbe(cfg nodeconfig.Config) (host string, port int32, scheme corev1.URIScheme) {
	host, port, scheme = loopback(cfg), etcdMetricsPort, corev1.URISchemeHTTP
	urls, ok := kubeadmapi.ArgValue(ExtraArgs(cfg, Etcd), "listen-metrics-urls")
	if !ok {
		return host, port, scheme
	}
	first, _, _ := strings.Cut(urls, ",")
	u, err := url.Parse(first)
	if err != nil {
		return host, port, scheme
	}
	if u.Scheme == "https" {
		scheme = corev1.URISchemeHTTPS
	}
	if u.Hostname() != "" {
		host = u.Hostname()
	}
	if p, err := strconv.ParseUint(u.Port(), 10, 16); err == nil && p > 0 {
		port = int32(p)
	}
	return host, port, scheme
}
