// Package kubeclient makes a client of the API server that a kubeconfig names, for
// commands that a person gives and that fail rather than wait.
package kubeclient

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kiln-os/kiln/pki"
)

// Timeout is per request: the first answer of a small machine takes its time.
const Timeout = 30 * time.Second

// File is a kubeconfig that was read.
type File struct {
	Path   string
	Config *clientcmdapi.Config
}

// Read reads a kubeconfig and checks that its current context names a cluster.
// Its errors quote nothing of the file: it may hold a private key.
func Read(path string) (*File, error) {
	kc, err := clientcmd.LoadFromFile(path)
	if err != nil {
		if pathErr := new(fs.PathError); errors.As(err, &pathErr) {
			return nil, fmt.Errorf("kubeconfig: %w", err)
		}
		return nil, fmt.Errorf("%s is not a kubeconfig", path)
	}
	f := &File{Path: path, Config: kc}
	_, _, err = f.cluster()
	return f, err
}

// DefaultPath is where kubeadm's commands look for a kubeconfig that was not named:
// $KUBECONFIG, ~/.kube/config, and then the node's admin.conf; the first that exists.
func DefaultPath(adminConf string) string {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.Precedence = append(rules.Precedence, adminConf)
	return rules.GetDefaultFilename()
}

func (f *File) cluster() (name string, cluster *clientcmdapi.Cluster, err error) {
	context := f.Config.Contexts[f.Config.CurrentContext]
	if context == nil || f.Config.Clusters[context.Cluster] == nil {
		return "", nil, fmt.Errorf("%s: its current context names no cluster", f.Path)
	}
	return context.Cluster, f.Config.Clusters[context.Cluster], nil
}

// ClusterName is the name that the file has for the cluster of its current context.
func (f *File) ClusterName() string {
	name, _, _ := f.cluster() // Read has checked it
	return name
}

// Server is the URL of the API server.
func (f *File) Server() string {
	_, cluster, _ := f.cluster()
	return cluster.Server
}

// CAPins are the pins of the CAs that the file trusts, for joining nodes.
func (f *File) CAPins() ([]string, error) {
	_, cluster, err := f.cluster()
	if err != nil {
		return nil, err
	}
	if len(cluster.CertificateAuthorityData) == 0 {
		return nil, fmt.Errorf("%s holds no CA certificate: a joining node needs its pin", f.Path)
	}
	pins, err := pki.CAPins(cluster.CertificateAuthorityData)
	if err != nil {
		return nil, fmt.Errorf("%s: its CA: %w", f.Path, err)
	}
	return pins, nil
}

// RESTConfig is the file's current context for client-go.
func (f *File) RESTConfig() (*rest.Config, error) {
	rc, err := clientcmd.NewNonInteractiveClientConfig(*f.Config, "", &clientcmd.ConfigOverrides{}, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("%s is not a usable kubeconfig", f.Path)
	}
	rc.Timeout = Timeout
	rc.UserAgent = "kiln"
	return rc, nil
}

// Client speaks to the API server with the file's credentials. Nothing is sent yet.
func (f *File) Client() (kubernetes.Interface, error) {
	rc, err := f.RESTConfig()
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(rc)
	if err != nil {
		return nil, fmt.Errorf("%s is not a usable kubeconfig", f.Path)
	}
	return client, nil
}
