// Package skew is Kubernetes' version-skew policy as kubeadm 1.37 enforces it
// (https://kubernetes.io/releases/version-skew-policy): which versions of kubelet,
// control plane and firstboot go together.
package skew

import (
	"fmt"

	"k8s.io/apimachinery/pkg/util/version"

	"github.com/kiln-os/kiln/internal/bootplan"
)

const (
	// OwnMinor is the minor version of Kubernetes whose kubeadm this firstboot does
	// the work of.
	OwnMinor = 37
	// controlPlaneSkew is how many minor versions a control plane may be older than
	// the kubeadm that makes it.
	controlPlaneSkew = 1
	// kubeletSkew is how many minor versions a kubelet may be older than its API server.
	kubeletSkew = 3
)

// Newer reports whether a control plane is of a minor version that this firstboot
// does not know. kubeadm warns about it.
func Newer(controlPlane string) error {
	v, err := parse("the control plane", controlPlane)
	if err != nil {
		return err
	}
	if v.Major() != 1 || v.Minor() > OwnMinor {
		return fmt.Errorf("the control plane's version %s is newer than the 1.%d that this firstboot knows; build the node with a newer Kiln", controlPlane, OwnMinor)
	}
	return nil
}

// TooOld reports whether a control plane is older than this firstboot can work with.
func TooOld(controlPlane string) error {
	v, err := parse("the control plane", controlPlane)
	if err != nil {
		return err
	}
	if v.Major() != 1 || v.Minor()+controlPlaneSkew < OwnMinor {
		return fmt.Errorf("the control plane's version %s is too old: this firstboot is kubeadm 1.%d, which works with 1.%d and later; upgrade the cluster, or build the node with an older Kiln",
			controlPlane, OwnMinor, OwnMinor-controlPlaneSkew)
	}
	return nil
}

// Kubelet reports whether a kubelet may serve a control plane: it may not be newer,
// and at most three minor versions older.
func Kubelet(kubelet, controlPlane string) error {
	k, c, err := parseBoth("the kubelet", kubelet, "the control plane", controlPlane)
	if err != nil {
		return err
	}
	if c.LessThan(k) {
		return fmt.Errorf("the kubelet is %s, newer than the control plane's %s: a kubelet may be older than its API server, never newer; upgrade the control plane first", kubelet, controlPlane)
	}
	if k.Major() != c.Major() || k.Minor()+kubeletSkew < c.Minor() {
		return fmt.Errorf("the kubelet is %s, more than %d minor versions older than the control plane's %s; build the node with Kubernetes 1.%d or later",
			kubelet, kubeletSkew, controlPlane, c.Minor()-kubeletSkew)
	}
	return nil
}

// Supported reports whether a kubelet is one that this firstboot can start at all,
// whatever cluster it is for.
func Supported(kubelet string) error {
	k, err := parse("the kubelet", kubelet)
	if err != nil {
		return err
	}
	if k.Major() != 1 || k.Minor()+kubeletSkew < OwnMinor {
		return fmt.Errorf("the kubelet is %s, but this firstboot is kubeadm 1.%d, which starts kubelets of 1.%d and later", kubelet, OwnMinor, OwnMinor-kubeletSkew)
	}
	return nil
}

// Join reports whether a node whose programs are of version node may join a cluster
// whose kubeadm-config says cluster, in the given role. A control plane must be of
// the cluster's minor version: with an older one its kubelets may be newer than
// their API server, with a newer one the cluster would be half upgraded.
func Join(role bootplan.Role, node, cluster string) error {
	if err := TooOld(cluster); err != nil {
		return err
	}
	n, c, err := parseBoth("the node", node, "the cluster", cluster)
	if err != nil {
		return err
	}
	// Patch releases of one minor version go together in any order.
	same := n.Major() == c.Major() && n.Minor() == c.Minor()
	switch {
	case role != bootplan.RoleJoinControlPlane && same:
		return nil
	case role != bootplan.RoleJoinControlPlane:
		return Kubelet(node, cluster)
	}
	if err := Newer(cluster); err != nil || same {
		return err
	}
	want := "upgrade the cluster first"
	if n.LessThan(c) {
		want = fmt.Sprintf("build the node with Kubernetes 1.%d", c.Minor())
	}
	return fmt.Errorf("the node brings a control plane of %s into a cluster of %s: control planes of a cluster are of one minor version; %s", node, cluster, want)
}

func parseBoth(what1, text1, what2, text2 string) (v1, v2 *version.Version, err error) {
	if v1, err = parse(what1, text1); err != nil {
		return nil, nil, err
	}
	v2, err = parse(what2, text2)
	return v1, v2, err
}

func parse(what, text string) (*version.Version, error) {
	v, err := version.ParseSemantic(text)
	if err != nil {
		return nil, fmt.Errorf("version of %s: %q is not one, such as v1.%d.0", what, text, OwnMinor)
	}
	return v, nil
}
