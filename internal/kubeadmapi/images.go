package kubeadmapi

import (
	"cmp"
	"fmt"
	"regexp"
	"strconv"
)

// The versions of images that kubeadm 1.37 runs besides Kubernetes' own
// (cmd/kubeadm/app/constants/constants.go).
const (
	CoreDNSTag = "v1.14.6"
	PauseTag   = "3.10.2"
	EtcdTag    = "3.7.0-0"
)

// Images lists the container images of a control-plane node, in the order and by
// the rules of kubeadm config images list.
func Images(c ClusterConfiguration) []string {
	repository := cmp.Or(c.ImageRepository, DefaultImageRepository)
	image := func(repository, name, tag string) string { return repository + "/" + name + ":" + tag }
	var out []string
	components := []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler"}
	if !c.Proxy.Disabled {
		components = append(components, "kube-proxy")
	}
	for _, name := range components {
		out = append(out, image(repository, name, c.KubernetesVersion))
	}
	if !c.DNS.Disabled {
		from := cmp.Or(c.DNS.ImageRepository, repository)
		if from == DefaultImageRepository {
			from += "/coredns"
		}
		out = append(out, image(from, "coredns", cmp.Or(c.DNS.ImageTag, CoreDNSTag)))
	}
	out = append(out, image(repository, "pause", PauseTag))
	if c.Etcd.External == nil {
		var etcd LocalEtcd
		if c.Etcd.Local != nil {
			etcd = *c.Etcd.Local
		}
		out = append(out, image(cmp.Or(etcd.ImageRepository, repository), "etcd", cmp.Or(etcd.ImageTag, EtcdTag)))
	}
	return out
}

var versionForm = regexp.MustCompile(`^v?(1\.(\d+)\.\d+(-[0-9a-z.]+)?)$`)

// The minor versions of Kubernetes whose images Images knows: kubeadm's own and the
// one before it.
const (
	oldestMinor = 36
	newestMinor = 37
)

// ParseVersion returns a Kubernetes version as it stands in image tags: "v1.37.2".
func ParseVersion(s string) (string, error) {
	m := versionForm.FindStringSubmatch(s)
	if m == nil {
		return "", fmt.Errorf("%q is no version of Kubernetes, such as v1.37.2", s)
	}
	if minor, err := strconv.Atoi(m[2]); err != nil || minor < oldestMinor || minor > newestMinor {
		return "", fmt.Errorf("the images of Kubernetes %s are not known here: this is for 1.%d and 1.%d", s, oldestMinor, newestMinor)
	}
	return "v" + m[1], nil
}
