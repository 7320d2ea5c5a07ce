package preflight

import (
	"context"
	"strings"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/internal/nodeconfig"
)

// severity says what a failed check means.
type severity int

const (
	fatal   severity = iota // the first boot does not go on
	warning                 // it is printed
)

// who says which nodes a check is for.
type who uint8

const (
	creates who = 1 << iota // kubeadm init
	joinsControl
	joinsWorker

	control = creates | joinsControl
	joins   = joinsControl | joinsWorker
	all     = control | joinsWorker
)

var roles = map[bootplan.Role]who{
	bootplan.RoleInit:             creates,
	bootplan.RoleJoinControlPlane: joinsControl,
	bootplan.RoleJoinWorker:       joinsWorker,
}

// check is one row of the table.
type check struct {
	name     string // as kubeadm's --ignore-preflight-errors has it
	severity severity
	who      who
	run      func(ctx context.Context, m *Machine) error
}

// checks is what the node's role asks for: kubeadm 1.37's table (its
// cmd/kubeadm/app/preflight/checks.go), and behind it what a small board needs.
// The first check of kubeadm, IsPrivilegedUser, is made by Run.
func checks(cfg nodeconfig.Config) []check {
	cluster, port := cfg.Plan.Cluster, cfg.Plan.Node.Port()
	bind := func(args []kubeadmapi.Arg) string {
		address, _ := kubeadmapi.ArgValue(args, "bind-address")
		return address
	}
	table := []check{
		{"NumCPU", fatal, control, numCPU},
		{"Mem", fatal, control, memory},
		{"KubernetesVersion", warning, control, kubernetesVersion},
		{"ControlPlaneVersion", fatal, all, controlPlaneVersion},
		{"Firewalld", warning, control, firewalld},
		portCheck(port, control, bind(cluster.Kubeadm.APIServer.ExtraArgs)),
		portCheck(10259, control, bind(cluster.Kubeadm.Scheduler.ExtraArgs)),
		portCheck(10257, control, bind(cluster.Kubeadm.ControllerManager.ExtraArgs)),
		fileCheck("/etc/kubernetes/manifests/kube-apiserver.yaml", control),
		fileCheck("/etc/kubernetes/manifests/kube-controller-manager.yaml", control),
		fileCheck("/etc/kubernetes/manifests/kube-scheduler.yaml", control),
		fileCheck("/etc/kubernetes/manifests/etcd.yaml", control),
		fileCheck("/etc/kubernetes/kubelet.conf", joins),
		fileCheck("/etc/kubernetes/bootstrap-kubelet.conf", joins),
		// A control plane has its CA from its configuration.
		fileCheck(cluster.CertificatesDir()+"/ca.crt", joinsWorker),
		{"ControlPlaneEndpoint", fatal, joinsControl, sharedEndpoint},
		{"SharedCertificates", fatal, joinsControl, sharedCertificates},
		{"HTTPProxy", warning, all, proxyEndpoints},
		{"HTTPProxyCIDR", warning, control, proxySubnets},
		{"CRI", fatal, all, criReady},
		{"ContainerRuntimeVersion", fatal, all, criConfig},
		{"Swap", warning, all, swap},
		{"FileExisting-losetup", fatal, all, inPath("losetup")},
		{"FileExisting-mount", fatal, all, inPath("mount")},
		{"FileExisting-cp", fatal, all, inPath("cp")},
		{"SystemVerification", fatal, all, systemVerification},
		{"Hostname", warning, all, hostname},
		{"KubeletVersion", fatal, all, kubeletVersion},
		{"Service-kubelet", warning, all, kubeletService},
		portCheck(10250, all, ""),
	}
	v4, v6 := families(cfg)
	if v4 {
		table = append(table, check{"FileContent--proc-sys-net-ipv4-ip_forward", fatal, all, startsWithOne("/proc/sys/net/ipv4/ip_forward")})
	}
	if v6 {
		table = append(table, check{"FileContent--proc-sys-net-ipv6-conf-default-forwarding", fatal, all, startsWithOne("/proc/sys/net/ipv6/conf/default/forwarding")})
	}
	table = append(table, etcdChecks(cfg)...)
	table = append(table,
		check{"ImagePull", fatal, control, bakedImages},
		// What follows is Kiln's own.
		check{"Clock", fatal, all, clock},
		check{"DiskSpace", fatal, all, diskSpace},
		check{"StorageHealth", warning, all, storageHealth},
		check{"Entropy", warning, all, entropy})

	var out []check
	for _, c := range table {
		if c.who&roles[cfg.Plan.Role] != 0 {
			out = append(out, c)
		}
	}
	return out
}

// etcdChecks are those of the etcd that the control plane uses: its own member, or
// one that somebody else runs.
func etcdChecks(cfg nodeconfig.Config) []check {
	if external := cfg.Plan.Cluster.Kubeadm.Etcd.External; external != nil {
		return []check{
			{"ExternalEtcdVersion", fatal, creates, externalEtcdVersion},
			{"ExternalEtcdClientCertificates", fatal, control, externalEtcdFiles},
		}
	}
	address := cfg.AdvertiseAddress.String()
	if a, ok := kubeadmapi.ArgValue(cfg.Plan.Cluster.Kubeadm.APIServer.ExtraArgs, "advertise-address"); ok {
		address = a
	}
	dir := cfg.Plan.Cluster.LocalEtcd().DataDir
	return []check{
		portCheck(2379, control, address),
		portCheck(2380, control, address),
		{"DirAvailable-" + strings.ReplaceAll(dir, "/", "-"), fatal, control, emptyDir(dir)},
	}
}

// portCheck wants a TCP port that can be bound at the address; "" means at all.
func portCheck(port int, who who, address string) check {
	return check{"Port-" + portName(port), fatal, who, portFree(port, address)}
}

// fileCheck wants a file that does not exist, under kubeadm's name for that.
func fileCheck(path string, who who) check {
	return check{"FileAvailable-" + strings.ReplaceAll(path, "/", "-"), fatal, who, absent(path)}
}
