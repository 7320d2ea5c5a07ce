package staticpod

import (
	"runtime"
)

// Arg is one command-line flag; kubeadm's ClusterConfiguration writes it as
// {name, value}.
type Arg struct{ Name, Value string }

// Env is an environment variable of a container.
type Env struct{ Name, Value string }

// LeaderElectionArgs are the extra flags of kube-controller-manager and
// kube-scheduler. With the defaults (15 s lease, 10 s to renew, 2 s between
// tries) both lose their lease, and restart, when a slow machine is busy with its
// first boot. A single control plane has no other instance that could take over,
// so a short lease only costs.
//
// They stand as extraArgs in the uploaded ClusterConfiguration too, so that
// kubeadm upgrade renders the same manifests.
func LeaderElectionArgs() []Arg {
	return []Arg{
		{"leader-elect-lease-duration", "60s"},
		{"leader-elect-renew-deadline", "45s"},
		{"leader-elect-retry-period", "10s"},
	}
}

// EtcdExtraEnvs are the extra variables of etcd on this machine's architecture:
// etcd refuses to start on architectures it does not test unless told so. They
// stand as etcd.local.extraEnvs in the uploaded ClusterConfiguration too.
func EtcdExtraEnvs() []Env { return etcdExtraEnvs(runtime.GOARCH) }

func etcdExtraEnvs(goarch string) []Env {
	switch goarch {
	case "amd64", "arm64", "ppc64le", "s390x":
		return nil
	}
	return []Env{{"ETCD_UNSUPPORTED_ARCH", goarch}}
}
