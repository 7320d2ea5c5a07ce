// Package kubeadmconfig is the part of kubeadm's configuration API
// kubeadm.k8s.io/v1beta4 that a cluster stores: the ClusterConfiguration in the
// ConfigMap kube-system/kubeadm-config, from which kubeadm's join, certs and
// upgrade commands learn how the cluster was made.
//
// The types are kubeadm's (cmd/kubeadm/app/apis/kubeadm/v1beta4/types.go), which
// cannot be imported without all of Kubernetes.
package kubeadmconfig

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/staticpod"
	"github.com/kiln-os/kiln/pki"
)

// APIVersion and Kind identify the document.
const (
	APIVersion = "kubeadm.k8s.io/v1beta4"
	Kind       = "ClusterConfiguration"
)

// ClusterConfiguration is what all nodes of a kubeadm cluster share.
type ClusterConfiguration struct {
	metav1.TypeMeta             `json:",inline"`
	Etcd                        Etcd            `json:"etcd,omitempty"`
	Networking                  Networking      `json:"networking,omitempty"`
	KubernetesVersion           string          `json:"kubernetesVersion,omitempty"`
	ControlPlaneEndpoint        string          `json:"controlPlaneEndpoint,omitempty"` // host:port
	APIServer                   APIServer       `json:"apiServer,omitempty"`
	ControllerManager           Component       `json:"controllerManager,omitempty"`
	Scheduler                   Component       `json:"scheduler,omitempty"`
	DNS                         DNS             `json:"dns,omitempty"`
	Proxy                       Proxy           `json:"proxy,omitempty"`
	CertificatesDir             string          `json:"certificatesDir,omitempty"`
	ImageRepository             string          `json:"imageRepository,omitempty"`
	FeatureGates                map[string]bool `json:"featureGates,omitempty"`
	ClusterName                 string          `json:"clusterName,omitempty"`
	EncryptionAlgorithm         string          `json:"encryptionAlgorithm,omitempty"`
	CertificateValidityPeriod   metav1.Duration `json:"certificateValidityPeriod"`
	CACertificateValidityPeriod metav1.Duration `json:"caCertificateValidityPeriod"`
}

// Etcd is how the API servers reach etcd; Kiln runs it locally.
type Etcd struct {
	Local LocalEtcd `json:"local"`
}

// LocalEtcd is the etcd member of a control-plane node.
type LocalEtcd struct {
	DataDir   string          `json:"dataDir"`
	ExtraEnvs []corev1.EnvVar `json:"extraEnvs,omitempty"`
}

// Networking holds the cluster's subnets; two families are separated by a comma.
type Networking struct {
	ServiceSubnet string `json:"serviceSubnet,omitempty"`
	PodSubnet     string `json:"podSubnet,omitempty"`
	DNSDomain     string `json:"dnsDomain,omitempty"`
}

// Component holds what is set for a control-plane component besides the defaults.
type Component struct {
	ExtraArgs []Arg `json:"extraArgs,omitempty"`
}

// Arg is a command-line flag without its dashes.
type Arg struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// APIServer is the API server's Component.
type APIServer struct {
	Component `json:",inline"`
	CertSANs  []string `json:"certSANs,omitempty"`
}

// DNS is the DNS add-on.
type DNS struct {
	Disabled bool `json:"disabled,omitempty"`
}

// Proxy is the kube-proxy add-on.
type Proxy struct {
	Disabled bool `json:"disabled,omitempty"`
}

// ForCluster returns the configuration that kubeadm would store for the cluster.
// What Kiln sets besides kubeadm's defaults stands in it as extra flags and
// variables, so that kubeadm upgrade renders the same manifests.
func ForCluster(cfg nodeconfig.Config) ClusterConfiguration {
	c := cfg.Plan.Cluster
	out := ClusterConfiguration{
		TypeMeta: metav1.TypeMeta{APIVersion: APIVersion, Kind: Kind},
		Etcd:     Etcd{Local: LocalEtcd{DataDir: "/var/lib/etcd"}},
		Networking: Networking{
			ServiceSubnet: strings.Join(c.ServiceSubnets, ","),
			PodSubnet:     strings.Join(c.PodSubnets, ","),
			DNSDomain:     c.DNSDomain,
		},
		KubernetesVersion:           c.KubernetesVersion,
		APIServer:                   APIServer{CertSANs: c.CertSANs},
		ControllerManager:           Component{ExtraArgs: args(staticpod.LeaderElectionArgs())},
		Scheduler:                   Component{ExtraArgs: args(staticpod.LeaderElectionArgs())},
		CertificatesDir:             "/etc/kubernetes/pki",
		ImageRepository:             staticpod.Registry,
		ClusterName:                 c.Name,
		EncryptionAlgorithm:         c.EncryptionAlgorithm,
		CertificateValidityPeriod:   metav1.Duration{Duration: pki.LeafValidity},
		CACertificateValidityPeriod: metav1.Duration{Duration: pki.CAValidity},
	}
	if c.ControlPlaneEndpoint != "" {
		out.ControlPlaneEndpoint = cfg.ControlPlaneEndpoint()
	}
	for _, e := range staticpod.EtcdExtraEnvs() {
		out.Etcd.Local.ExtraEnvs = append(out.Etcd.Local.ExtraEnvs, corev1.EnvVar{Name: e.Name, Value: e.Value})
	}
	return out
}

func args(in []staticpod.Arg) []Arg {
	var out []Arg
	for _, a := range in {
		out = append(out, Arg(a))
	}
	return out
}

// Marshal renders the configuration as YAML with sorted keys, as kubeadm does.
func (c ClusterConfiguration) Marshal() ([]byte, error) {
	out, err := yaml.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("kubeadm's cluster configuration: %w", err)
	}
	return out, nil
}
