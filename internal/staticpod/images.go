package staticpod

import (
	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
)

// Registry is where kubeadm's image names point.
const Registry = kubeadmapi.DefaultImageRepository

// The images that kubeadm 1.37 runs besides those of Kubernetes' own version.
const (
	EtcdImage    = Registry + "/etcd:3.7.0-0"
	CoreDNSImage = Registry + "/coredns/coredns:v1.14.6"
	PauseImage   = Registry + "/pause:3.10.2"
)

// kubernetesImage is the image of a component that has Kubernetes' own version.
func kubernetesImage(component, version string) string {
	return Registry + "/" + component + ":" + version
}

// Images are all images that a control-plane node of the cluster runs, as kubeadm
// config images list has them.
func Images(c bootplan.Cluster) []string {
	out := []string{
		kubernetesImage(APIServer, c.KubernetesVersion),
		kubernetesImage(ControllerManager, c.KubernetesVersion),
		kubernetesImage(Scheduler, c.KubernetesVersion),
	}
	if !c.Kubeadm.Proxy.Disabled {
		out = append(out, kubernetesImage("kube-proxy", c.KubernetesVersion))
	}
	if !c.Kubeadm.DNS.Disabled {
		out = append(out, CoreDNSImage)
	}
	out = append(out, PauseImage)
	if c.Kubeadm.Etcd.External == nil {
		out = append(out, EtcdImage)
	}
	return out
}
