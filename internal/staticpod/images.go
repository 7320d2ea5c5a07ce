package staticpod

// Registry is where kubeadm's image names point. Nothing is pulled from it:
// the images are baked in under these names.
const Registry = "registry.k8s.io"

// EtcdImage is the etcd that kubeadm 1.37 runs.
const EtcdImage = Registry + "/etcd:3.7.0-0"

// kubernetesImage is the image of a component that has Kubernetes' own version.
func kubernetesImage(component, version string) string {
	return Registry + "/" + component + ":" + version
}
