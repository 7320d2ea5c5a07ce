package kubeadmconfig

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/pki"
)

// Parse reads the ClusterConfiguration that a cluster has stored. Unlike a user's
// document it may have keys that this version does not know: it is not the node's to
// judge.
func Parse(data []byte) (kubeadmapi.ClusterConfiguration, error) {
	var c kubeadmapi.ClusterConfiguration
	if err := yaml.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("ClusterConfiguration: %w", err)
	}
	if c.APIVersion != kubeadmapi.APIVersion || c.Kind != kubeadmapi.Kind {
		return c, fmt.Errorf("ClusterConfiguration: apiVersion %q, kind %q; want %s, kind %s, which kubeadm 1.31 and later store", c.APIVersion, c.Kind, kubeadmapi.APIVersion, kubeadmapi.Kind)
	}
	if c.KubernetesVersion == "" {
		return c, fmt.Errorf("ClusterConfiguration: kubernetesVersion is missing")
	}
	return c, nil
}

// ToPlan is the reverse of ForCluster: a boot plan's cluster as the cluster itself has
// stored it. What is no part of a ClusterConfiguration is kept from plan.
func ToPlan(plan bootplan.Cluster, c kubeadmapi.ClusterConfiguration) (bootplan.Cluster, error) {
	out := plan
	out.Name = cmp.Or(c.ClusterName, "kubernetes")
	out.KubernetesVersion = c.KubernetesVersion
	out.ControlPlaneEndpoint = c.ControlPlaneEndpoint
	out.DNSDomain = cmp.Or(c.Networking.DNSDomain, "cluster.local")
	out.CertSANs = c.APIServer.CertSANs
	out.EncryptionAlgorithm = cmp.Or(c.EncryptionAlgorithm, string(pki.DefaultAlgorithm))
	var err error
	if out.PodSubnets, err = subnets("podSubnet", c.Networking.PodSubnet); err != nil {
		return out, err
	}
	if out.ServiceSubnets, err = subnets("serviceSubnet", cmp.Or(c.Networking.ServiceSubnet, "10.96.0.0/12")); err != nil {
		return out, err
	}
	if e := c.ControlPlaneEndpoint; e != "" {
		if _, _, err := bootplan.SplitEndpoint(e); err != nil {
			return out, fmt.Errorf("ClusterConfiguration: controlPlaneEndpoint: %w", err)
		}
	}
	c.TypeMeta, c.Networking, c.APIServer.CertSANs = metav1.TypeMeta{}, kubeadmapi.Networking{}, nil
	c.ClusterName, c.KubernetesVersion, c.ControlPlaneEndpoint, c.EncryptionAlgorithm = "", "", "", ""
	out.Kubeadm = c
	return out, nil
}

func subnets(key, text string) ([]string, error) {
	var out []string
	for _, s := range strings.Split(text, ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("ClusterConfiguration: networking.%s: %w", key, err)
		}
		out = append(out, p.String())
	}
	return out, nil
}
