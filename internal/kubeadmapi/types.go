// Package kubeadmapi holds the types of kubeadm's configuration API
// kubeadm.k8s.io/v1beta4 that Kiln reads and writes: ClusterConfiguration and what
// it is made of.
//
// The types are kubeadm's (cmd/kubeadm/app/apis/kubeadm/v1beta4/types.go), which
// cannot be imported without all of Kubernetes.
package kubeadmapi

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// APIVersion and Kind identify a ClusterConfiguration.
const (
	APIVersion = "kubeadm.k8s.io/v1beta4"
	Kind       = "ClusterConfiguration"
)

// kubeadm's defaults.
const (
	DefaultCertificatesDir = "/etc/kubernetes/pki"
	DefaultEtcdDataDir     = "/var/lib/etcd"
	// DefaultImageRepository is where kubeadm's image names point. Nothing is
	// pulled from it: the images are baked in under these names.
	DefaultImageRepository = "registry.k8s.io"
)

// ClusterConfiguration is what all nodes of a kubeadm cluster share.
type ClusterConfiguration struct {
	metav1.TypeMeta             `json:",inline"`
	Etcd                        Etcd                  `json:"etcd,omitempty"`
	Networking                  Networking            `json:"networking,omitempty"`
	KubernetesVersion           string                `json:"kubernetesVersion,omitempty"`
	ControlPlaneEndpoint        string                `json:"controlPlaneEndpoint,omitempty"` // host:port
	APIServer                   APIServer             `json:"apiServer,omitempty"`
	ControllerManager           ControlPlaneComponent `json:"controllerManager,omitempty"`
	Scheduler                   ControlPlaneComponent `json:"scheduler,omitempty"`
	DNS                         DNS                   `json:"dns,omitempty"`
	Proxy                       Proxy                 `json:"proxy,omitempty"`
	CertificatesDir             string                `json:"certificatesDir,omitempty"`
	ImageRepository             string                `json:"imageRepository,omitempty"`
	FeatureGates                map[string]bool       `json:"featureGates,omitempty"`
	ClusterName                 string                `json:"clusterName,omitempty"`
	EncryptionAlgorithm         string                `json:"encryptionAlgorithm,omitempty"`
	CertificateValidityPeriod   *metav1.Duration      `json:"certificateValidityPeriod,omitempty"`
	CACertificateValidityPeriod *metav1.Duration      `json:"caCertificateValidityPeriod,omitempty"`
}

// Etcd is how the API servers reach etcd; one of the two.
type Etcd struct {
	Local    *LocalEtcd    `json:"local,omitempty"`
	External *ExternalEtcd `json:"external,omitempty"`
}

// LocalEtcd is the etcd member of a control-plane node.
type LocalEtcd struct {
	ImageMeta `json:",inline"`
	DataDir   string          `json:"dataDir"`
	ExtraArgs []Arg           `json:"extraArgs,omitempty"`
	ExtraEnvs []corev1.EnvVar `json:"extraEnvs,omitempty"`
	// ServerCertSANs and PeerCertSANs are further names and addresses in etcd's
	// own certificates.
	ServerCertSANs []string `json:"serverCertSANs,omitempty"`
	PeerCertSANs   []string `json:"peerCertSANs,omitempty"`
}

// ExternalEtcd is an etcd that somebody else runs.
type ExternalEtcd struct {
	Endpoints     []string `json:"endpoints"`
	HTTPEndpoints []string `json:"httpEndpoints,omitempty"`
	CAFile        string   `json:"caFile"`
	CertFile      string   `json:"certFile"`
	KeyFile       string   `json:"keyFile"`
}

// Networking holds the cluster's subnets; two families are separated by a comma.
type Networking struct {
	ServiceSubnet string `json:"serviceSubnet,omitempty"`
	PodSubnet     string `json:"podSubnet,omitempty"`
	DNSDomain     string `json:"dnsDomain,omitempty"`
}

// ControlPlaneComponent holds what is set for a component besides the defaults.
type ControlPlaneComponent struct {
	// ExtraArgs replace the default flags of the same names; a name may stand there
	// more than once.
	ExtraArgs    []Arg           `json:"extraArgs,omitempty"`
	ExtraVolumes []HostPathMount `json:"extraVolumes,omitempty"`
	ExtraEnvs    []corev1.EnvVar `json:"extraEnvs,omitempty"`
}

// Arg is a command-line flag without its dashes.
type Arg struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// HostPathMount is a file or folder of the node in a component's container.
type HostPathMount struct {
	Name      string              `json:"name"`
	HostPath  string              `json:"hostPath"`
	MountPath string              `json:"mountPath"`
	ReadOnly  bool                `json:"readOnly,omitempty"`
	PathType  corev1.HostPathType `json:"pathType,omitempty"`
}

// APIServer is the API server's part.
type APIServer struct {
	ControlPlaneComponent `json:",inline"`
	CertSANs              []string `json:"certSANs,omitempty"`
}

// DNS is the DNS add-on.
type DNS struct {
	ImageMeta `json:",inline"`
	Disabled  bool `json:"disabled,omitempty"`
}

// Proxy is the kube-proxy add-on.
type Proxy struct {
	Disabled bool `json:"disabled,omitempty"`
}

// ImageMeta says where an image is, if not where kubeadm's version has it.
type ImageMeta struct {
	ImageRepository string `json:"imageRepository,omitempty"`
	ImageTag        string `json:"imageTag,omitempty"`
}

// ArgValue returns the value of the last flag of that name.
func ArgValue(args []Arg, name string) (value string, ok bool) {
	for _, a := range args {
		if a.Name == name {
			value, ok = a.Value, true
		}
	}
	return value, ok
}
