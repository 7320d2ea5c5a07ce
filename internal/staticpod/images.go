package staticpod

import (
	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
)

// Registry is where kubeadm's image names point.
const Registry = kubeadmapi.DefaultImageRepository

// EtcdImage is the etcd that kubeadm 1.37 runs.
const EtcdImage = Registry + "/etcd:" + kubeadmapi.EtcdTag

// kubernetesImage is the image of a component that has Kubernetes' own version.
func kubernetesImage(component, version string) string {
	return Registry + "/" + component + ":" + version
}

// Images are all images that a control-plane node of the cluster runs, as kubeadm
// config images list has them.
func Images(c bootplan.Cluster) []string {
	config := c.Kubeadm
	config.KubernetesVersion = c.KubernetesVersion
	return kubeadmapi.Images(config)
}
