package spec

import (
	"maps"
	"slices"
	"strings"

	"github.com/kiln-os/kiln/internal/diag"
	"github.com/kiln-os/kiln/internal/strict"
)

// skip is what skipping a phase of kubeadm means for firstboot.
type skip struct {
	phase  string // of firstboot, that is not run
	reason string // why it cannot be skipped
	joins  bool   // without it no other node joins
}

const (
	noOtherSource = "what it makes has no other source on a node that nobody logs in to"
	addon         = "addon"
)

// initPhases are the phases of kubeadm init. Those of the add-ons are disabled in the
// cluster's configuration, as kubeadm does it.
var initPhases = map[string]skip{
	"preflight": {phase: "preflight"}, "mark-control-plane": {phase: "mark-control-plane"}, "kubelet-finalize": {phase: "kubelet-finalize"},
	"upload-config": {phase: "upload-config", joins: true}, "bootstrap-token": {phase: "bootstrap-token", joins: true},
	addon: {}, "addon/coredns": {}, "addon/kube-proxy": {}, "upload-certs": {}, "show-join-command": {},
	"certs": {reason: noOtherSource}, "kubeconfig": {reason: noOtherSource}, "etcd": {reason: noOtherSource}, "etcd/local": {reason: noOtherSource},
	"control-plane": {reason: noOtherSource}, "kubelet-start": {reason: noOtherSource}, "wait-control-plane": {reason: "later phases need the API server"},
}

// joinPhases are those of kubeadm join.
var joinPhases = map[string]skip{
	"preflight": {phase: "preflight"}, "control-plane-join/mark-control-plane": {phase: "mark-control-plane"}, "control-plane-prepare/download-certs": {},
	"control-plane-prepare": {reason: noOtherSource}, "control-plane-prepare/certs": {reason: noOtherSource}, "control-plane-prepare/kubeconfig": {reason: noOtherSource},
	"control-plane-prepare/control-plane": {reason: noOtherSource}, "kubelet-start": {reason: noOtherSource}, "etcd-join": {reason: noOtherSource},
	"kubelet-wait-bootstrap": {reason: "later phases need the kubelet"}, "control-plane-join": {reason: "name control-plane-join/mark-control-plane"},
	"wait-control-plane": {reason: "the node would count as set up before it is"},
}

// resetPhases are those of kubeadm reset.
var resetPhases = map[string]skip{"preflight": {}, "remove-etcd-member": {}, "cleanup-node": {}}

// skippedPhases are the phases of firstboot that those of kubeadm stand for.
func skippedPhases(names []string) []string {
	var out []string
	for _, n := range names {
		s, ok := initPhases[n]
		if !ok {
			s = joinPhases[n]
		}
		if s.phase != "" && !slices.Contains(out, s.phase) {
			out = append(out, s.phase)
		}
	}
	return out
}

// skipPhases checks a list of phases.
func (v *validator) skipPhases(names []string, table map[string]skip, command string) {
	p := diag.Path{"skipPhases"}
	for i, n := range names {
		s, ok := table[n]
		_, parent := table[strings.SplitN(n, "/", 2)[0]]
		switch {
		case !ok && parent && strings.Contains(n, "/"):
			v.bad(p.Child(i), "remove it", "a part of the phase %s cannot be skipped alone", strings.SplitN(n, "/", 2)[0])
		case !ok:
			want := "want one of " + strings.Join(slices.Sorted(maps.Keys(table)), ", ")
			if near := strict.Nearest(n, slices.Sorted(maps.Keys(table))); near != "" {
				want = "did you mean " + near + "?"
			}
			v.bad(p.Child(i), want, "%q is not a phase of kubeadm %s", n, command)
		case s.reason != "":
			v.bad(p.Child(i), "remove it", "%s cannot be skipped: %s", n, s.reason)
		case s.joins && len(v.c.Nodes) > 1:
			v.bad(p.Child(i), "remove it, or the other nodes", "without %s the other nodes of the file cannot join", n)
		case slices.Contains(names[:i], n):
			v.bad(p.Child(i), "name it once", "%s is there twice", n)
		}
	}
}

// disableSkipped disables the add-ons whose phases are skipped, in the cluster's own
// configuration, so that no later kubeadm installs them.
func (c *Cluster) disableSkipped() {
	if c.Documents.Init == nil {
		return
	}
	for _, n := range c.Documents.Init.SkipPhases {
		c.Kubeadm.DNS.Disabled = c.Kubeadm.DNS.Disabled || n == addon || n == "addon/coredns"
		c.Kubeadm.Proxy.Disabled = c.Kubeadm.Proxy.Disabled || n == addon || n == "addon/kube-proxy"
	}
}
