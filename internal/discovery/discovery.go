// Package discovery finds the cluster that a node joins, and makes sure that it is
// that one, as kubeadm 1.37 does (cmd/kubeadm/app/discovery): by a bootstrap token
// and pins of the cluster's CA, or with a kubeconfig.
//
// What a server says is believed only after it was checked. No error quotes a token
// or the content of a kubeconfig.
package discovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	bootstrapapi "k8s.io/cluster-bootstrap/token/api"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/secret"
)

const (
	// requestTimeout is per request: an endpoint that swallows packets is noticed.
	requestTimeout = 30 * time.Second
	// maxAnswer bounds what is read of a server that is not believed yet.
	maxAnswer = 1 << 20
	// user is the name that kubeadm gives the token in the kubeconfig.
	user = "tls-bootstrap-token-user"
)

// Cluster is a cluster that was found and checked.
type Cluster struct {
	// Server is "https://host:port" as the cluster itself names it.
	Server string
	// CA holds its CA certificates.
	CA []byte
	// Kubeconfig speaks to it with the credentials for joining.
	Kubeconfig secret.Value
	// Warning is something that a person should know; "" for nothing.
	Warning string
}

// ByToken finds the cluster at the plan's endpoint. It reads cluster-info without
// knowing who answers, checks that it is signed with the token and that its CA has
// one of the pins, and reads it again over a connection that this CA verifies.
//
// Errors heal: the same call succeeds once their cause is gone.
func ByToken(ctx context.Context, d bootplan.Discovery, token bootplan.Token, clusterName string, now time.Time) (*Cluster, error) {
	host, port, err := bootplan.SplitEndpoint(d.Endpoint)
	if err != nil {
		return nil, err
	}
	server := serverURL(host, port)
	info, err := read(ctx, &rest.Config{Host: server, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}, server)
	if err != nil {
		return nil, err
	}
	kubeconfig, ok := info.Data[bootstrapapi.KubeConfigKey]
	if !ok {
		return nil, fmt.Errorf("cluster-info of %s holds no kubeconfig", server)
	}
	signature, ok := info.Data[bootstrapapi.JWSSignatureKeyPrefix+token.ID]
	if !ok {
		return nil, unsigned(token, now)
	}
	if err := checkSignature(kubeconfig, signature, token); err != nil {
		return nil, err
	}
	cluster, err := parseClusterInfo([]byte(kubeconfig))
	if err != nil {
		return nil, err
	}
	if err := checkPins(cluster.CertificateAuthorityData, d.CACertHashes); err != nil {
		return nil, err
	}
	verified, err := read(ctx, &rest.Config{Host: server, TLSClientConfig: rest.TLSClientConfig{CAData: cluster.CertificateAuthorityData}}, server)
	if err != nil {
		err = fmt.Errorf("with the cluster's CA: %w", err)
		if floor, behind := clockFloor(err, cluster.CertificateAuthorityData); behind {
			return nil, &ClockError{Floor: floor, error: err}
		}
		return nil, err
	}
	if verified.Data[bootstrapapi.KubeConfigKey] != kubeconfig {
		return nil, fmt.Errorf("cluster-info of %s is another one over a verified connection than before: somebody changed it on its way, or the cluster just did", server)
	}
	out := &Cluster{Server: cluster.Server, CA: cluster.CertificateAuthorityData}
	if out.Kubeconfig, err = withToken(cluster, clusterName, token); err != nil {
		return nil, err
	}
	return out, nil
}

// unsigned says why cluster-info has no signature with the token.
func unsigned(token bootplan.Token, now time.Time) error {
	if !token.Expires.IsZero() && !now.Before(token.Expires) {
		return fmt.Errorf("bootstrap token %s expired on %s, and cluster-info is not signed with it; create it again in the cluster, or give this node a new one", token.ID, token.Expires.UTC().Format(time.RFC3339))
	}
	return fmt.Errorf("cluster-info is not signed with bootstrap token %s: the token has expired or was deleted, or the control plane has yet to sign", token.ID)
}

// withToken renders the kubeconfig of the cluster for the token, as kubeadm does.
func withToken(cluster *clientcmdapi.Cluster, clusterName string, token bootplan.Token) (secret.Value, error) {
	kc := clientcmdapi.NewConfig()
	kc.Clusters[clusterName] = &clientcmdapi.Cluster{Server: cluster.Server, CertificateAuthorityData: cluster.CertificateAuthorityData}
	kc.AuthInfos[user] = &clientcmdapi.AuthInfo{Token: token.ID + "." + token.Secret.RevealString()}
	context := user + "@" + clusterName
	kc.Contexts[context] = &clientcmdapi.Context{Cluster: clusterName, AuthInfo: user}
	kc.CurrentContext = context
	return render(kc)
}

func render(kc *clientcmdapi.Config) (secret.Value, error) {
	out, err := clientcmd.Write(*kc)
	if err != nil {
		return secret.Value{}, errors.New("the kubeconfig for joining cannot be rendered")
	}
	return secret.New(out), nil
}

// read gets cluster-info. Its errors say what is wrong with the server or with the
// way to it.
func read(ctx context.Context, rc *rest.Config, server string) (*corev1.ConfigMap, error) {
	rc.Timeout, rc.UserAgent = requestTimeout, "kiln-firstboot"
	rc.Wrap(func(next http.RoundTripper) http.RoundTripper { return limited{next} })
	client, err := kubernetes.NewForConfig(rc)
	if err != nil {
		return nil, fmt.Errorf("API server %s: %w", server, err)
	}
	info, err := client.CoreV1().ConfigMaps(metav1.NamespacePublic).Get(ctx, bootstrapapi.ConfigMapClusterInfo, metav1.GetOptions{})
	switch {
	case err == nil:
		return info, nil
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("%s has no cluster-info yet: its control plane is being set up", server)
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return nil, forbidden{fmt.Errorf("%s does not let this node read cluster-info: %w", server, err)}
	case apierrors.ReasonForError(err) != metav1.StatusReasonUnknown:
		return nil, fmt.Errorf("%s does not give cluster-info: %w", server, err)
	}
	return nil, fmt.Errorf("the API server cannot be reached: %w", err)
}

// forbidden is an answer of an API server that knows who asks.
type forbidden struct{ error }

func (f forbidden) Unwrap() error { return f.error }

// limited is a transport that ends answers which are longer than any cluster-info.
type limited struct{ next http.RoundTripper }

func (l limited) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.next.RoundTrip(req)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	}
	return resp, err
}
