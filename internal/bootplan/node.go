package bootplan

import (
	"cmp"
	"slices"
	"strings"

	"github.com/kiln-os/kiln/internal/kubeadmapi"
)

// NodeSettings is what the user's InitConfiguration, JoinConfiguration and
// ResetConfiguration say of this node.
type NodeSettings struct {
	// APIPort is where the node's API server listens; 0 means DefaultAPIPort.
	APIPort int `json:"apiPort,omitempty"`
	// NodeIPs are the node's addresses, of each family at most one, the primary one
	// first; empty means what the machine finds itself.
	NodeIPs []string `json:"nodeIPs,omitempty"`
	// IgnorePreflightErrors are checks that only warn, by kubeadm's names in any
	// case; "all" alone means every check.
	IgnorePreflightErrors []string `json:"ignorePreflightErrors,omitempty"`
	// KubeletExtraArgs replace the kubelet's flags of the same names.
	KubeletExtraArgs []kubeadmapi.Arg `json:"kubeletExtraArgs,omitempty"`
	// SkipPhases are phases of firstboot that are not run, by its own names.
	SkipPhases []string `json:"skipPhases,omitempty"`
	// Patches change what firstboot writes for this node, in their order.
	Patches []Patch `json:"patches,omitempty"`
	// Reset is what firstboot reset does if its flags say nothing else; nil if the
	// user has no ResetConfiguration.
	Reset *kubeadmapi.ResetConfiguration `json:"reset,omitempty"`
}

// Patch is one file of kubeadm's patches folder.
type Patch struct {
	File string `json:"file"` // its name, which says what it is for and of which type it is
	Data string `json:"data"`
}

// Port is where the node's API server listens.
func (s NodeSettings) Port() int { return cmp.Or(s.APIPort, DefaultAPIPort) }

// Ignores reports whether a failure of the preflight check only warns.
func (s NodeSettings) Ignores(check string) bool {
	return slices.ContainsFunc(s.IgnorePreflightErrors, func(i string) bool {
		return strings.EqualFold(i, "all") || strings.EqualFold(i, check)
	})
}
