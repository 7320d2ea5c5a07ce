package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	bootstrapapi "k8s.io/cluster-bootstrap/token/api"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/secret"
)

// ErrKubeconfig is a kubeconfig that no waiting makes usable.
var ErrKubeconfig = errors.New("the boot plan's discovery kubeconfig")

// ByKubeconfig finds the cluster of a kubeconfig, whose server and CA it trusts. A
// CA that the kubeconfig does not have is taken from cluster-info, over a
// connection that the system's CAs verify. Without credentials of its own, token is
// used for joining.
//
// Errors other than ErrKubeconfig heal: the same call succeeds once their cause is gone.
func ByKubeconfig(ctx context.Context, kubeconfig secret.Value, token *bootplan.Token, clusterName string) (*Cluster, error) {
	kc, own, err := parseKubeconfig(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKubeconfig, err)
	}
	cluster, err := onlyCluster(kc)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKubeconfig, err)
	}
	if !own && token == nil {
		return nil, fmt.Errorf("%w: it holds no credentials, and the boot plan no bootstrap token", ErrKubeconfig)
	}
	asking := kc
	if !own { // anybody may ask for cluster-info
		asking = clientcmdapi.NewConfig()
		asking.Clusters[""], asking.Contexts["c"], asking.CurrentContext = cluster, &clientcmdapi.Context{}, "c"
	}
	rc, err := clientcmd.NewDefaultClientConfig(*asking, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("%w: it cannot be used", ErrKubeconfig)
	}
	out := &Cluster{Server: cluster.Server}
	info, err := read(ctx, rc, cluster.Server)
	switch {
	case errors.As(err, new(forbidden)) && len(cluster.CertificateAuthorityData) > 0:
		// Its administrator does not publish it; the kubeconfig says all that is needed.
	case err != nil:
		return nil, err
	default:
		published, err := parseClusterInfo([]byte(info.Data[bootstrapapi.KubeConfigKey]))
		if err != nil {
			return nil, err
		}
		if published.Server != cluster.Server {
			out.Warning = fmt.Sprintf("the cluster calls its API server %s, the boot plan's kubeconfig %s; the latter is used", published.Server, cluster.Server)
		}
		if len(cluster.CertificateAuthorityData) == 0 {
			cluster.CertificateAuthorityData = published.CertificateAuthorityData
		}
	}
	if _, err := certificates(cluster.CertificateAuthorityData); err != nil {
		return nil, fmt.Errorf("%w: its CA: %w", ErrKubeconfig, err)
	}
	out.CA = cluster.CertificateAuthorityData
	if own {
		out.Kubeconfig, err = render(kc)
	} else {
		out.Kubeconfig, err = withToken(cluster, clusterName, *token)
	}
	return out, err
}

// parseKubeconfig reads a kubeconfig that must hold everything itself. own reports
// whether that includes credentials. Its errors quote nothing of the file.
func parseKubeconfig(v secret.Value) (kc *clientcmdapi.Config, own bool, err error) {
	if kc, err = clientcmd.Load(v.Reveal()); err != nil {
		return nil, false, errors.New("it is not a kubeconfig")
	}
	for _, c := range kc.Clusters {
		switch {
		case c == nil:
			return nil, false, errors.New("it has an empty cluster")
		case c.CertificateAuthority != "":
			return nil, false, errors.New("its CA is in a file; want certificate-authority-data")
		case c.InsecureSkipTLSVerify:
			return nil, false, errors.New("it does not verify the server (insecure-skip-tls-verify)")
		}
	}
	current := kc.Contexts[kc.CurrentContext]
	if current == nil || kc.AuthInfos[current.AuthInfo] == nil {
		return kc, false, nil
	}
	switch a := kc.AuthInfos[current.AuthInfo]; {
	case a.ClientCertificate != "" || a.ClientKey != "" || a.TokenFile != "":
		return nil, false, errors.New("its credentials are in files; want client-certificate-data and client-key-data, or a token")
	case a.Exec != nil || a.AuthProvider != nil:
		return nil, false, errors.New("its credentials come from a program, which the node does not have")
	default:
		return kc, a.Token != "" || len(a.ClientCertificateData) > 0, nil
	}
}

func serverURL(host string, port int) string {
	return "https://" + net.JoinHostPort(host, strconv.Itoa(port))
}
