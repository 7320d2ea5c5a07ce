// Package kubeadmconfig renders the ClusterConfiguration that a cluster stores in
// the ConfigMap kube-system/kubeadm-config, from which kubeadm's join, certs and
// upgrade commands learn how the cluster was made.
package kubeadmconfig

import (
	"cmp"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/staticpod"
	"github.com/kiln-os/kiln/pki"
)

// ForCluster returns the configuration that kubeadm would store for the cluster:
// the user's, completed with kubeadm's defaults. What Kiln sets besides those stands
// in it as extra flags and variables, so that kubeadm upgrade renders the same
// manifests.
func ForCluster(cfg nodeconfig.Config) kubeadmapi.ClusterConfiguration {
	c := cfg.Plan.Cluster
	out, etcd := c.Kubeadm, c.LocalEtcd()
	out.TypeMeta = metav1.TypeMeta{APIVersion: kubeadmapi.APIVersion, Kind: kubeadmapi.Kind}
	etcd.ExtraArgs = staticpod.ExtraArgs(cfg, staticpod.Etcd)
	etcd.ExtraEnvs = staticpod.ExtraEnvs(cfg, staticpod.Etcd)
	if c.ExternalEtcd() == nil {
		out.Etcd = kubeadmapi.Etcd{Local: &etcd}
	}
	out.Networking = kubeadmapi.Networking{
		ServiceSubnet: strings.Join(c.ServiceSubnets, ","),
		PodSubnet:     strings.Join(c.PodSubnets, ","),
		DNSDomain:     c.DNSDomain,
	}
	out.KubernetesVersion, out.ClusterName, out.EncryptionAlgorithm = c.KubernetesVersion, c.Name, c.EncryptionAlgorithm
	if c.ControlPlaneEndpoint != "" {
		out.ControlPlaneEndpoint = cfg.ControlPlaneEndpoint()
	}
	out.APIServer.CertSANs = c.CertSANs
	out.ControllerManager.ExtraArgs = staticpod.ExtraArgs(cfg, staticpod.ControllerManager)
	out.Scheduler.ExtraArgs = staticpod.ExtraArgs(cfg, staticpod.Scheduler)
	out.CertificatesDir = c.CertificatesDir()
	out.ImageRepository = cmp.Or(out.ImageRepository, kubeadmapi.DefaultImageRepository)
	if out.CertificateValidityPeriod == nil {
		out.CertificateValidityPeriod = &metav1.Duration{Duration: pki.LeafValidity}
	}
	if out.CACertificateValidityPeriod == nil {
		out.CACertificateValidityPeriod = &metav1.Duration{Duration: pki.CAValidity}
	}
	return out
}

// Marshal renders the configuration as YAML with sorted keys, as kubeadm does.
func Marshal(c kubeadmapi.ClusterConfiguration) ([]byte, error) {
	out, err := yaml.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("kubeadm's cluster configuration: %w", err)
	}
	return out, nil
}
