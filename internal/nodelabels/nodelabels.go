// Package nodelabels knows which labels a kubelet may set on its own Node, and the one
// that every kubelet of Kiln sets.
package nodelabels

import (
	"strings"

	kubeletapis "k8s.io/kubelet/pkg/apis"
)

// PodNetwork is the label of a node whose image has brought the pod network that is its
// value, plugins and configuration: nothing must be installed there any more.
const PodNetwork = "kiln-os.dev/pod-network"

// NeedsAdmin reports whether a kubelet may not set the label itself: keys of
// kubernetes.io and k8s.io that are not on the kubelet's list. With one of those in
// --node-labels the kubelet refuses to start, and the admission plugin
// NodeRestriction refuses node-restriction.kubernetes.io in any case.
func NeedsAdmin(key string) bool { return reserved(key) && !kubeletapis.IsKubeletLabel(key) }

// reserved reports whether the key's prefix belongs to Kubernetes.
func reserved(key string) bool {
	prefix, _, ok := strings.Cut(key, "/")
	if !ok {
		return false
	}
	for _, domain := range []string{"kubernetes.io", "k8s.io"} {
		if prefix == domain || strings.HasSuffix(prefix, "."+domain) {
			return true
		}
	}
	return false
}
