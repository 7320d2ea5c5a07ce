//go:build boot

package qemutests

// The types of kubeadm.k8s.io/v1beta4 that a cluster stores, as kubeadm 1.37
// declares them (cmd/kubeadm/app/apis/kubeadm/v1beta4/types.go). They are
// complete, so that a strict decoder accepts exactly what kubeadm knows.

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

type clusterConfiguration struct {
	metav1.TypeMeta             `json:",inline"`
	Etcd                        etcd                  `json:"etcd,omitempty"`
	Networking                  networking            `json:"networking,omitempty"`
	KubernetesVersion           string                `json:"kubernetesVersion,omitempty"`
	ControlPlaneEndpoint        string                `json:"controlPlaneEndpoint,omitempty"`
	APIServer                   apiServer             `json:"apiServer,omitempty"`
	ControllerManager           controlPlaneComponent `json:"controllerManager,omitempty"`
	Scheduler                   controlPlaneComponent `json:"scheduler,omitempty"`
	DNS                         dnsAddOn              `json:"dns,omitempty"`
	Proxy                       proxyAddOn            `json:"proxy,omitempty"`
	CertificatesDir             string                `json:"certificatesDir,omitempty"`
	ImageRepository             string                `json:"imageRepository,omitempty"`
	FeatureGates                map[string]bool       `json:"featureGates,omitempty"`
	ClusterName                 string                `json:"clusterName,omitempty"`
	EncryptionAlgorithm         string                `json:"encryptionAlgorithm,omitempty"`
	CertificateValidityPeriod   *metav1.Duration      `json:"certificateValidityPeriod,omitempty"`
	CACertificateValidityPeriod *metav1.Duration      `json:"caCertificateValidityPeriod,omitempty"`
}

type arg struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type controlPlaneComponent struct {
	ExtraArgs    []arg           `json:"extraArgs,omitempty"`
	ExtraVolumes []hostPathMount `json:"extraVolumes,omitempty"`
	ExtraEnvs    []corev1.EnvVar `json:"extraEnvs,omitempty"`
}

type apiServer struct {
	controlPlaneComponent `json:",inline"`
	CertSANs              []string `json:"certSANs,omitempty"`
}

type hostPathMount struct {
	Name      string              `json:"name"`
	HostPath  string              `json:"hostPath"`
	MountPath string              `json:"mountPath"`
	ReadOnly  bool                `json:"readOnly,omitempty"`
	PathType  corev1.HostPathType `json:"pathType,omitempty"`
}

type imageMeta struct {
	ImageRepository string `json:"imageRepository,omitempty"`
	ImageTag        string `json:"imageTag,omitempty"`
}

type dnsAddOn struct {
	imageMeta `json:",inline"`
	Disabled  bool `json:"disabled,omitempty"`
}

type proxyAddOn struct {
	Disabled bool `json:"disabled,omitempty"`
}

type networking struct {
	ServiceSubnet string `json:"serviceSubnet,omitempty"`
	PodSubnet     string `json:"podSubnet,omitempty"`
	DNSDomain     string `json:"dnsDomain,omitempty"`
}

type etcd struct {
	Local    *localEtcd    `json:"local,omitempty"`
	External *externalEtcd `json:"external,omitempty"`
}

type localEtcd struct {
	imageMeta      `json:",inline"`
	DataDir        string          `json:"dataDir"`
	ExtraArgs      []arg           `json:"extraArgs,omitempty"`
	ExtraEnvs      []corev1.EnvVar `json:"extraEnvs,omitempty"`
	ServerCertSANs []string        `json:"serverCertSANs,omitempty"`
	PeerCertSANs   []string        `json:"peerCertSANs,omitempty"`
}

type externalEtcd struct {
	Endpoints     []string `json:"endpoints"`
	HTTPEndpoints []string `json:"httpEndpoints,omitempty"`
	CAFile        string   `json:"caFile"`
	CertFile      string   `json:"certFile"`
	KeyFile       string   `json:"keyFile"`
}
