// Package preflight is the phase that judges the machine before anything is
// written, with the checks of kubeadm init and join under kubeadm's names and severities.
//
// INPUTS: the boot plan; the machine: /proc, /sys, free ports, the files that
// later phases write, systemd, the container runtime's socket.
//
// OUTPUTS: none. All errors are reported together; warnings are printed.
//
// What the node's own image fixes is not checked here: the kernel's configuration
// and the container images (the phase images has kubeadm's ImagePull). Later runs
// of an interrupted first boot do not come here: the record says it is done.
package preflight

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
)

// severity says what a failed check means.
type severity int

const (
	fatal   severity = iota // the first boot does not go on
	warning                 // it is printed
)

// check is one row of the table.
type check struct {
	name     string // as kubeadm's --ignore-preflight-errors has it
	severity severity
	run      func(ctx context.Context, m *Machine) error
}

// asWarning marks an error of a fatal check that is only worth a warning.
type asWarning struct{ error }

func (w asWarning) Unwrap() error { return w.error }

// checks is the table of kubeadm 1.37 (cmd/kubeadm/app/preflight/checks.go) for the
// plan's role.
func checks(cfg nodeconfig.Config) []check {
	var table []check
	if cfg.Plan.Role != bootplan.RoleJoinWorker {
		table = controlPlaneChecks()
	}
	table = append(table, nodeChecks(cfg)...)
	if cfg.Plan.Role.Joins() {
		table = append(table, joinChecks(cfg)...)
	}
	if cfg.Plan.Role != bootplan.RoleJoinWorker && cfg.Plan.Cluster.ExternalEtcd() == nil {
		table = append(table, etcdChecks(cfg)...)
	}
	return table
}

// controlPlaneChecks are those of init and of a control plane that joins.
func controlPlaneChecks() []check {
	return []check{
		{"NumCPU", fatal, numCPU},
		{"Mem", fatal, memory},
		{"KubernetesVersion", warning, kubernetesVersion},
		{"Firewalld", warning, firewalld},
		{"Port-6443", fatal, portFree(6443, "")},
		{"Port-10259", fatal, portFree(10259, "")},
		{"Port-10257", fatal, portFree(10257, "")},
		{fileCheck("/etc/kubernetes/manifests/kube-apiserver.yaml"), fatal, absent("/etc/kubernetes/manifests/kube-apiserver.yaml")},
		{fileCheck("/etc/kubernetes/manifests/kube-controller-manager.yaml"), fatal, absent("/etc/kubernetes/manifests/kube-controller-manager.yaml")},
		{fileCheck("/etc/kubernetes/manifests/kube-scheduler.yaml"), fatal, absent("/etc/kubernetes/manifests/kube-scheduler.yaml")},
		{fileCheck("/etc/kubernetes/manifests/etcd.yaml"), fatal, absent("/etc/kubernetes/manifests/etcd.yaml")},
		{"HTTPProxyCIDR", warning, proxySubnets},
	}
}

// nodeChecks are those of every node.
func nodeChecks(cfg nodeconfig.Config) []check {
	table := []check{
		{"HTTPProxy", warning, proxyEndpoint},
		{"CRI", fatal, criReady},
		{"ContainerRuntimeVersion", fatal, criConfig},
		{"Swap", warning, swap},
		{"FileExisting-losetup", fatal, inPath("losetup")},
		{"FileExisting-mount", fatal, inPath("mount")},
		{"FileExisting-cp", fatal, inPath("cp")},
		{"SystemVerification", fatal, systemVerification},
		{"Hostname", warning, hostname},
		{"KubeletVersion", fatal, kubeletVersion},
		{"Service-kubelet", warning, kubeletService},
		{"Port-10250", fatal, portFree(10250, "")},
	}
	v4, v6 := families(cfg)
	if v4 {
		table = append(table, check{"FileContent--proc-sys-net-ipv4-ip_forward", fatal, startsWithOne("/proc/sys/net/ipv4/ip_forward")})
	}
	if v6 {
		table = append(table, check{"FileContent--proc-sys-net-ipv6-conf-default-forwarding", fatal, startsWithOne("/proc/sys/net/ipv6/conf/default/forwarding")})
	}
	return table
}

// joinChecks are those of a node that joins. On a control plane ca.crt is there: it
// came with the node's configuration.
func joinChecks(cfg nodeconfig.Config) []check {
	files := []string{"/etc/kubernetes/kubelet.conf", "/etc/kubernetes/bootstrap-kubelet.conf"}
	if cfg.Plan.Role == bootplan.RoleJoinWorker {
		files = append(files, path.Join(cfg.Plan.Cluster.CertificatesDir(), "ca.crt"))
	}
	var table []check
	for _, f := range files {
		table = append(table, check{fileCheck(f), fatal, absent(f)})
	}
	return table
}

// etcdChecks are those of a node with an etcd of its own.
func etcdChecks(cfg nodeconfig.Config) []check {
	address, etcd := cfg.AdvertiseAddress.String(), cfg.Plan.Cluster.LocalEtcd().DataDir
	return []check{
		{"Port-2379", fatal, portFree(2379, address)},
		{"Port-2380", fatal, portFree(2380, address)},
		{"DirAvailable-" + strings.ReplaceAll(etcd, "/", "-"), fatal, emptyDir(etcd)},
	}
}

// fileCheck is the name kubeadm gives the check that a file does not exist.
func fileCheck(path string) string { return "FileAvailable-" + strings.ReplaceAll(path, "/", "-") }

// Failure is a check that failed.
type Failure struct {
	Check string // kubeadm's name
	Err   error
}

// Error is every check that failed.
type Error struct{ Failed []Failure }

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d of kubeadm's preflight checks failed:", len(e.Failed))
	for _, f := range e.Failed {
		fmt.Fprintf(&b, "\n\t[ERROR %s]: %v", f.Check, f.Err)
	}
	return b.String()
}

// Unwrap gives errors.Is and errors.As the causes.
func (e *Error) Unwrap() []error {
	var out []error
	for _, f := range e.Failed {
		out = append(out, f.Err)
	}
	return out
}

// Run makes all checks. Errors are returned together as an *Error.
func Run(ctx context.Context, m *Machine, r phase.Report) error {
	m.report = r
	// Without root most other checks would fail for this reason alone.
	if m.UID != 0 {
		return phase.Permanent(&Error{[]Failure{{"IsPrivilegedUser", errors.New("firstboot must run as root")}}})
	}
	var failed []Failure
	table := checks(m.Config)
	for _, c := range table {
		start := time.Now()
		err := c.run(ctx, m)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch {
		case err == nil:
		case c.severity == warning || errors.As(err, new(asWarning)):
			r.Warn("[%s]: %v", c.name, err)
		default:
			failed = append(failed, Failure{c.name, err})
		}
		if took := time.Since(start); took > 5*time.Second {
			r.Step("%s took %.0fs", c.name, took.Seconds())
		}
	}
	if len(failed) > 0 {
		return &Error{failed}
	}
	r.Step("%d checks passed", len(table)+1)
	return nil
}
